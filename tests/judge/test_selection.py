"""The paper's voting: what it asks, who wins, and how far a perfect judge gets with it."""

from __future__ import annotations

import pytest

from daj_lightning.judge import Voting
from daj_lightning.records import DajError


def test_most_votes_win_and_a_format_error_gives_none() -> None:
    selection = Voting(rounds=4).count(3, "p", [(0, 1), (1, 2), (2, 1), (0, 2)], [1, 0, 1, None])
    assert selection.votes == (0, 3, 0)
    assert (selection.winner, selection.num_invalid) == (1, 1)


def test_a_round_compares_two_distinct_candidates_in_either_order() -> None:
    rounds = Voting(rounds=200).draw(3, "p")
    assert len(rounds) == 200
    assert set(rounds) == {(i, j) for i in range(3) for j in range(3) if i != j}


def test_draws_and_ties_are_decided_by_seed_and_problem() -> None:
    assert Voting(8, seed=1).draw(5, "p") == Voting(8, seed=1).draw(5, "p")
    assert Voting(8, seed=1).draw(5, "p") != Voting(8, seed=1).draw(5, "q")
    winners = {Voting(1, seed=s).count(4, "p", [], []).winner for s in range(40)}
    assert winners == {0, 1, 2, 3}


@pytest.mark.parametrize(("num_candidates", "share"), [(4, 0.770), (8, 0.398)])
def test_a_perfect_judge_is_held_back_by_eight_random_rounds(num_candidates: int, share: float) -> None:
    """Spec, section 7: 77.0 % at N = 4 and 39.8 % at N = 8 with one right candidate."""
    voting, trials = Voting(rounds=8), 20_000
    wins = 0
    for t in range(trials):
        rounds = voting.draw(num_candidates, str(t))
        answers = [pair.index(0) if 0 in pair else 0 for pair in rounds]
        wins += voting.count(num_candidates, str(t), rounds, answers).winner == 0
    assert wins / trials == pytest.approx(share, abs=0.01)


def test_there_is_nothing_to_ask_about_one_candidate_and_nothing_to_choose_from_none() -> None:
    assert Voting().draw(1, "p") == []
    with pytest.raises(DajError, match="empty"):
        Voting().draw(0, "p")
