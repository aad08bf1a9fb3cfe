"""What a family of problems is: one task whose parameters make many different problems.

A family knows nothing of platforms. Its programs are templates of a function `solve`, its parameters
are spelled `$name` in templates and in the task's text, and its expected answers come from `solve`, a
trusted function of ours. Nothing here says which program is right: execution does.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from string import Template
from typing import Any

Params = Mapping[str, Any]
"""One instance: what every `$name` stands for."""
Args = tuple[Any, ...]
"""One input of a problem: a value for every argument."""

GREATER = {"op": ">", "op_words": "greater than"}
AT_LEAST = {"op": ">=", "op_words": "at least"}
LESS = {"op": "<", "op_words": "less than"}
AT_MOST = {"op": "<=", "op_words": "at most"}
COMPARISONS = (GREATER, AT_LEAST, LESS, AT_MOST)
LARGEST = {"pick": "max", "other": "min", "pick_words": "largest"}
SMALLEST = {"pick": "min", "other": "max", "pick_words": "smallest"}

_OPERATORS = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True)
class Family:
    """One task, its instances and the programs that attempt it."""

    name: str
    difficulty: str
    """"easy", "medium" or "hard"."""
    title: str
    method: str
    """Name of the method on leetcode."""
    arguments: Mapping[str, str]
    """Name of each argument and its kind: "int", "ints", "str", "grid" or "pairs"; one sequence at most."""
    returns: str
    """Kind of the answer: "int", "ints", "str" or "bool"."""
    task: str
    """Template of what is wanted, without the formats of input and output."""
    limits: str
    """Template; n is the length of the sequence."""
    space: tuple[Sequence[Params], ...]
    """Axes: an instance merges one choice of each."""
    solve: Callable[..., Any]
    """(params, *args) -> the expected answer."""
    edges: Callable[[Params], Sequence[Args]]
    """Hidden inputs at the boundaries: least size, all equal, at the parameter, largest."""
    draw: Callable[[Params, Random, int], Args]
    """(params, rng, size) -> a random input of about that size."""
    variants: tuple[str, ...]
    """Correct programs of different structure."""
    gross: tuple[str, ...]
    """Wrong approaches: another task solved."""
    subtle: tuple[str, ...]
    """Wrong approaches: right but for a special case."""

    def instances(self) -> list[Params]:
        """Every instance, in a fixed order."""
        return merged(*self.space)


def axis(name: str, values: Sequence[Any]) -> list[Params]:
    """An axis of one parameter."""
    return [{name: value} for value in values]


def merged(*axes: Sequence[Params]) -> list[Params]:
    """Every choice of one entry of each axis, merged."""
    return [{k: v for entry in choice for k, v in entry.items()} for choice in itertools.product(*axes)]


def fill(template: str, params: Params) -> str:
    """The template with its parameters written in; KeyError names one that is missing."""
    return Template(template).substitute(params)


def holds(left: Any, op: str, right: Any) -> bool:
    """Whether `left op right`, for the spelling of a comparison."""
    return bool(_OPERATORS[op](left, right))


def integers(rng: Random, size: int, low: int, high: int) -> list[int]:
    """`size` integers from low to high, both included."""
    return [rng.randint(low, high) for _ in range(size)]


def letters(rng: Random, size: int, alphabet: str) -> str:
    """A string of `size` letters."""
    return "".join(rng.choice(alphabet) for _ in range(size))
