"""What one accuracy hides: answers about a right and a wrong program, in both orders.

The rules are JudgeBench's (Tan et al. 2024), so that its published files give its published numbers: an answer is right
if it prefers the right program; a tie, a missing answer and anything else are not. Where a pair was asked several
times in an order, every answer of one order meets every answer of the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import product

from daj_lightning.evaluation.rows import RowMetric, code
from daj_lightning.evaluation.score import Score, bootstrap


class Choice(IntEnum):
    """What an answer prefers; A and B are programs, whatever their positions."""

    A = 0
    B = 1
    TIE = 2
    NULL = 3
    """No answer, or one that could not be read."""
    OTHER = 4
    """Something that is none of these; right nowhere, and no null."""


@dataclass(frozen=True, slots=True)
class PairAnswer:
    """One answer about a right and a wrong program."""

    pair: str
    """Names the question: the two programs, not their order."""
    problem: str
    """Pairs of one problem are drawn together."""
    right: Choice
    """A or B."""
    swapped: bool
    """B was shown first."""
    choice: Choice
    positional: bool = True
    """Given by a judge that saw two positions; a scalar score sees none."""
    other: str = ""
    """What it says in place of a preference, where that is nothing known."""

    @property
    def vote(self) -> int:
        """1 for the right program, -1 for the wrong one, 0 for neither."""
        return 0 if self.choice > Choice.B else 1 if self.choice == self.right else -1


class PairwiseAccuracy(RowMetric):
    """The numbers that belong together; `measure` names them."""

    num_keys, num_values = 7, 0

    def update(self, answers: Iterable[PairAnswer]) -> None:
        """Answers about pairs of a right and a wrong program, in any order."""
        self.add(
            ((code(a.problem), code(a.pair), a.swapped, a.right, a.choice, a.positional, code(a.other)), ())
            for a in answers
        )

    def measure(self) -> dict[str, Score]:
        """Those of these that the answers allow, each a mean over answers or over pairs:

        "single order": an answer is right; "first order" and "second order", of the answers with A, or B, before the
        other. "ties counted half": the same, where a tie is half right. "null rate": no readable answer. "first
        position": of the answers that prefer a program, those that prefer the first (0.5 is unbiased).
        Of pairs asked in both orders: "both correct"; "consistency", the same answer in both, two nulls included as in
        JudgeBench; "consistent and valid", the same program preferred in both; "JudgeBench official", right in one
        order and not wrong in the other.
        """
        groups: dict[str, dict[int, list[float]]] = {}
        asked: dict[tuple[int, int], tuple[list[PairAnswer], list[PairAnswer]]] = {}
        for (problem, pair, swapped, right, choice, positional, other), _ in self.rows():
            answer = PairAnswer("", "", Choice(right), bool(swapped), Choice(choice), bool(positional), str(other))
            asked.setdefault((problem, pair), ([], []))[swapped].append(answer)
            for name, value in of_answer(answer).items():
                groups.setdefault(name, {}).setdefault(problem, []).append(value)
        for (problem, _), orders in asked.items():
            met = [of_orders(first, second) for first, second in product(*orders)]
            for name in met[0] if met else ():
                mean = sum(one[name] for one in met) / len(met)
                groups.setdefault(name, {}).setdefault(problem, []).append(mean)
        return {name: bootstrap(list(groups[name].values())) for name in NAMES if name in groups}


NAMES = (
    "single order",
    "first order",
    "second order",
    "both correct",
    "consistency",
    "consistent and valid",
    "JudgeBench official",
    "ties counted half",
    "first position",
    "null rate",
)
BOTH_ORDERS = NAMES[3:7]


def of_answer(answer: PairAnswer) -> dict[str, float]:
    """What one answer says; only what it says anything about."""
    right, tie = answer.choice == answer.right, answer.choice is Choice.TIE
    found = {
        "single order": float(right),
        "ties counted half": 0.5 if tie else float(right),
        "null rate": float(answer.choice is Choice.NULL),
    }
    if answer.positional:
        found["second order" if answer.swapped else "first order"] = float(right)
        if answer.choice <= Choice.B:
            found["first position"] = float((answer.choice is Choice.B) == answer.swapped)
    return found


def of_orders(first: PairAnswer, second: PairAnswer) -> dict[str, float]:
    """What the answers in both orders say together."""
    same = (first.choice, first.other) == (second.choice, second.other)
    values = (
        first.vote == second.vote == 1,
        same,
        same and first.choice <= Choice.B,
        first.vote + second.vote > 0,
    )
    return dict(zip(BOTH_ORDERS, map(float, values), strict=True))


def is_right(answers: Sequence[PairAnswer]) -> bool:
    """Whether a judge knows a pair, all its answers together: more for the right program than for the wrong one."""
    return sum(answer.vote for answer in answers) > 0
