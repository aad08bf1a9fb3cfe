"""Which side a problem is on, that it is on one only, and what `prepare` says of it."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from rich.console import Console

from daj_lightning.data.prepare import prepare
from daj_lightning.data.splits import (
    Group,
    boundary_lines,
    boundary_problems,
    check_disjoint,
    sides,
    split_of,
    where_problems_went,
)
from daj_lightning.records import Candidate, DajError, Problem
from tiny import ToySource, toy_data

TOY = ToySource().load()[0][0]


@pytest.mark.parametrize(
    ("released", "side"),
    [
        (date(2023, 5, 1), "train"),
        (date(2024, 7, 31), "train"),
        (date(2024, 8, 1), "meta"),
        (date(2025, 1, 31), "meta"),
        (date(2025, 2, 1), "test"),
        (date(2025, 4, 30), "test"),
        (date(2025, 5, 1), None),
        (date(2026, 1, 1), None),
    ],
)
def test_the_release_date_decides_the_side_and_an_interval_holds_its_first_day(released: date, side: str) -> None:
    assert split_of(replace(ToySource().load()[0][0], release_date=released)) == side


@pytest.mark.parametrize("released", [date(2024, 3, 1), date(2025, 1, 31), date(2025, 5, 1)])
def test_an_unseen_problem_is_of_the_test_period(released: date) -> None:
    unseen = replace(ToySource().load()[0][0], split="unseen", release_date=released)
    with pytest.raises(DajError, match=r"plus-1 is marked as unseen .* lies in \[2025-02-01, 2025-05-01\)"):
        split_of(unseen)
    assert split_of(replace(unseen, release_date=date(2025, 2, 1))) == "unseen"


def test_an_id_on_two_sides_is_refused() -> None:
    candidate = Candidate("c", TOY.problem_id, "toy", "pass")
    twice = [TOY, replace(TOY, release_date=date(2025, 3, 1))]
    with pytest.raises(DajError, match="'plus-1' is on the sides train and test"):
        sides(twice, {TOY.problem_id: [candidate]})
    check_disjoint({"train": ["a"], "meta": ["b", "b"], "test": []})


def problem(name: str, released: date | None, difficulty: str = "easy", platform: str = "atcoder", **more) -> Problem:
    return replace(TOY, problem_id=name, release_date=released, difficulty=difficulty, platform=platform, **more)


PROBLEMS = [
    problem("t-easy", date(2024, 7, 31)),
    problem("t-copy", date(2024, 3, 1)),
    problem("m-first", date(2024, 8, 1), "hard"),
    problem("m-last", date(2025, 1, 31), "medium"),
    problem("x-hard", date(2025, 2, 1), "hard", "leetcode"),
    problem("x-easy", date(2025, 4, 30), "easy", "leetcode"),
    problem("x-first", date(2025, 2, 1), "easy"),
    problem("late", date(2025, 5, 1)),
    problem("cf", date(2025, 2, 1), platform="codeforces", split="none"),
    problem("chosen", date(2025, 3, 1), split="none"),
]


def graded(problems: Sequence[Problem]) -> tuple[list[Candidate], dict[str, bool]]:
    """Two candidates a problem, the first of which passes."""
    candidates = [Candidate(f"{p.problem_id}/{k}", p.problem_id, "toy", "pass") for p in problems for k in range(2)]
    return candidates, {candidate.candidate_id: candidate.candidate_id.endswith("0") for candidate in candidates}


def test_every_problem_is_counted_once_where_it_went_or_why_it_did_not() -> None:
    kept = [p for p in PROBLEMS if split_of(p) and p.problem_id != "t-copy"]
    candidates, passed = graded([p for p in kept if p.problem_id != "x-first"])
    groups = where_problems_went(PROBLEMS, [p.problem_id for p in kept], candidates, passed)
    wholes = {group.split: group for group in groups if group.domain == "all"}
    assert {name: group.problems for name, group in wholes.items()} == {
        "train": {"easy": 1},
        "meta": {"medium": 1, "hard": 1},
        "test": {"easy": 2, "hard": 1},
        "left out: by its source": {"easy": 1},
        "left out: on or after 2025-05-01": {"easy": 1},
        "left out: platform": {"easy": 1},
        "left out: repeats another side": {"easy": 1},
    }
    assert sum(sum(group.problems.values()) for group in wholes.values()) == len(PROBLEMS)
    assert wholes["test"] == Group("test", "all", {"easy": 2, "hard": 1}, "2025-02-01", "2025-04-30", 4, 0.5)
    domains = [(group.domain, sum(group.problems.values())) for group in groups if group.split == "test"]
    assert domains == [("all", 3), ("atcoder-easy", 1), ("leetcode-easy", 1), ("leetcode-hard", 1)]


def test_the_problems_of_a_boundary_day_are_listed_with_the_side_they_took() -> None:
    """Not those whose side the source decided."""
    found = boundary_problems(PROBLEMS)
    assert found == {
        "2024-08-01": {"meta": ["m-first"]},
        "2025-02-01": {"test": ["x-hard", "x-first"]},
        "2025-05-01": {"left out": ["late"]},
    }
    assert boundary_lines(found) == [
        "on 2024-08-01 itself, 1 problem -> meta: m-first",
        "on 2025-02-01 itself, 2 problems -> test: x-hard, x-first",
        "on 2025-05-01 itself, 1 problem -> left out: late",
    ]
    assert boundary_lines({"2025-02-01": {}}) == ["on 2025-02-01 itself, 0 problems"]


def test_prepare_prints_and_keeps_where_the_problems_went(tmp_path: Path) -> None:
    class Moved(ToySource):
        """plus-18 was released too late, plus-15 on the very first day of the test period."""

        def load(self) -> tuple[list[Problem], list[Candidate]]:
            problems, candidates = super().load()
            days = {"plus-15": date(2025, 2, 1), "plus-18": date(2025, 5, 1)}
            return [replace(p, release_date=days.get(p.problem_id, p.release_date)) for p in problems], candidates

    console = Console(record=True, width=200, file=io.StringIO())
    manifest = prepare(toy_data(tmp_path, tmp_path, source=Moved()).preparation, tmp_path, console)
    assert manifest == json.loads((tmp_path / "manifest.json").read_text())
    splits = manifest["splits"]
    assert splits["boundaries"]["2025-02-01"] == {"test": ["plus-15"]}
    wholes = {g["split"]: sum(g["problems"].values()) for g in splits["groups"] if g["domain"] == "all"}
    assert wholes == {"train": 8, "meta": 6, "test": 3, "left out: on or after 2025-05-01": 1}
    test = next(g for g in splits["groups"] if g["split"] == "test")
    assert (test["candidates"], test["passing"], test["first"], test["last"]) == (12, 0.5, "2025-02-01", "2025-03-01")
    text = " ".join(console.export_text().split())
    assert "on 2025-02-01 itself, 1 problem -> test: plus-15" in text
    assert splits["rule"] in text
    assert "left out: on or after 2025-05-01 │ all │ 1 │ 1 hard │ 2025-05-01 │ 2025-05-01 │ 0 │ -" in text
