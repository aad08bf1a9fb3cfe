"""Judges of every form on the same problems: who is picked, what is counted, what is refused."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from daj_lightning.evaluation.evaluate import gap_recovered, picked, result, tests as paired_tests
from daj_lightning.evaluation.failures import failures
from daj_lightning.evaluation.field import Field
from daj_lightning.evaluation.judges import Answered, Rater, Scored
from daj_lightning.evaluation.judgments import Answer
from daj_lightning.evaluation.pairwise import Choice
from daj_lightning.evaluation.replay import Recorded, by_num_candidates, curve
from daj_lightning.records import DajError
from judged import PASSED, answer, candidate, judge, make_field

ALL_RIGHT = {f"{name}{i}": float(ok) for name, own in PASSED.items() for i, ok in enumerate(own)}


def scored(scores: dict[str, float], field: Field | None = None) -> Scored:
    by_problem: dict[str, dict[str, float]] = {}
    for name, value in scores.items():
        by_problem.setdefault(name[0], {})[name] = value
    return Scored("scores", "by hand", field or make_field(), by_problem)


def round_robin(field: Field, right: bool = True) -> Answered:
    """Names a passing program of each pair (or a failing one), the first shown where both are alike."""
    answers: list[Answer] = []
    for name, group in field.graded.items():
        for i, j in itertools.combinations(range(len(group)), 2):
            ok = [group[i][1], group[j][1]]
            answers.append(answer(f"{name}{i} {name}{j}", 0 if ok[0] == ok[1] else ok.index(right)))
    return Answered("round robin", "by hand", field, answers)


def test_votes_pick_and_a_tie_counts_as_the_mean_of_the_tied() -> None:
    """p: p0 and p1 have a vote each, p0 passes: 1/2. q: q1 wins. r: nobody was asked, so all are tied, none passes."""
    ours = judge(answer("p0 p1", 0), answer("p2 p1", 1), answer("q1 q0", 0), answer("q2 q3", None))
    assert ours.pick("p") == [0, 1]
    assert picked(ours) == {"p": 0.5, "q": 1, "r": 0}
    assert ours.notes == ["1 of 3 problems have no judgment that votes, and count as a random pick"]
    assert {k: s.value for k, s in result(ours).pass_at_1.items()} == {"overall": 0.5, "easy": 0.5, "hard": 0.5}


def test_the_gap_recovered_leaves_out_problems_without_a_right_program() -> None:
    """p: judge 1/2, random 1/2. q: judge 1, random 1/4. (0 + 3/4) / (1/2 + 3/4) = 0.6."""
    ours = judge(answer("p0 p1", 0), answer("p2 p1", 1), answer("q1 q0", 0))
    assert gap_recovered(ours.field, picked(ours))["overall"].value == pytest.approx(0.6)


def test_rounds_vote_and_mixed_questions_measure_accuracy_where_the_file_says_which_is_which() -> None:
    ours = judge(answer("p1 p0", 0, "mixed"), answer("p1 p0", 0, "mixed"), answer("p0 p1", 0, "round"))
    assert ours.pick("p") == [0]
    assert [a.choice for a in ours.pair_answers()] == [Choice.B, Choice.B]
    both = judge(answer("p1 p0", 0), answer("p0 p1", None))
    assert both.pick("p") == [1]
    assert [(a.choice, a.right, a.swapped) for a in both.pair_answers()] == [
        (Choice.B, Choice.A, True),
        (Choice.NULL, Choice.A, False),
    ]


def test_mixed_questions_alone_pick_nobody() -> None:
    """Drawn by their verdicts: a coin asked about p0p1 and p0p2, in both orders, would seem to know p0."""
    coin = judge(*(answer(pair, 0, "mixed") for pair in ("p0 p1", "p1 p0", "p0 p2", "p2 p0")))
    found = result(coin)
    assert (found.pass_at_1, found.gap_recovered) == ({}, {})
    assert "NDCG" not in found.pairwise
    assert found.pairwise["single order"].value == 0.5
    assert coin.notes == [
        "all judgments are of mixed pairs, which were drawn by their verdicts and do not vote: no Best-of-N"
    ]
    assert all("judge" not in own for own in by_num_candidates(make_field(), [coin]).values())
    half = judge(answer("p0 p1", 0, "mixed"), answer("q0 q1", 1))
    assert [half.pick(name) for name in "pq"] == [[0, 1, 2, 3], [1]]


def test_answers_about_two_right_or_two_wrong_programs_are_no_question_of_accuracy() -> None:
    assert judge(answer("p0 p3", 0), answer("p1 p2", 0)).pair_answers() == []


def test_what_a_strategy_picked_goes_before_its_votes_and_an_abstention_leaves_them_the_word() -> None:
    answers = [answer("p0 p1", 0), answer("q0 q1", 0)]
    ours = Answered("ours", "", make_field(), answers, {"p": "p2", "q": None, "elsewhere": "x"})
    assert [ours.pick(name) for name in "pqr"] == [[2], [0], [0, 1, 2, 3]]
    assert ours.notes[0] == "abstained on 1 problems, where its votes decide, or chance"
    assert ours.pick("p", [0, 1]) == [0]
    with pytest.raises(DajError, match=r"picked candidate 'p9' of problem 'p', which has no such candidate"):
        Answered("ours", "", make_field(), answers, {"p": "p9"})


def test_a_candidate_without_code_is_nobodys_pick() -> None:
    graded = {"p": [(candidate("p", 0, ""), False), (candidate("p", 1), True), (candidate("p", 2), False)]}
    field = Field(graded, {"p": "easy"})
    assert judge(answer("p1 p2", None), field=field).pick("p") == [1, 2]
    assert judge(answer("p1 p2", 0), field=field).pick("p", [0, 1]) == [1]
    assert scored({"p1": -5, "p2": -7}, field).pick("p") == [1]


def test_scores_pick_the_highest_and_equals_count_as_their_mean() -> None:
    peer = scored({**ALL_RIGHT, "p0": 0, "p1": 1, "q0": 1})
    assert [peer.pick(name) for name in "pqr"] == [[1, 3], [0, 1], [0, 1, 2, 3]]
    constant = scored(dict.fromkeys(ALL_RIGHT, 1.0))
    assert result(constant).gap_recovered["overall"].value == 0
    assert [a.choice for a in peer.pair_answers() if a.problem == "q"] == [Choice.TIE, Choice.A, Choice.A]
    assert "consistency" not in result(peer).pairwise
    assert result(peer).pairwise["ties counted half"].value == pytest.approx((0 + 0.5 + 0.5 + 1 + 0.5 + 1 + 1) / 7)


def test_a_missing_score_is_refused_and_named() -> None:
    with pytest.raises(DajError, match=r"1 of 12 candidates have no score, first 'q2'.*`score` goes on"):
        scored({name: value for name, value in ALL_RIGHT.items() if name != "q2"})


def test_a_score_of_an_unknown_candidate_is_refused() -> None:
    with pytest.raises(DajError, match=r"candidate 'p9' of problem 'p', which has no such candidate"):
        scored({**ALL_RIGHT, "p9": 1})


def test_what_is_said_of_other_problems_is_counted_and_left_aside() -> None:
    other = replace(answer("p0 p1", 0), problem_id="z")
    assert judge(answer("p0 p1", 0), other).notes[0].startswith("1 judgments are of problems that are not evaluated")
    assert scored({**ALL_RIGHT, "z0": 1}).notes == [
        "1 scores are of problems that are not evaluated, and are left aside"
    ]
    with pytest.raises(DajError, match="none of 1 judgments is about a problem"):
        judge(other)


def test_an_answer_about_an_unknown_candidate_is_refused() -> None:
    with pytest.raises(DajError, match=r"candidate 'p7' of problem 'p', which has no such candidate"):
        judge(answer("p0 p7", 0))


def test_transitivity_and_ndcg_stand_beside_the_accuracy() -> None:
    """A perfect round robin has no cycle and ranks every right program above every wrong one."""
    pairwise = result(round_robin(make_field())).pairwise
    assert pairwise["transitivity"].value == pairwise["NDCG"].value == pairwise["single order"].value == 1
    worst = result(round_robin(make_field(), right=False)).pairwise
    assert worst["single order"].value == 0
    assert worst["NDCG"].value < 0.8


def test_figure_4_grows_from_random_to_what_the_table_says() -> None:
    """Two of p's four pass and one of q's: with two candidates there is a right one in 5/6 and 1/2 of the subsets."""
    field = make_field({"p": PASSED["p"], "q": PASSED["q"]})
    perfect, sparse = round_robin(field), judge(answer("p0 p1", 0), answer("q0 q1", 1), field=field, name="sparse")
    figure = by_num_candidates(field, [perfect, sparse])
    assert {n: {rule: s.value for rule, s in own.items()} for n, own in figure.items()} == {
        1: {
            "random": pytest.approx(0.375),
            "oracle": pytest.approx(0.375),
            "round robin": pytest.approx(0.375),
            "sparse": pytest.approx(0.375),
        },
        2: {
            "random": pytest.approx(0.375),
            "oracle": pytest.approx((5 / 6 + 1 / 2) / 2),
            "round robin": pytest.approx((5 / 6 + 1 / 2) / 2),
        },
        4: {"random": pytest.approx(0.375), "oracle": 1, "round robin": 1, "sparse": 1},
    }


def test_a_curve_counts_votes_as_they_came_and_replays_strategies_where_every_pair_was_asked() -> None:
    field = make_field({"p": PASSED["p"], "q": PASSED["q"]})
    ours = round_robin(field)
    points = {point.strategy: point for point in curve(ours)}
    # first votes: p0 p1 -> p0, right; q0 q1 -> q1, right.
    assert (points["first 1 votes"].num_comparisons, points["first 1 votes"].pass_at_1.value) == (1, 1)
    assert points["first 6 votes"].pass_at_1 == result(ours).pass_at_1["overall"]
    assert (points["Knockout"].num_comparisons, points["Knockout"].pass_at_1.value) == (3, 1)
    assert (points["RoundRobin"].num_comparisons, points["RoundRobin"].pass_at_1.value) == (6, 1)
    assert points["Voting(rounds=8)"].num_comparisons == 8
    few = curve(judge(answer("p0 p1", 0)))
    assert [point.strategy for point in few] == ["first 1 votes"]


def test_a_recorded_pair_answers_in_either_order_and_gives_its_repeats_in_turn() -> None:
    tape = Recorded([((0, 1), 0), ((0, 1), 1), ((2, 1), None)])
    assert [tape.answer((0, 1)) for _ in range(3)] == [0, 1, 0]
    assert [tape.rewound().answer((1, 0)), tape.answer((1, 2))] == [1, None]
    assert tape.covers([0, 1])
    assert not tape.covers([0, 1, 2])


def test_two_judges_are_tested_on_the_questions_that_both_answered() -> None:
    """Pairs p0p1, q0q1, q1q2: the first judge knows all, the second q0q1 alone and was not asked about q1q3.

    McNemar: 2 to 0, p = 2 * (1/2)^2 = 0.5. Picks: p 1 against 0, q 1 against 1, r 0 against 0.
    """
    first = judge(answer("p0 p1", 0), answer("q0 q1", 1), answer("q1 q2", 0), answer("q1 q3", 0), name="first")
    second = judge(answer("p1 p0", 0), answer("q1 q0", 0), answer("q2 q1", 0), answer("q1 q0", 0), name="second")
    mcnemar, bootstrap = paired_tests([first, second])
    assert (mcnemar.test, mcnemar.p_value) == ("McNemar, exact", 0.5)
    assert mcnemar.difference.value == pytest.approx(2 / 3)
    assert bootstrap.difference.value == pytest.approx(1 / 3)
    assert bootstrap.difference.num_problems == 3


def test_a_judge_is_not_tested_against_one_with_nothing_in_common() -> None:
    class Silent(Rater):
        def pair_answers(self) -> list:
            return []

    assert paired_tests([judge(answer("p0 p1", 0)), Silent("silent", "nowhere")]) == []


def test_the_gallery_takes_turns_between_difficulties_and_kinds_of_failure() -> None:
    wrong = [answer("p1 p0", 0), answer("p1 p3", 0), answer("p2 p0", 0), answer("p2 p3", 0)]
    shown = failures([judge(*wrong, answer("q0 q1", None), answer("q0 q1", 0), answer("q0 q2", 0))], number=3)
    assert {(f.difficulty, f.selection) for f in shown} == {("easy", 0), ("hard", None), ("hard", 0)}
    easy = next(f for f in shown if f.difficulty == "easy")
    assert easy.passed == (False, True)
    assert easy.statement == "Which one?"
    assert easy.response.startswith("of p")
    assert len(failures([judge(*wrong)])) == 4
