"""A number with its uncertainty: a mean, or a ratio of sums, over problems that are drawn again and again.

Comparisons of one problem are not independent, so they are drawn together. LEVELS are the difficulties that the
paper's tables split by.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daj_lightning.data.jsonl import write_whole

LEVELS = ("easy", "medium", "hard")
NUM_DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Score:
    """A mean over problems with its uncertainty."""

    value: float
    """Between 0 and 1; a difference or a recovered gap may be negative."""
    low: float
    """2.5 % quantile of the bootstrap."""
    high: float
    """97.5 % quantile."""
    num_problems: int

    def __str__(self) -> str:
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}] (n={self.num_problems})"


NOTHING = Score(math.nan, math.nan, math.nan, 0)
"""Of no problem at all."""


def bootstrap(groups: Sequence[Sequence[float]], num_draws: int = NUM_DRAWS, seed: int = 0) -> Score:
    """Mean over all entries, with an interval from drawing whole groups (one a problem) with replacement."""
    return bootstrap_ratio([sum(group) for group in groups], [len(group) for group in groups], num_draws, seed)


def bootstrap_ratio(sums: Sequence[float], sizes: Sequence[float], num_draws: int = NUM_DRAWS, seed: int = 0) -> Score:
    """Sum of `sums` over sum of `sizes`, one entry a problem, with an interval from drawing problems."""
    if not sums:
        return NOTHING
    ratios = drawn_ratios(sums, sizes, num_draws, seed)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Score(float(np.sum(sums, dtype=float) / np.sum(sizes, dtype=float)), float(low), float(high), len(sums))


def drawn_ratios(sums: Sequence[float], sizes: Sequence[float], num_draws: int, seed: int) -> np.ndarray:
    """(num_draws,): the ratio for problems drawn with replacement."""
    above, below = np.array(sums, dtype=float), np.array(sizes, dtype=float)
    draws = np.random.default_rng(seed).integers(len(above), size=(num_draws, len(above)))
    return np.asarray(above[draws].sum(axis=1) / below[draws].sum(axis=1))


def write_json(path: Path, value: Any) -> None:
    """Records, scores and what holds them, as JSON; null for a number that does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(plain(value), indent=2) + "\n")


def plain(value: Any) -> Any:
    """What JSON can say of it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
