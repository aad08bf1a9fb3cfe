"""What answers in both orders come to: JudgeBench's rules, counted by hand."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from hypothesis import given, settings, strategies as st

from daj_lightning.evaluation.pairwise import Choice, PairAnswer, PairwiseAccuracy, is_right
from daj_lightning.evaluation.ranking import Ndcg, Transitivity, Vote
from daj_lightning.evaluation.score import Score

A, B, TIE, NULL, OTHER = Choice


def asked(pair: str, first: Choice, second: Choice, right: Choice = A, problem: str = "p") -> list[PairAnswer]:
    """Both orders of a pair; choices name programs, not positions."""
    return [PairAnswer(pair, problem, right, False, first), PairAnswer(pair, problem, right, True, second)]


def values(answers: list[PairAnswer]) -> dict[str, float]:
    metric = PairwiseAccuracy()
    metric.update(answers)
    return {name: score.value for name, score in metric.scores().items()}


EVERY_KIND = [
    *asked("right, right", A, A),
    *asked("right, wrong", A, B),
    *asked("right, tie", A, TIE),
    *asked("null, right", NULL, B, right=B),
    *asked("wrong, wrong", A, A, right=B),
    *asked("tie, tie", TIE, TIE),
    *asked("null, null", NULL, NULL),
    *asked("wrong, null", B, NULL),
]


def test_every_kind_of_pair_counts_as_judgebench_counts_it() -> None:
    """Eight pairs, sixteen answers.

    First order right: right-right, right-wrong, right-tie: 3. Second: right-right, null-right: 2. Ties: 3 answers.
    Nulls: null-right, null-null twice, wrong-null: 4. Alike in both orders: right-right, wrong-wrong, tie-tie,
    null-null; with a program preferred the first two. Official: right-right, right-tie, null-right.
    Preferences, by position: first order A, A, A, A, B name positions 0 0 0 0 1; second order A, B, B, A name 1 0 0 1.
    """
    assert values(EVERY_KIND) == {
        "single order": 5 / 16,
        "first order": 3 / 8,
        "second order": 2 / 8,
        "both correct": 1 / 8,
        "consistency": 4 / 8,
        "consistent and valid": 2 / 8,
        "JudgeBench official": 3 / 8,
        "ties counted half": (5 + 3 * 0.5) / 16,
        "first position": pytest.approx(6 / 9),
        "null rate": 4 / 16,
    }


def test_two_different_words_for_nothing_do_not_agree() -> None:
    def said(word: str, swapped: bool) -> PairAnswer:
        return PairAnswer("pair", "p", A, swapped, OTHER, other=word)

    assert values([said("A<B", False), said("A<B", True)])["consistency"] == 1
    assert values([said("A<B", False), said("good", True)])["consistency"] == 0
    assert values([said("A<B", False), said("A<B", True)])["null rate"] == 0


def test_a_pair_asked_in_one_order_says_nothing_of_two() -> None:
    found = values([PairAnswer("pair", "p", A, False, A)])
    assert set(found) == {"single order", "first order", "ties counted half", "first position", "null rate"}


def test_a_scalar_score_has_no_position() -> None:
    found = values([PairAnswer("pair", "p", A, False, TIE, positional=False)])
    assert found == {"single order": 0, "ties counted half": 0.5, "null rate": 0}


def test_repeated_answers_meet_each_other() -> None:
    """Right, wrong in the first order and right in the second: half of the meetings are right twice."""
    answers = [*asked("pair", A, A), PairAnswer("pair", "p", A, False, B)]
    assert values(answers)["both correct"] == 0.5
    assert values(answers)["single order"] == pytest.approx(2 / 3)


def test_pairs_of_one_problem_are_drawn_together() -> None:
    """Two problems, one always right and one never: the interval is all of [0, 1] however many pairs they have."""
    metric = PairwiseAccuracy()
    for k in range(30):
        metric.update([*asked(f"p{k}", A, A, problem="p"), *asked(f"q{k}", B, B, problem="q")])
    assert metric.scores()["single order"] == Score(0.5, 0.0, 1.0, 2)


def test_a_judge_knows_a_pair_if_it_is_right_more_often_than_wrong() -> None:
    assert is_right(asked("", A, A))
    assert is_right(asked("", A, NULL))
    assert not is_right(asked("", A, B))
    assert not is_right(asked("", TIE, TIE))


answers = st.builds(
    PairAnswer,
    pair=st.sampled_from("uvw"),
    problem=st.sampled_from("pq"),
    right=st.sampled_from([A, B]),
    swapped=st.booleans(),
    choice=st.sampled_from([A, B, TIE, NULL]),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(answers, min_size=1, max_size=12), st.randoms(use_true_random=False), st.integers(1, 4))
def test_updates_in_any_order_and_any_pieces_give_the_same_numbers(
    given: list[PairAnswer], rng: random.Random, pieces: int
) -> None:
    """Pairs keep one right program: PairAnswer.right is of the pair."""
    right = {a.pair: a.right for a in given}
    given = [PairAnswer(a.pair, a.problem, right[a.pair], a.swapped, a.choice) for a in given]
    whole = PairwiseAccuracy()
    whole.update(given)
    shuffled = rng.sample(given, len(given))
    parts = [PairwiseAccuracy() for _ in range(pieces)]
    for answer in shuffled:
        rng.choice(parts).update([answer])
    for part in parts[1:]:
        if part.update_called:
            parts[0].update([])
            parts[0].merge_state(part)
    assert same(parts[0].scores(), whole.scores())


def same(first: dict[str, Score], second: dict[str, Score]) -> bool:
    return repr(first) == repr(second)  # NaN is itself


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("pq"), st.permutations(range(4)), st.integers(0, 2)), min_size=1, max_size=20),
    st.randoms(use_true_random=False),
)
def test_cycles_do_not_depend_on_the_order_of_votes(drawn: list, rng: random.Random) -> None:
    votes = [Vote(p, (order[0], order[1]), [order[0], order[1], None][k]) for p, order, k in drawn]
    whole, pieces = Transitivity(), Transitivity()
    whole.update(votes)
    for vote in rng.sample(votes, len(votes)):
        pieces.update([vote])
    assert same(whole.scores(), pieces.scores())


def test_a_metric_starts_afresh_after_reset() -> None:
    metric = PairwiseAccuracy()
    metric.update(asked("pair", B, B))
    assert metric.scores()["single order"].value == 0
    metric.reset()
    metric.update(asked("pair", A, A))
    assert metric.scores()["single order"] == Score(1, 1, 1, 1)


def test_what_is_computed_can_be_logged() -> None:
    metric = PairwiseAccuracy()
    metric.update(asked("pair", A, A))
    logged = metric.compute()
    assert {k: float(v) for k, v in logged.items() if k.startswith("both")} == {
        "both correct": 1,
        "both correct/low": 1,
        "both correct/high": 1,
        "both correct/problems": 1,
    }
    assert all(value.ndim == 0 for value in logged.values())


def share_of_rank(rank: int, directory: str) -> None:
    """Of one metric each of two processes has a part, of the other one the first has all."""
    torch.distributed.init_process_group("gloo", f"file://{directory}/store", rank=rank, world_size=2)
    found = []
    for parts in ((EVERY_KIND[:-2], EVERY_KIND[-2:]), (EVERY_KIND, [])):
        metric = PairwiseAccuracy()
        if parts[rank]:
            metric.update(parts[rank])
        found.append(metric.scores())
    torch.save(found, f"{directory}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_processes_together_know_what_one_knows_also_where_one_has_nothing(tmp_path: Path) -> None:
    whole = PairwiseAccuracy()
    whole.update(EVERY_KIND)
    # Forked: a fresh interpreter would import torch again, which takes longer than all else here.
    mp.start_processes(share_of_rank, (str(tmp_path),), nprocs=2, start_method="fork")
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt", weights_only=False) == [whole.scores()] * 2


def beats(*pairs: str) -> list[Vote]:
    """ "ab": a beats b, once."""
    return [Vote("p", (ord(w) - 97, ord(loser) - 97), ord(w) - 97) for w, loser in map(tuple, pairs)]


def transitivity(votes: list[Vote]) -> float | None:
    metric = Transitivity()
    metric.update(votes)
    found = metric.scores()
    return found["transitivity"].value if found else None


def test_transitivity_is_the_share_of_triples_without_a_cycle() -> None:
    """Of four candidates in a circle of three with a last one below all, one triple of four is a cycle."""
    assert transitivity(beats("ab", "bc", "ac")) == 1
    assert transitivity(beats("ab", "bc", "ca")) == 0
    assert transitivity(beats("ac", "cb", "ba")) == 0
    assert transitivity(beats("ab", "bc", "ca", "ad", "bd", "cd")) == 0.75


def test_the_majority_of_a_pairs_answers_decides_it_and_a_draw_decides_nothing() -> None:
    assert transitivity(beats("ab", "bc", "ca", "ac", "ac")) == 1
    assert transitivity(beats("ab", "bc", "ca", "ac")) is None
    assert transitivity(beats("ab", "bc")) is None
    assert transitivity([*beats("ab", "bc"), Vote("p", (0, 2), None)]) is None


def test_ndcg_of_votes_is_counted_by_hand() -> None:
    """Right ones at places 1 and 3: (1 + 1/2) / (1 + 1/log2 3). All strengths equal: each place is shared."""
    metric = Ndcg()
    metric.update(["p", "same"], [[3.0, 2.0, 1.0], [1.0, 1.0, 1.0]], [[True, False, True], [True, True, True]])
    found = metric.scores()["NDCG"]
    assert (found.value, found.num_problems) == (pytest.approx((1 + 0.5) / (1 + 1 / math.log2(3))), 1)
    shared = Ndcg()
    shared.update(["p"], [[0.0, 0.0]], [[False, True]])
    assert shared.scores()["NDCG"].value == pytest.approx((1 + 1 / math.log2(3)) / 2)


def test_ndcg_tells_scores_apart_that_float32_takes_for_equal() -> None:
    metric = Ndcg()
    metric.update(["p"], [[1.0, 1.0 + 1e-12, float("-inf")]], [[False, True, False]])
    assert metric.scores()["NDCG"].value == 1
