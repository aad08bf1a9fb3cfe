"""Other judges' files: read as they are published, refused where they are something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from daj_lightning.evaluation.evaluate import result
from daj_lightning.evaluation.failures import failures
from daj_lightning.evaluation.judges import BothOrders
from daj_lightning.evaluation.judgments import read_judgments
from daj_lightning.evaluation.pairwise import Choice
from daj_lightning.evaluation.peers import read_labelled_pairs, read_scores
from daj_lightning.records import DajError
from judged import both_orders, published, write


def test_a_both_order_file_with_known_metrics_reproduces_them(tmp_path: Path) -> None:
    pairs = read_labelled_pairs(published(tmp_path / "pairs.jsonl"))
    found = result(BothOrders("peer", "here", pairs)).pairwise
    shown = {name: round(100 * score.value, 1) for name, score in found.items()}
    assert (shown["first order"], shown["second order"]) == (76.2, 81.0)
    assert (shown["both correct"], shown["consistency"], shown["JudgeBench official"]) == (64.3, 71.4, 78.6)
    assert shown["null rate"] == round(100 * 2 / 84, 1)
    assert shown["ties counted half"] == round(100 * (66 + 4 / 2) / 84, 1)


def test_the_second_decision_is_about_what_the_judge_was_shown_second(tmp_path: Path) -> None:
    """Published "B>A" in the second order prefers the file's A."""
    row = {**both_orders(0, "A>B", "A>B", "A>B")}
    assert row["judgments"][1]["decision"] == "B>A"
    (pair,) = read_labelled_pairs(write(tmp_path / "pairs.jsonl", [row]))
    assert [answer.choice for answer in pair.answers] == [Choice.A, Choice.A]


def test_a_judgment_that_failed_is_null_and_one_order_is_enough(tmp_path: Path) -> None:
    rows = [
        {"pair_id": 1, "label": "A>B", "judgments": [None, {"decision": "A>B"}]},
        {"pair_id": 2, "label": "B>A", "judgments": [{"decision": "B>A"}]},
        {"pair_id": 3, "label": "B>A", "judgments": [{"decision": "B<A"}, {"decision": None}]},
    ]
    judge = BothOrders("peer", "here", read_labelled_pairs(write(tmp_path / "pairs.jsonl", rows)))
    assert [a.choice for a in judge.pair_answers()] == [Choice.NULL, Choice.B, Choice.B, Choice.OTHER, Choice.NULL]
    assert judge.notes == [
        "1 of 3 pairs were asked in one order only",
        "1 decisions are neither 'A>B', 'B>A', 'A=B' nor null, and count as wrong",
    ]


def test_a_file_of_many_sources_is_read_in_part(tmp_path: Path) -> None:
    rows = [both_orders(k, "A>B", "A>B", "A>B", source) for k, source in enumerate(["livecodebench", "mmlu-pro-law"])]
    path = write(tmp_path / "pairs.jsonl", rows)
    assert [pair.pair_id for pair in read_labelled_pairs(path, "livecode")] == ["pair-0"]
    with pytest.raises(DajError, match="no row whose source begins with 'math'; it has livecodebench, mmlu-pro-law"):
        read_labelled_pairs(path, "math")


@pytest.mark.parametrize(
    ("spoiled", "told"),
    [
        ({"label": "A=B"}, r"line 1: label is 'A=B', wanted 'A>B' or 'B>A'"),
        ({"label": ["A>B"]}, r"line 1: label is \['A>B'\]"),
        ({"judgments": []}, "wanted a list of one or two"),
        ({"judgments": [{"decision": 1}]}, r"a decision is 1, wanted"),
        ({"judgments": [{}]}, r"a judgment is \{\}, wanted an object with a decision"),
        ({"judgments": "A>B"}, "wanted a list of one or two"),
    ],
)
def test_a_row_that_is_wrong_where_it_matters_is_refused(tmp_path: Path, spoiled: dict, told: str) -> None:
    path = write(tmp_path / "pairs.jsonl", [{**both_orders(0, "A>B", "A>B", "A>B"), **spoiled}])
    with pytest.raises(DajError, match=told):
        read_labelled_pairs(path)


def test_a_pair_stands_once_in_a_file(tmp_path: Path) -> None:
    row = both_orders(0, "A>B", "A>B", "A>B")
    with pytest.raises(DajError, match=r"line 2: pair 'pair-0' stands in the file already"):
        read_labelled_pairs(write(tmp_path / "pairs.jsonl", [row, row]))
    with pytest.raises(DajError, match="has no row"):
        read_labelled_pairs(write(tmp_path / "empty.jsonl", []))


def test_a_failure_of_a_pair_shows_the_programs_in_the_order_that_the_judge_saw(tmp_path: Path) -> None:
    pairs = read_labelled_pairs(write(tmp_path / "pairs.jsonl", [both_orders(7, "A>B", "A>B", "B>A")]))
    (failure,) = failures([BothOrders("peer", "here", pairs)])
    assert failure.programs == ("B of 7", "A of 7")
    assert (failure.passed, failure.selection, failure.response) == ((False, True), 0, "because")


def test_pairs_without_a_question_are_problems_of_their_own(tmp_path: Path) -> None:
    rows = [{**both_orders(k, "A>B", "A>B", "A>B"), "question": None, "source": None} for k in range(3)]
    pairs = read_labelled_pairs(write(tmp_path / "pairs.jsonl", rows))
    assert [(pair.question, pair.source) for pair in pairs] == [("", "")] * 3
    assert result(BothOrders("peer", "here", pairs)).pairwise["single order"].num_problems == 3


def test_scores_are_numbers_one_a_candidate(tmp_path: Path) -> None:
    row = {"problem_id": "p", "candidate_id": "p0", "score": 1}
    assert read_scores(write(tmp_path / "s.jsonl", [row, {**row, "candidate_id": "p1", "x": 1}])) == {
        "p": {"p0": 1.0, "p1": 1.0}
    }
    for wrong in ("high", None, True, float("nan"), float("inf"), 10**400):
        with pytest.raises(DajError, match="wanted a finite number"):
            read_scores(write(tmp_path / "s.jsonl", [{**row, "score": wrong}]))
    (tmp_path / "long.jsonl").write_text('{"score": ' + "1" * 5000 + "}\n")
    with pytest.raises(DajError, match=r"line 1 is not JSON \(ValueError\)"):
        read_scores(tmp_path / "long.jsonl")
    with pytest.raises(DajError, match="line 2: candidate 'p0' has a score already"):
        read_scores(write(tmp_path / "s.jsonl", [row, row]))
    with pytest.raises(DajError, match=r"line 1 lacks \['score'\]"):
        read_scores(write(tmp_path / "s.jsonl", [{"problem_id": "p", "candidate_id": "p0"}]))


@pytest.mark.parametrize(
    ("spoiled", "told"),
    [
        ({"selection": 2}, "selection is 2, wanted 0"),
        ({"selection": True}, "selection is True"),
        ({"selection": "0"}, "selection is '0'"),
        ({"selection": 1.0}, "selection is 1.0, wanted 0"),
        ({"candidate_ids": ["p0"]}, "wanted the ids of two candidates"),
        ({"candidate_ids": ["p0", "p0"]}, "wanted the ids of two candidates"),
        ({"candidate_ids": "p0p1"}, "wanted the ids of two candidates"),
        ({"kind": "duel"}, "kind is 'duel'"),
    ],
)
def test_a_judgment_that_is_none_is_refused(tmp_path: Path, spoiled: dict, told: str) -> None:
    row = {"problem_id": "p", "candidate_ids": ["p0", "p1"], "selection": 0}
    assert read_judgments(write(tmp_path / "j.jsonl", [{**row, "crc": "extra"}]))[0].selection == 0
    with pytest.raises(DajError, match=told):
        read_judgments(write(tmp_path / "j.jsonl", [{**row, **spoiled}]))
