"""Which side a problem is on: train (lower level), meta (upper level), test, or the second test set, unseen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from rich.table import Table

from daj_lightning.records import Candidate, DajError, Problem

SPLITS = ("train", "meta", "test", "unseen")
# Section 5.1: the lower level ends and the upper level begins; the upper level ends and the test begins.
META_START, TEST_START, TEST_END = date(2024, 8, 1), date(2025, 2, 1), date(2025, 5, 1)


def split_of(problem: Problem) -> str | None:
    """The side that the source decided, else train, meta or test by release date (paper, App. A).

    Half-open intervals: a problem of 2024-08-01 is meta, one of 2025-02-01 is test. The paper says that
    no problem falls on these days; 12 do on the second. None: after the test period, or on no side.

    Raises:
        DajError: no such side, neither a side nor a date, or an unseen problem of another time.
    """
    released = problem.release_date
    if problem.split not in (None, *SPLITS, "none") or (problem.split is None and released is None):
        raise DajError(
            f"{problem.problem_id} has split {problem.split!r} and release date {released}; wanted a date, "
            f"or one of {', '.join(SPLITS)}, none."
        )
    if problem.split == "unseen" and released and not TEST_START <= released < TEST_END:
        raise DajError(
            f"{problem.problem_id} is marked as unseen and was released on {released}; the second "
            f"test set lies in [{TEST_START}, {TEST_END}) as the first does. Change its date, or unmark it."
        )
    if problem.split is not None:
        return None if problem.split == "none" else problem.split
    assert released
    if released < META_START:
        return "train"
    if released < TEST_START:
        return "meta"
    return "test" if released < TEST_END else None


def sides(problems: Iterable[Problem], candidates: Mapping[str, Sequence[Candidate]]) -> dict[str, dict[str, str]]:
    """split -> problem id -> difficulty, of every problem with a candidate: also where there is nothing to ask."""
    found: dict[str, dict[str, str]] = {split: {} for split in SPLITS}
    for problem in problems:
        split = split_of(problem)
        if split is not None and candidates.get(problem.problem_id):
            found[split][problem.problem_id] = problem.difficulty
    return found


def check_splits(problems: Iterable[Problem], rows: Mapping[str, Sequence[Any]]) -> None:
    """Refuse to go on without a training or a meta sample."""
    dates = sorted(problem.release_date for problem in problems if problem.release_date)
    wanted = {"train": f"before {META_START}", "meta": f"in [{META_START}, {TEST_START})"}
    for split, when in wanted.items():
        if not rows[split]:
            covered = f"{dates[0]} to {dates[-1]}" if dates else "nothing"
            raise DajError(
                f"{split} set is empty: no problem released {when} has both a passing and a failing candidate; "
                f"the problems cover {covered}. Add problems of that time, or candidates for them; "
                f"duplicates.jsonl lists what was removed as a repeat of another side."
            )


def summary_table(
    problems: Iterable[Problem], candidates: Sequence[Candidate], passed: Mapping[str, bool], counts: Mapping[str, int]
) -> Table:
    """Problems, candidates, pass rate and rows of each split."""
    split = {problem.problem_id: split_of(problem) for problem in problems}
    table = Table("split", "problems", "candidates", "policy", "passing", "rows", title="prepared data")
    for name in SPLITS:
        own = [c for c in candidates if split[c.problem_id] == name]
        if name == "unseen" and not own:
            continue
        rate = sum(passed[c.candidate_id] for c in own) / max(len(own), 1)
        policies = ", ".join(sorted({c.policy for c in own}))
        number = sum(s == name for s in split.values())
        table.add_row(name, str(number), str(len(own)), policies, f"{rate:.1%}", str(counts[name]))
    return table
