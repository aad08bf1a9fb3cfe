"""Verdicts: every candidate is executed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from daj_lightning.data.jsonl import read_jsonl
from daj_lightning.data.preparation import Preparation
from daj_lightning.execution import Sandbox, grade_all
from daj_lightning.records import Candidate, Outcome, Problem, Verdict


def label(
    problems: Mapping[str, Problem], candidates: Sequence[Candidate], preparation: Preparation, console: Console
) -> list[Verdict]:
    """Execute every candidate, one process each."""
    sandbox = Sandbox(limits=preparation.limits)
    jobs = [(problems[candidate.problem_id], candidate) for candidate in candidates]
    verdicts = grade_all(jobs, sandbox, num_workers=preparation.num_workers)
    return list(track(verdicts, f"executing ({sandbox.mode})", total=len(jobs), console=console))


def read_graded(root: str | Path) -> dict[str, list[tuple[Candidate, bool]]]:
    """problem id -> its candidates in order, each with whether it passed every test."""
    verdicts = read_jsonl(Path(root) / "verdicts.jsonl", "verdicts")
    passed = {row["candidate_id"]: row["outcome"] == Outcome.PASSED for row in verdicts}
    graded: dict[str, list[tuple[Candidate, bool]]] = {}
    for row in read_jsonl(Path(root) / "candidates.jsonl", "candidates"):
        graded.setdefault(row["problem_id"], []).append((Candidate(**row), passed[row["candidate_id"]]))
    return graded
