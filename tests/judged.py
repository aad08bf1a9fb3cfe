"""A field of three problems and judges of it, so that every number can be derived by hand."""

from __future__ import annotations

from daj_lightning.evaluation.field import Field
from daj_lightning.evaluation.judges import Answered
from daj_lightning.evaluation.judgments import Answer
from daj_lightning.records import Candidate

PASSED = {"p": (True, False, False, True), "q": (False, True, False, False), "r": (False, False, False, False)}
DIFFICULTY = {"p": "easy", "q": "hard", "r": "hard"}


def candidate(problem: str, i: int, code: str | None = None) -> Candidate:
    return Candidate(f"{problem}{i}", problem, "toy", f"print({i})" if code is None else code)


def make_field(passed: dict[str, tuple[bool, ...]] = PASSED) -> Field:
    graded = {name: [(candidate(name, i), ok) for i, ok in enumerate(own)] for name, own in passed.items()}
    return Field(graded, {name: DIFFICULTY[name] for name in passed}, shown=dict.fromkeys(passed, "Which one?"))


def answer(pair: str, selection: int | None, kind: str = "") -> Answer:
    """ "p0 p1": the pair in the order shown."""
    first, second = pair.split()
    return Answer(first[0], (first, second), selection, f"of {pair}", "me", kind)


def judge(*answers: Answer, field: Field | None = None, name: str = "judge") -> Answered:
    return Answered(name, "by hand", field or make_field(), answers)
