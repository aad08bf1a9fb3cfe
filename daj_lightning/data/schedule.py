"""Which samples each bi-level step sees: a pure function of (seed, step), so that any step can be resumed.

Samples come in shuffled epochs laid end to end; step w takes the next K of the training stream and the
next M of the meta stream. No generator state is carried along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch

from daj_lightning.records import BilevelBatch, Comparison, DajError


class SampleStream:
    """Endless shuffled epochs over `num_samples` samples, readable at any position.

    Args:
        num_samples: > 0.
        seed: of the shuffles.
        name: two streams of one seed and different names are independent.
    """

    def __init__(self, num_samples: int, seed: int, name: str) -> None:
        if num_samples < 1:
            raise DajError(f"the {name} set is empty; nothing to draw from.")
        self.num_samples = num_samples
        self._salt = int.from_bytes(name.encode(), "big") % 2**31 + seed * 1_000_003
        self._permutation = lru_cache(maxsize=2)(self._shuffle)

    def take(self, start: int, count: int) -> list[int]:
        """Sample ids at positions start .. start + count - 1."""
        return [self._at(position) for position in range(start, start + count)]

    def _at(self, position: int) -> int:
        epoch, offset = divmod(position, self.num_samples)
        return self._permutation(epoch)[offset]

    def _shuffle(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(self._salt + 7_919 * epoch)
        return torch.randperm(self.num_samples, generator=generator).tolist()


class Questions:
    """Comparisons in their order, `batch_size` at a time; all in every process, where Lightning splits a DataLoader's.

    Args:
        comparisons: what is asked.
        batch_size: how many together.
    """

    def __init__(self, comparisons: Sequence[Comparison], batch_size: int) -> None:
        self.comparisons = comparisons
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.comparisons) // self.batch_size)

    def __iter__(self) -> Iterator[list[Comparison]]:
        for first in range(0, len(self.comparisons), self.batch_size):
            yield list(self.comparisons[first : first + self.batch_size])


class BilevelLoader:
    """One `BilevelBatch` per step. Lightning saves and restores its position with the loops' state.

    Args:
        window: number of a step -> its batch.
        max_windows: number of steps, the length of the loader.
    """

    def __init__(self, window: Callable[[int], BilevelBatch], max_windows: int) -> None:
        self.window = window
        self.max_windows = max_windows
        self.next_window = 0

    def __len__(self) -> int:
        return self.max_windows

    def __iter__(self) -> Iterator[BilevelBatch]:
        while self.next_window < self.max_windows:
            self.next_window += 1
            yield self.window(self.next_window - 1)

    def state_dict(self) -> dict[str, Any]:
        return {"next_window": self.next_window}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.next_window = state["next_window"]
