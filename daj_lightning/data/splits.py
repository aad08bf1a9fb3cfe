"""Which side a problem is on: train (lower level), meta (upper level), test, or the second test set, unseen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from rich.table import Table

from daj_lightning.records import Candidate, DajError, Problem

SPLITS = ("train", "meta", "test", "unseen")
# Section 5.1: the lower level ends and the upper level begins; the upper level ends and the test begins.
META_START, TEST_START, TEST_END = date(2024, 8, 1), date(2025, 2, 1), date(2025, 5, 1)
RULE = (
    f"train < {META_START} <= meta < {TEST_START} <= test < {TEST_END}, by release day; an interval holds its first day"
)
LEFT_OUT = "left out"
DIFFICULTIES = ("easy", "medium", "hard")


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
    """split -> problem id -> difficulty, of every problem with a candidate: also where there is nothing to ask.

    Raises:
        DajError: an id stands on two sides.
    """
    found: dict[str, dict[str, str]] = {split: {} for split in SPLITS}
    for problem in problems:
        split = split_of(problem)
        if split is not None and candidates.get(problem.problem_id):
            found[split][problem.problem_id] = problem.difficulty
    check_disjoint(found)
    return found


def check_disjoint(found: Mapping[str, Iterable[str]]) -> None:
    """Refuse problem ids that stand on two sides."""
    side: dict[str, str] = {}
    for split, names in found.items():
        for name in names:
            if side.setdefault(name, split) != split:
                raise DajError(
                    f"problem {name!r} is on the sides {side[name]} and {split}; give each problem its own id."
                )


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


@dataclass(frozen=True, slots=True)
class Group:
    """What went to one place, of one domain."""

    split: str
    """A side, or "left out: " and why."""
    domain: str
    """"all" for the whole of a side."""
    problems: dict[str, int]
    """difficulty -> problems"""
    first: str
    last: str
    """Release days; empty where there are none."""
    candidates: int
    passing: float
    """Share of the candidates; 0 without any."""


def where_problems_went(
    problems: Sequence[Problem], kept: Iterable[str], candidates: Sequence[Candidate], passed: Mapping[str, bool]
) -> list[Group]:
    """Each side as a whole and its domains, then what was left out and why.

    Args:
        problems: all that the source gave.
        kept: ids of those that no other side repeats.
        candidates: of these.
        passed: candidate id -> whether it passed all tests.
    """
    kept = set(kept)
    platforms = {problem.platform for problem in problems if split_of(problem)}
    place = {problem.problem_id: _place(problem, kept, platforms) for problem in problems}
    of_problem: dict[str, list[bool]] = {}
    for candidate in candidates:
        of_problem.setdefault(candidate.problem_id, []).append(passed[candidate.candidate_id])
    groups = []
    for split in (*SPLITS, *sorted(set(place.values()) - set(SPLITS))):
        own = [problem for problem in problems if place[problem.problem_id] == split]
        domains = sorted({problem.domain for problem in own}, key=_domain_order)
        groups += [_group(split, "all", own, of_problem)] if own else []
        groups += [_group(split, name, [p for p in own if p.domain == name], of_problem) for name in domains]
    return groups


def _place(problem: Problem, kept: set[str], platforms: set[str]) -> str:
    split = split_of(problem)
    if split is not None:
        return split if problem.problem_id in kept else f"{LEFT_OUT}: repeats another side"
    if problem.split is None:
        return f"{LEFT_OUT}: on or after {TEST_END}"
    return f"{LEFT_OUT}: by its source" if problem.platform in platforms else f"{LEFT_OUT}: platform"


def _domain_order(domain: str) -> tuple[str, int]:
    name, _, level = domain.rpartition("-")
    return (name, DIFFICULTIES.index(level)) if level in DIFFICULTIES else (domain, 0)


def _group(split: str, domain: str, problems: Sequence[Problem], of_problem: Mapping[str, Sequence[bool]]) -> Group:
    dates = sorted(problem.release_date for problem in problems if problem.release_date)
    verdicts = [verdict for problem in problems for verdict in of_problem.get(problem.problem_id, ())]
    counts = Counter(problem.difficulty for problem in problems)
    levels = sorted(counts, key=lambda level: (DIFFICULTIES.index(level) if level in DIFFICULTIES else 3, level))
    return Group(
        split=split,
        domain=domain,
        problems={level: counts[level] for level in levels},
        first=str(dates[0]) if dates else "",
        last=str(dates[-1]) if dates else "",
        candidates=len(verdicts),
        passing=sum(verdicts) / max(len(verdicts), 1),
    )


def boundary_problems(problems: Iterable[Problem]) -> dict[str, dict[str, list[str]]]:
    """boundary day -> side -> ids of the problems of that very day, where the date decides."""
    found: dict[str, dict[str, list[str]]] = {str(day): {} for day in (META_START, TEST_START, TEST_END)}
    for problem in problems:
        day = str(problem.release_date)
        if problem.split is None and day in found:
            found[day].setdefault(split_of(problem) or LEFT_OUT, []).append(problem.problem_id)
    return found


def where_table(groups: Sequence[Group]) -> Table:
    """What went where, and what of it passes."""
    table = Table("split", "domain", "problems", "of which", "first", "last", "candidates", "passing")
    table.title = "what went where"
    table.caption = RULE
    for group in groups:
        levels = " + ".join(f"{number} {level}" for level, number in group.problems.items())
        rate = f"{group.passing:.1%}" if group.candidates else "-"
        number = str(sum(group.problems.values()))
        whole = group.domain == "all"
        split = group.split if whole else ""
        of_which = levels if whole else ""
        dates = (group.first or "-", group.last or "-")
        table.add_row(split, group.domain, number, of_which, *dates, str(group.candidates), rate)
    return table


def boundary_lines(boundaries: Mapping[str, Mapping[str, Sequence[str]]]) -> list[str]:
    """One line a boundary day: "2025-02-01 (2 problems) -> test: a, b"."""
    lines = []
    for day, by_side in boundaries.items():
        went = "; ".join(f"{side}: {', '.join(names)}" for side, names in by_side.items())
        number = sum(map(len, by_side.values()))
        lines.append(f"on {day} itself, {number} problem{'' if number == 1 else 's'}{' -> ' + went if went else ''}")
    return lines
