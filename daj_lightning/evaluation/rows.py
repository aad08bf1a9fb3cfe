"""The state that all our metrics share: rows of numbers that are looked at when all of them are there.

A bootstrap needs every problem's own number, so a metric keeps rows and no running sums. Rows are concatenated over
processes, and sorted before they are looked at: batches may come in any order, from anywhere, in any number of pieces.
Names (problems, candidates) enter a row as 63 bits of their hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from daj_lightning.evaluation.score import LEVELS, Score

PARTS = ("", "/low", "/high", "/problems")
Row = tuple[tuple[int, ...], tuple[float, ...]]
"""Keys and values."""


class RowMetric(Metric):
    """Keeps rows of `num_keys` integers and `num_values` numbers; a subclass says what they mean.

    `compute` gives what a logger takes: for each score its value, and name/low, name/high and name/problems. `scores`
    gives the same as records.
    """

    full_state_update = False
    is_differentiable = False
    num_keys: int
    num_values: int
    keys: list[Tensor]
    values: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("keys", default=[], dist_reduce_fx="cat")
        self.add_state("values", default=[], dist_reduce_fx="cat")

    def add(self, rows: Iterable[tuple[Sequence[int], Sequence[float]]]) -> None:
        """Append rows."""
        given = list(rows)
        keys = torch.tensor([row[0] for row in given], dtype=torch.int64, device=self.device)
        values = torch.tensor([row[1] for row in given], dtype=torch.float64, device=self.device)
        self.keys.append(keys.reshape(len(given), self.num_keys))
        self.values.append(values.reshape(len(given), self.num_values))

    def rows(self) -> list[Row]:
        """All rows, sorted: the same ones whatever the order of the updates."""
        if not len(self.keys):
            return []
        keys, values = dim_zero_cat(self.keys).tolist(), dim_zero_cat(self.values).tolist()
        return sorted((tuple(key), tuple(value)) for key, value in zip(keys, values, strict=True))

    def measure(self) -> dict[str, Score]:
        """The scores by name, of all rows."""
        raise NotImplementedError

    def compute(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, score in self.measure().items():
            numbers = (score.value, score.low, score.high, score.num_problems)
            found |= {name + part: torch.tensor(n, dtype=torch.float64) for part, n in zip(PARTS, numbers, strict=True)}
        return found

    def scores(self) -> dict[str, Score]:
        """What `compute` gives, over all processes."""
        found = {name: float(value) for name, value in self.compute().items()}
        names = [name for name in found if not name.endswith(PARTS[1:])]
        return {n: Score(found[n], found[f"{n}/low"], found[f"{n}/high"], int(found[f"{n}/problems"])) for n in names}

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        if not len(self.keys):
            self.add([])  # a process without data takes part with no row, of the shape that the others have
        super()._sync_dist(*args, **kwargs)


def code(name: str) -> int:
    """63 bits of a name's hash: the same in every process."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") >> 1


def level_code(level: str) -> int:
    """Index into LEVELS; -1: another difficulty, which counts overall alone."""
    return LEVELS.index(level) if level in LEVELS else -1
