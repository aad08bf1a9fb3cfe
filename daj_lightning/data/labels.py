"""Verdicts of candidates, in a file that outlives the process which writes it.

The first row says what made the file (`Making`), each further row is one verdict, with the fingerprint
of the program that was executed; data/journal.py gives every row its checksum. A killed run loses what was
being executed and nothing else: the next one skips the candidates whose rows are there. Files of several
shards are joined by `cat`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daj_lightning.data.journal import Journal, read_checked
from daj_lightning.data.jsonl import read_jsonl
from daj_lightning.records import Candidate, DajError, Outcome, Verdict

FORMAT = "daj labels 1"
WHAT = "labels"
FIRST_KEYS = ("format", "crc")
"""What the first row of a file of labels has."""
FIRST_BEGINS = '{"format": '
IMPORTED = "imported"
_VERDICT = tuple(field.name for field in dataclasses.fields(Verdict))


@dataclass(frozen=True, slots=True)
class Making:
    """What made the verdicts of a file; a file is only continued by the same."""

    problems: str
    """Digest of the problems and their tests."""
    rules: str
    """"process" or "official"; "imported": somebody else's."""
    limits: str
    """Of each test."""
    sandbox: str
    python: str
    shard: str = "0/1"

    def row(self) -> dict[str, str]:
        return {"format": FORMAT, **dataclasses.asdict(self)}


@dataclass(frozen=True, slots=True)
class Label:
    """A verdict, and what it is about."""

    verdict: Verdict
    problem_id: str
    program: str
    """Fingerprint of the code that was executed."""

    def row(self) -> dict[str, Any]:
        return {
            "candidate_id": self.verdict.candidate_id,
            "problem_id": self.problem_id,
            "program": self.program,
            **dataclasses.asdict(self.verdict),
        }


def resume(journal: Journal, making: Making) -> tuple[dict[str, str], Counter[Outcome]]:
    """Candidate id -> fingerprint, and the outcomes, of the rows that are there; a new file gets its first row."""
    done: dict[str, str] = {}
    outcomes: Counter[Outcome] = Counter()
    made: Mapping[str, Any] | None = None
    for where, row in _rows(journal.path):
        if "format" in row:
            made = made or row
            continue
        found = label_of(row, where)
        if found.verdict.candidate_id in done:
            raise DajError(f"{where}: candidate {found.verdict.candidate_id!r} has a verdict already.")
        done[found.verdict.candidate_id] = found.program
        outcomes[found.verdict.outcome] += 1
    if made is None:
        if done:
            raise DajError(f"{WHAT}: {str(journal.path)!r} lacks its first row, which says what made it.")
        journal.append(making.row())
    elif changed := differences(made, making.row(), "now"):
        raise DajError(
            f"{WHAT}: {str(journal.path)!r} was made with {changed}. Go on with what made it, or name another output."
        )
    return done, outcomes


def differences(made: Mapping[str, Any], other: Mapping[str, Any], called: str, leave: Sequence[str] = ()) -> str:
    """What two makings differ in, in words; empty if they are the same.

    Control groups bound what a program may take; they change nothing in how it is isolated and run.

    Args:
        called: the second one.
        leave: fields that may differ.
    """
    pairs = {key: (made.get(key), other[key]) for key in other if key not in leave}
    return "; ".join(
        f"{key} {first!r}, {called} {second!r}"
        for key, (first, second) in pairs.items()
        if str(first).removesuffix("+cgroup") != str(second).removesuffix("+cgroup")
    )


def read_labels(paths: Sequence[str | Path]) -> dict[str, Label]:
    """Candidate id -> label, of one file or several (shards), each perhaps joined of several.

    Raises:
        DajError: as `read_made`.
    """
    return read_made(paths)[1]


def read_made(paths: Sequence[str | Path]) -> tuple[list[dict[str, Any]], dict[str, Label]]:
    """The first rows of all files and parts of files, which say what made them; and candidate id -> label.

    Only imported verdicts may stand beside others: how they were made is not known, and each names its grader.

    Raises:
        DajError: a file is missing or damaged, a candidate has two verdicts, or parts were made differently.
    """
    labels: dict[str, Label] = {}
    makings: list[dict[str, Any]] = []
    ours: tuple[str, dict[str, Any]] | None = None
    for path in paths:
        made = False
        for where, row in _rows(path):
            if "format" in row:
                made = True
                makings.append(row)
                if row.get("rules") == IMPORTED:
                    continue
                ours = ours or (where, row)
                if changed := differences(ours[1], row, "here", leave=("shard",)):
                    raise DajError(
                        f"{where}: verdicts from here on were made differently than those from {ours[0]} on: {changed}."
                        f" Their outcomes cannot be compared; make them with the same settings."
                    )
                continue
            found = label_of(row, where)
            name = found.verdict.candidate_id
            if name in labels:
                raise DajError(f"{where}: candidate {name!r} has a verdict already; the same shard twice?")
            labels[name] = found
        if not made:
            raise DajError(f"{WHAT}: {str(path)!r} lacks its first row, which says what made it.")
    return makings, labels


def _rows(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, row in read_checked(path, WHAT):
        where = f"{WHAT}: {path}, line {number}"
        if row.get("format", FORMAT) != FORMAT:
            raise DajError(f"{where} has the format {row['format']!r}, wanted {FORMAT!r}: made by another version.")
        yield where, row


def label_of(row: Mapping[str, Any], where: str) -> Label:
    missing = [key for key in (*_VERDICT, "problem_id", "program") if key not in row]
    if missing:
        raise DajError(f"{where} lacks {missing}; was it made by another version?")
    if row["outcome"] not in list(Outcome):
        raise DajError(f"{where} has outcome {row['outcome']!r}; wanted one of {', '.join(Outcome)}.")
    fields = {key: row[key] for key in _VERDICT}
    verdict = Verdict(**{**fields, "outcome": Outcome(row["outcome"])})
    return Label(verdict, row["problem_id"], row["program"])


def flips(first: Mapping[str, Label], second: Mapping[str, Label]) -> list[str]:
    """Ids that both hold, that passed in one and failed in the other; sorted."""
    return sorted(name for name in first.keys() & second.keys() if passed(first[name]) != passed(second[name]))


def passed(label: Label) -> bool:
    return label.verdict.passed


def read_graded(root: str | Path) -> dict[str, list[tuple[Candidate, bool]]]:
    """problem id -> its candidates in order, each with whether it passed every test."""
    labels = read_labels([Path(root) / "verdicts.jsonl"])
    graded: dict[str, list[tuple[Candidate, bool]]] = {}
    for row in read_jsonl(Path(root) / "candidates.jsonl", "candidates"):
        candidate = Candidate(**row)
        graded.setdefault(candidate.problem_id, []).append((candidate, passed(labels[candidate.candidate_id])))
    return graded
