"""What a window keeps of its samples' raw gradients.

The gradients exist anyway: a window is accumulated from micro-batches of one sample. An engine says what it
needs of them: every sample's own row (the bank), one sum a domain, or only the weighted sum.
Letters: K samples in the window, P adapter parameters, D domains, T windows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

from daj_lightning.bilevel.flat import FlatView
from daj_lightning.kernels import grad_bank_combine
from daj_lightning.records import JudgeBatch

BankDtype = Literal["float32", "bfloat16"]


class GradientStore(ABC):
    """Where the backward of every sample goes, and how the window's gradient comes out of it."""

    rows: Tensor
    """Of the window being recorded."""
    per_sample: bool = False
    """Row i is sample i's."""

    @abstractmethod
    def open(self, i: int, sample: JudgeBatch) -> None:
        """Direct the next backwards, all of the unweighted loss of sample i."""

    def close(self, i: int, weight: Tensor) -> None:
        """Keep what they wrote, given the sample's weight (1,); nothing to do where that is a row of its own."""
        del i, weight

    @abstractmethod
    def combine(self, batch: JudgeBatch, weights: Tensor) -> Tensor:
        """(P,) the window gradient (1/K) sum_i weights_i g_i, for weights (K,)."""


class GradientBank(GradientStore):
    """A row for every sample, reused every T windows.

    Args:
        flat: the adapters.
        num_rows: K.
        dtype: "float32" lets autograd write rows in place; "bfloat16" halves the memory and is as
            exact as the gradients themselves where these were computed in bfloat16.
        num_windows: T, windows kept at a time.
    """

    per_sample = True

    def __init__(self, flat: FlatView, num_rows: int, dtype: BankDtype = "float32", num_windows: int = 1) -> None:
        self.flat = flat
        own = flat.parameters[0].dtype  # float64 in tests of exactness
        self._ring = flat.new_zeros(num_windows, num_rows, dtype=torch.bfloat16 if dtype == "bfloat16" else own)
        self._turn = 0
        self.rows = self._ring[0]
        self._staging = flat.new_zeros() if self.rows.dtype != own else None

    def open(self, i: int, sample: JudgeBatch) -> None:
        """The row is raw: one scaled by a weight of 0 could never win its weight back."""
        if i == 0:
            self.rows = self._ring[self._turn]
            self._turn = (self._turn + 1) % len(self._ring)
        target = self.rows[i] if self._staging is None else self._staging
        self.flat.point_gradients_at(target.zero_())

    def close(self, i: int, weight: Tensor) -> None:
        if self._staging is not None:
            self.rows[i].copy_(self._staging)

    def combine(self, batch: JudgeBatch, weights: Tensor) -> Tensor:
        return grad_bank_combine(self.rows, weights / len(batch))


class DomainSums(GradientStore):
    """A row for every domain: the sum of its samples' raw gradients."""

    def __init__(self, flat: FlatView, num_domains: int) -> None:
        self.flat = flat
        self.rows = flat.new_zeros(num_domains)

    def open(self, i: int, sample: JudgeBatch) -> None:
        if i == 0:
            self.rows.zero_()
        self.flat.point_gradients_at(self.rows[int(sample.domains)])

    def combine(self, batch: JudgeBatch, weights: Tensor) -> Tensor:
        """All samples of a domain have one weight here."""
        of_domain = weights.new_zeros(len(self.rows)).index_copy(0, batch.domains, weights)
        return grad_bank_combine(self.rows, of_domain / len(batch))


class GradientSum(GradientStore):
    """One running weighted sum, as in plain accumulation."""

    def __init__(self, flat: FlatView) -> None:
        self.flat = flat
        self.rows = flat.new_zeros(1)
        self._staging = flat.new_zeros()

    def open(self, i: int, sample: JudgeBatch) -> None:
        if i == 0:
            self.rows.zero_()
        self.flat.point_gradients_at(self._staging.zero_())

    def close(self, i: int, weight: Tensor) -> None:
        self.rows[0].add_(self._staging * weight.to(self._staging.dtype))

    def combine(self, batch: JudgeBatch, weights: Tensor) -> Tensor:
        return self.rows[0] / len(batch)
