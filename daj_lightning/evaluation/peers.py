"""Other judges' files: answers in both orders with their labels, and scalar scores.

A both-order file is JudgeBench's (ScalerLab/JudgeBench, run_judge.py and utils/metrics.py @ 12a499c), a JSON object a
line: pair_id, question, response_A, response_B, label ("A>B" or "B>A") and "judgments", of which the first was asked
with A before B and the second with B before A. A decision is about what the judge was shown: "A>B" in the second order
prefers B. A judgment that failed is null, or has the decision null. The label is the truth, so such a file needs no
candidates and no verdicts.

Scores are JSON Lines of {problem_id, candidate_id, score}; `score` of the command line writes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daj_lightning.data.jsonl import iterate_jsonl
from daj_lightning.evaluation.pairwise import Choice, PairAnswer
from daj_lightning.records import DajError

LABELS = {"A>B": Choice.A, "B>A": Choice.B}
DECISIONS: dict[str | None, Choice] = {"A>B": Choice.A, "B>A": Choice.B, "A=B": Choice.TIE, None: Choice.NULL}


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """One row of a both-order file."""

    pair_id: str
    question: str
    responses: tuple[str, str]
    """A and B."""
    source: str
    """What the pair was taken from, e.g. "livecodebench"; empty if it is not said."""
    answers: tuple[PairAnswer, ...]
    """One or two: A first, then B first."""
    texts: tuple[str, ...]
    """What the judge wrote, as many."""


def read_labelled_pairs(path: str | Path, source: str = "") -> list[LabelledPair]:
    """The rows of a both-order file.

    Args:
        source: only rows whose source begins so.
    Raises:
        DajError: no file, no such row, or a row that is none; names the line.
    """
    pairs: dict[str, LabelledPair] = {}
    sources = set()
    for number, row in iterate_jsonl(path, "pairs"):
        found = labelled_pair(row, f"{path}, line {number}")
        sources.add(found.source)
        if not found.source.startswith(source):
            continue
        if found.pair_id in pairs:
            raise DajError(f"{path}, line {number}: pair {found.pair_id!r} stands in the file already.")
        pairs[found.pair_id] = found
    if not pairs:
        told = f" whose source begins with {source!r}; it has {', '.join(sorted(sources))}" if sources else ""
        raise DajError(f"pairs: {str(path)!r} has no row{told}.")
    return list(pairs.values())


def labelled_pair(row: Mapping[str, Any], where: str) -> LabelledPair:
    missing = [key for key in ("pair_id", "label", "judgments") if key not in row]
    if missing:
        raise DajError(f"{where} lacks {missing}; wanted pair_id, label and judgments (JudgeBench's output).")
    if not isinstance(row["label"], str) or row["label"] not in LABELS:
        raise DajError(f"{where}: label is {row['label']!r:.200}, wanted 'A>B' or 'B>A'.")
    judgments = row["judgments"]
    if not isinstance(judgments, list) or len(judgments) not in (1, 2):
        raise DajError(f"{where}: judgments is {judgments!r:.200}, wanted a list of one or two, the second swapped.")
    pair_id, question = str(row["pair_id"]), str(row.get("question") or "")
    answers = tuple(
        pair_answer(pair_id, question or pair_id, LABELS[row["label"]], order == 1, judgment, where)
        for order, judgment in enumerate(judgments)
    )
    return LabelledPair(
        pair_id=pair_id,
        question=question,
        responses=(str(row.get("response_A") or ""), str(row.get("response_B") or "")),
        source=str(row.get("source") or ""),
        answers=answers,
        texts=tuple(map(text_of, judgments)),
    )


def pair_answer(pair_id: str, problem: str, right: Choice, swapped: bool, judgment: Any, where: str) -> PairAnswer:
    """A judgment with its decision turned to what A and B are in the file."""
    if judgment is not None and (not isinstance(judgment, dict) or "decision" not in judgment):
        raise DajError(f"{where}: a judgment is {judgment!r:.200}, wanted an object with a decision, or null.")
    decision = None if judgment is None else judgment["decision"]
    if decision is not None and not isinstance(decision, str):
        raise DajError(f"{where}: a decision is {decision!r:.200}, wanted 'A>B', 'B>A', 'A=B' or null.")
    choice = DECISIONS.get(decision, Choice.OTHER)
    if swapped and choice <= Choice.B:
        choice = Choice(1 - choice)
    other = str(decision) if choice is Choice.OTHER else ""
    return PairAnswer(pair_id, problem, right, swapped, choice, other=other)


def text_of(judgment: Any) -> str:
    """What the judge wrote, where JudgeBench keeps it."""
    inner = judgment.get("judgment") if isinstance(judgment, dict) else None
    return str(inner.get("response") or "") if isinstance(inner, dict) else ""


def read_scores(path: str | Path) -> dict[str, dict[str, float]]:
    """problem id -> candidate id -> score.

    Raises:
        DajError: no file, no row, a row that is none, a candidate with two scores; names the line.
    """
    scores: dict[str, dict[str, float]] = {}
    for number, row in iterate_jsonl(path, "scores"):
        where = f"{path}, line {number}"
        missing = [key for key in ("problem_id", "candidate_id", "score") if key not in row]
        if missing:
            raise DajError(f"{where} lacks {missing}; wanted problem_id, candidate_id and score.")
        problem, candidate, score = str(row["problem_id"]), str(row["candidate_id"]), row["score"]
        try:
            finite = isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score)
        except OverflowError:  # an integer that no float can hold
            finite = False
        if not finite:
            raise DajError(f"{where}: score is {score!r:.200}, wanted a finite number.")
        own = scores.setdefault(problem, {})
        if candidate in own:
            raise DajError(f"{where}: candidate {candidate!r} has a score already.")
        own[candidate] = float(score)
    if not scores:
        raise DajError(f"scores: {str(path)!r} has no row.")
    return scores
