"""A field of three problems, judges of it and files of judgments, so that every number can be derived by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daj_lightning.evaluation.field import Field
from daj_lightning.evaluation.judges import Answered
from daj_lightning.evaluation.judgments import Answer
from daj_lightning.records import Candidate

PASSED = {"p": (True, False, False, True), "q": (False, True, False, False), "r": (False, False, False, False)}
DIFFICULTY = {"p": "easy", "q": "hard", "r": "hard"}


def candidate(problem: str, i: int, code: str | None = None) -> Candidate:
    return Candidate(f"{problem}{i}", problem, "toy", f"print({i})" if code is None else code)


def make_field(passed: Mapping[str, tuple[bool, ...]] = PASSED) -> Field:
    graded = {name: [(candidate(name, i), ok) for i, ok in enumerate(own)] for name, own in passed.items()}
    return Field(graded, {name: DIFFICULTY[name] for name in passed}, shown=dict.fromkeys(passed, "Which one?"))


def answer(pair: str, selection: int | None, kind: str = "") -> Answer:
    """ "p0 p1": the pair in the order shown."""
    first, second = pair.split()
    return Answer(first[0], (first, second), selection, f"of {pair}", "me", kind)


def judge(*answers: Answer, field: Field | None = None, name: str = "judge") -> Answered:
    return Answered(name, "by hand", field or make_field(), answers)


FLIPPED = {"A>B": "B>A", "B>A": "A>B"}


def both_orders(k: int, label: str, first: str | None, second: str | None, source: str = "livecodebench") -> dict:
    """A row as JudgeBench writes it; `first` and `second` are about A and B, and the file swaps the second."""
    return {
        "pair_id": f"pair-{k}",
        "original_id": k,
        "source": source,
        "question": f"question {k}",
        "response_model": "m",
        "response_A": f"A of {k}",
        "response_B": f"B of {k}",
        "label": label,
        "judge_name": "arena_hard",
        "judgments": [
            {"judgment": {"judge_model": "m", "response": "because"}, "decision": first},
            {"judgment": {"judge_model": "m", "response": "because"}, "decision": FLIPPED.get(second or "", second)},
        ],
    }


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def published(path: Path) -> Path:
    """42 pairs with the metrics of a judge whose numbers are known: 76.2 / 81.0, 64.3 both, 71.4 consistent, 78.6.

    27 right twice; 6 right once and tied or null once (3 in the first order); 6 right once and wrong once (2 in the
    first order); 3 wrong twice. First order: 27 + 3 + 2 = 32; second: 27 + 3 + 4 = 34; alike: 27 + 3; official: 27 + 6.
    """
    kinds: list[tuple[str | None, str | None]] = [
        *[("right", "right")] * 27,
        *[("right", "A=B")] * 2,
        ("right", None),
        *[("A=B", "right")] * 2,
        (None, "right"),
        *[("right", "wrong")] * 2,
        *[("wrong", "right")] * 4,
        *[("wrong", "wrong")] * 3,
    ]
    rows = []
    for k, kind in enumerate(kinds):
        label = ("A>B", "B>A")[k % 2]
        said = {"right": label, "wrong": FLIPPED[label], "A=B": "A=B", None: None}
        rows.append(both_orders(k, label, said[kind[0]], said[kind[1]]))
    return write(path, rows)
