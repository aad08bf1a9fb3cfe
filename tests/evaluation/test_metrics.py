"""Scores of judgments that were made by hand, so that every number can be derived by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from daj_lightning.evaluation import Score, best_of_n_scores, bootstrap, selection_scores
from daj_lightning.evaluation.metrics import Graded, layout_share
from daj_lightning.judge import Voting, judge_response, selection_tag
from daj_lightning.records import Candidate, Comparison, Judgment

GRADED = {
    "p": [(Candidate("p0", "p", "toy", "long code"), True), (Candidate("p1", "p", "toy", "code"), False)],
    "q": [
        (Candidate("q0", "q", "toy", "a"), False),
        (Candidate("q1", "q", "toy", "bb"), True),
        (Candidate("q2", "q", "toy", "ccc"), False),
    ],
}
DIFFICULTY = {"p": "easy", "q": "hard", "r": "medium"}
CODE = {c.candidate_id: (c, passed) for group in GRADED.values() for c, passed in group}
ANY = Voting()


def judgment(ids: str, selection: int | None, kind: str = "mixed", graded: Graded = GRADED) -> Judgment:
    """The judge's answer when asked about candidates `ids`, e.g. "p0 p1"; None breaks the format."""
    own = {c.candidate_id: (c, passed) for group in graded.values() for c, passed in group}
    names = tuple(ids.split())
    problem = own[names[0]][0].problem_id
    comparison = Comparison(
        problem_id=problem,
        domain=f"atcoder-{DIFFICULTY[problem]}",
        difficulty=DIFFICULTY[problem],
        policy="toy",
        candidate_ids=names,
        passed=tuple(own[name][1] for name in names),
        prompt="which?",
        kind=kind,
    )
    return judge_response(comparison, "cannot say" if selection is None else selection_tag(selection))


MIXED = ("p0 p1", "p1 p0", "q1 q0", "q0 q1", "q1 q2", "q2 q1")  # every mixed pair in both orders


def values(scores: dict[str, Score]) -> dict[str, float]:
    return {name: score.value for name, score in scores.items()}


def ask(judge: Callable[[str], int | None]) -> dict[str, float]:
    return values(selection_scores([judgment(ids, judge(ids)) for ids in MIXED], GRADED))


def right_one(ids: str) -> int:
    return [CODE[name][1] for name in ids.split()].index(True)


def test_the_interval_is_exact_where_it_can_be_counted() -> None:
    """Two problems, 0 and 1: a quarter of the draws is all 0 and a quarter all 1."""
    assert bootstrap([[0.0], [1.0]]) == Score(0.5, 0.0, 1.0, 2)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.25])
def test_scores_that_are_all_alike_have_no_width(value: float) -> None:
    assert bootstrap([[value]] * 30) == Score(value, value, value, 30)
    assert bootstrap([[value]]) == Score(value, value, value, 1)


def test_no_score_at_all_is_no_number() -> None:
    empty = bootstrap([])
    assert empty.num_problems == 0
    assert all(map(math.isnan, (empty.value, empty.low, empty.high)))


def test_the_value_is_the_mean_over_comparisons_and_the_count_is_of_problems() -> None:
    score = bootstrap([[1.0, 1.0, 1.0], [0.0]])
    assert (score.value, score.num_problems) == (0.75, 2)


def test_comparisons_of_one_problem_are_drawn_together() -> None:
    """Fifty answers to each of two problems say as much about other problems as one answer to each."""
    together = bootstrap([[0.0] * 50, [1.0] * 50])
    assert (together.low, together.high) == (0.0, 1.0)
    apart = bootstrap([[float(i % 2)] for i in range(100)])
    assert apart.high - apart.low < 0.25  # 4 standard errors are 0.2


def test_the_interval_holds_the_truth_95_times_in_100() -> None:
    """400 experiments of 60 problems, 3 correlated answers each, truth 0.7."""
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(400):
        difficulty = rng.choice([0.5, 0.9], size=60)
        score = bootstrap([(rng.random(3) < d).astype(float) for d in difficulty], num_draws=400, seed=trial)
        held += score.low <= 0.7 <= score.high
    assert 0.91 <= held / 400 <= 0.98


def test_a_perfect_judge_scores_100_percent() -> None:
    judgments = [judgment(ids, right_one(ids)) for ids in MIXED]
    scores = selection_scores(judgments, GRADED)
    assert scores["judge"] == scores["consistent"] == Score(1.0, 1.0, 1.0, 2)
    assert str(scores["judge"]) == "100.0% [100.0%, 100.0%] (n=2)"
    assert scores["first position"].value == 0.5
    assert scores["format errors"].value == 0.0


def test_a_judge_that_names_the_first_is_right_half_the_time_and_never_consistent() -> None:
    scores = ask(lambda ids: 0)
    assert (scores["judge"], scores["first position"], scores["consistent"]) == (0.5, 1.0, 0.0)


def test_a_judge_that_names_the_second_has_first_position_0() -> None:
    scores = ask(lambda ids: 1)
    assert (scores["judge"], scores["first position"], scores["consistent"]) == (0.5, 0.0, 0.0)


def test_a_consistent_judge_can_be_consistently_wrong() -> None:
    scores = ask(lambda ids: 1 - right_one(ids))
    assert (scores["judge"], scores["consistent"]) == (0.0, 1.0)


def test_a_format_error_is_wrong_has_no_position_and_agrees_with_nothing() -> None:
    """Right on p0 p1 (first) and p1 p0 (second), broken on both orders of q1 q0 and on one of q1 q2, right on the last.

    judge 3 of 6; format errors 3 of 6; valid answers name positions 0, 1, 1; pairs p0p1 of three agree.
    """
    answers = dict(zip(MIXED, [0, 1, None, None, None, 1], strict=True))
    scores = ask(answers.__getitem__)
    assert scores["judge"] == 3 / 6
    assert scores["format errors"] == 3 / 6
    assert scores["first position"] == pytest.approx(1 / 3)
    assert scores["consistent"] == pytest.approx(1 / 3)


def test_the_selection_accuracy_is_split_by_difficulty() -> None:
    """Right on both orders of p (easy) and on q1 q0 alone of q's four (hard)."""
    answers = dict(zip(MIXED, [0, 1, 0, 0, 1, 0], strict=True))
    scores = ask(answers.__getitem__)
    assert (scores["judge"], scores["judge, easy"], scores["judge, hard"]) == (3 / 6, 1.0, 1 / 4)
    assert "judge, medium" not in scores


def test_code_length_is_scored_on_the_same_comparisons() -> None:
    """p: the right one is longer (2 of 2). q1 is longer than q0 (2 of 2) and shorter than q2 (0 of 2)."""
    scores = ask(lambda ids: 0)
    assert scores["longer code"] == pytest.approx(4 / 6)
    assert scores["shorter code"] == pytest.approx(2 / 6)


def test_equal_lengths_count_half_for_either_rule() -> None:
    alike = {"p": [(Candidate(n, "p", "toy", "same"), n == "p0") for n in ("p0", "p1")]}
    scores = values(selection_scores([judgment("p0 p1", 0)], alike))
    assert (scores["longer code"], scores["shorter code"]) == (0.5, 0.5)


LAYOUT = {
    "p": [
        (Candidate("p0", "p", "toy", "x=1#ab"), True),  # 3 of 6
        (Candidate("p1", "p", "toy", "x = 1"), False),  # 2 of 5
    ],
    "q": [
        (Candidate("q0", "q", "toy", "x='#ab'"), True),  # 0 of 7: a string is no comment
        (Candidate("q1", "q", "toy", "x=1\n"), False),  # 1 of 4
        (Candidate("q2", "q", "toy", "xyz"), False),  # 0 of 3
    ],
}


def test_the_share_of_white_space_and_comments_is_scored_on_the_same_comparisons() -> None:
    """p0 beats p1; q0 loses to q1 and ties with q2: 1, 0, 0.5."""
    shares = [[layout_share(c.code) for c, _ in LAYOUT[name]] for name in "pq"]
    assert shares == [[pytest.approx(0.5), pytest.approx(0.4)], [0.0, pytest.approx(0.25), 0.0]]
    judgments = [judgment(ids, 0, graded=LAYOUT) for ids in ("p0 p1", "p1 p0", "q0 q1", "q2 q0")]
    assert selection_scores(judgments, LAYOUT)["more layout"].value == pytest.approx((1 + 1 + 0 + 0.5) / 4)


def test_white_space_inside_a_comment_counts_once() -> None:
    assert layout_share("# a b\n") == 1.0
    assert layout_share("x") == 0.0


POLICIES = {
    "p": [(Candidate("p0", "p", "good", "a"), True), (Candidate("p1", "p", "bad", "b"), False)],
    "q": [(Candidate("q0", "q", "good", "a"), False), (Candidate("q1", "q", "bad", "b"), True)],
    "r": [
        (Candidate("r0", "r", "good", "a"), True),
        (Candidate("r1", "r", "bad", "b"), False),
        (Candidate("r2", "r", "bad", "c"), False),
        (Candidate("r3", "r", "new", "d"), True),
    ],
}


def test_the_stronger_policy_is_known_from_the_other_problems_only() -> None:
    """Elsewhere, good : bad pass 1/2 : 1/3 seen from p, 2/2 : 0/3 from q, and 1/2 : 1/2 from r, a tie.

    From r, "new" wrote nothing elsewhere, which says nothing.
    """
    for ids, wanted in (("p0 p1", 1.0), ("q1 q0", 0.0), ("r0 r1", 0.5), ("r3 r1", 0.5)):
        scores = selection_scores([judgment(ids, 0, graded=POLICIES)], POLICIES)
        assert scores["stronger policy"].value == wanted, ids


def test_two_candidates_of_one_policy_tell_the_policy_rule_nothing() -> None:
    assert ask(lambda ids: 0)["stronger policy"] == 0.5


def test_best_of_n_of_the_stronger_policy_is_the_mean_over_its_candidates() -> None:
    """p: good, p0 passes. q: good, q0 fails. r: good and bad tie, their r0, r1, r2 pass 1 in 3."""
    asked = [judgment(ids, 0, "round", POLICIES) for ids in ("p0 p1", "q0 q1", "r0 r1")]
    scores = best_of_n_scores(asked, POLICIES, ANY)
    assert scores["stronger policy"]["overall"].value == pytest.approx((1 + 0 + 1 / 3) / 3)


def test_a_policy_without_other_problems_is_as_good_as_random() -> None:
    alone = {"r": POLICIES["r"]}
    scores = best_of_n_scores([judgment("r0 r1", 0, "round", alone)], alone, ANY)
    assert scores["stronger policy"] == scores["random"]


def test_best_of_n_of_more_layout_takes_the_candidate_with_most() -> None:
    asked = [judgment(ids, 0, "round", LAYOUT) for ids in ("p0 p1", "q0 q1")]
    assert values(best_of_n_scores(asked, LAYOUT, ANY)["more layout"]) == {"overall": 0.5, "easy": 1.0, "hard": 0.0}


def test_a_pair_asked_in_one_order_only_says_nothing_of_consistency() -> None:
    scores = selection_scores([judgment("p0 p1", 0), judgment("q1 q0", 0), judgment("q0 q1", 0)], GRADED)
    assert (scores["consistent"].value, scores["consistent"].num_problems) == (0.0, 1)


def test_rounds_of_voting_do_not_enter_the_selection_accuracy() -> None:
    judgments = [judgment("p0 p1", 0), *[judgment("p0 p1", 1, "round")] * 5]
    assert selection_scores(judgments, GRADED)["judge"] == Score(1.0, 1.0, 1.0, 1)


def rounds(*answers: tuple[str, int | None]) -> list[Judgment]:
    return [judgment(ids, selection, "round") for ids, selection in answers]


def test_best_of_n_is_the_voted_candidate_beside_its_bounds_and_confounds() -> None:
    """p (easy): p0 gets both votes and passes. q (hard): q2 gets 2 votes, q1 one, and q2 fails.

    random: p 1/2, q 1/3. first: p0 passes, q0 fails. longest: p0 passes, q2 fails. shortest: p1 and q0 fail.
    more layout: p0 alone has a space and passes; q's have none, so the first, and it fails. One policy: as random.
    """
    asked = rounds(("p0 p1", 0), ("p1 p0", 1), ("q1 q2", 1), ("q2 q0", 0), ("q1 q0", 0), ("q0 q2", None))
    scores = {rule: values(by_level) for rule, by_level in best_of_n_scores(asked, GRADED, ANY).items()}
    assert scores == {
        "judge": {"overall": 0.5, "easy": 1.0, "hard": 0.0},
        "random": {"overall": pytest.approx(5 / 12), "easy": 0.5, "hard": pytest.approx(1 / 3)},
        "oracle": {"overall": 1.0, "easy": 1.0, "hard": 1.0},
        "first": {"overall": 0.5, "easy": 1.0, "hard": 0.0},
        "longest": {"overall": 0.5, "easy": 1.0, "hard": 0.0},
        "shortest": {"overall": 0.0, "easy": 0.0, "hard": 0.0},
        "more layout": {"overall": 0.5, "easy": 1.0, "hard": 0.0},
        "stronger policy": {"overall": pytest.approx(5 / 12), "easy": 0.5, "hard": pytest.approx(1 / 3)},
    }


def test_only_rounds_vote() -> None:
    """Ten mixed comparisons for p1 do not outvote one round for p0."""
    asked = rounds(("p0 p1", 0)) + [judgment("p1 p0", 0)] * 10
    assert best_of_n_scores(asked, GRADED, ANY)["judge"]["overall"].value == 1.0


def test_every_level_counts_its_own_problems() -> None:
    scores = best_of_n_scores(rounds(("p0 p1", 0), ("q0 q1", 1)), GRADED, ANY)
    counts = {level: score.num_problems for level, score in scores["judge"].items()}
    assert counts == {"overall": 2, "easy": 1, "hard": 1}


def test_a_perfect_judge_that_sees_every_pair_reaches_the_oracle() -> None:
    asked = [
        judgment(f"{a} {b}", 0 if CODE[a][1] >= CODE[b][1] else 1, "round")
        for group in GRADED.values()
        for a, b in itertools.permutations([c.candidate_id for c, _ in group], 2)
    ]
    scores = best_of_n_scores(asked, GRADED, ANY)
    assert scores["judge"] == scores["oracle"]


def test_a_problem_where_nothing_passes_is_lost_by_every_rule() -> None:
    hopeless = {"p": [(candidate, False) for candidate, _ in GRADED["p"]]}
    scores = best_of_n_scores(rounds(("p0 p1", 0)), hopeless, ANY)
    assert {by_level["overall"].value for by_level in scores.values()} == {0.0}


def test_only_problems_that_were_asked_about_count() -> None:
    """`graded` holds the training problems as well."""
    scores = best_of_n_scores(rounds(("p0 p1", 0)), GRADED, ANY)
    assert scores["oracle"] == {"overall": Score(1.0, 1.0, 1.0, 1), "easy": Score(1.0, 1.0, 1.0, 1)}


def test_a_problem_with_nothing_to_ask_counts_with_its_one_candidate() -> None:
    """A lone failing candidate lowers pass@1; it does not drop out of it."""
    graded = {**GRADED, "lone": [(Candidate("l0", "lone", "toy", "x"), False)]}
    asked = rounds(("p0 p1", 0), ("q0 q1", 1))
    without = best_of_n_scores(asked, graded, ANY)["judge"]["overall"]
    problems = {**{j.comparison.problem_id: j.comparison.difficulty for j in asked}, "lone": "hard"}
    counted = best_of_n_scores(asked, graded, ANY, problems)["judge"]["overall"]
    assert counted.num_problems == without.num_problems + 1
    assert counted.value == pytest.approx(without.value * without.num_problems / counted.num_problems)
