"""What a window keeps of its samples' raw gradients.

The gradients exist anyway: a window is accumulated from micro-batches. An engine says what it needs of them: every
sample's own row (the bank), one sum a domain, or only the weighted sum. From a micro-batch of one sample autograd
writes them; out of a larger one per_sample.py takes them apart. What is apart can be scaled down to a norm.
Letters: K samples in the window, B in a micro-batch, P adapter parameters, D domains, T windows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

from daj_lightning.bilevel.flat import FlatView
from daj_lightning.bilevel.per_sample import PerSampleGradients
from daj_lightning.kernels import grad_bank_combine
from daj_lightning.records import JudgeBatch

BankDtype = Literal["float32", "bfloat16"]


class GradientStore(ABC):
    """Where the backward of every sample goes, and how the window's gradient comes out of it.

    Args:
        flat: the adapters.
        splitter: for micro-batches of more than one sample.
    """

    rows: Tensor
    """Of the window being recorded."""
    per_sample: bool = False
    """Row i is sample i's."""

    def __init__(self, flat: FlatView, splitter: PerSampleGradients | None = None) -> None:
        self.flat = flat
        self.splitter = splitter

    @abstractmethod
    def open(self, i: int, samples: JudgeBatch) -> None:
        """Direct the next backwards, of `total` for samples i .. i + B - 1."""

    def total(self, losses: Tensor, weights: Tensor) -> Tensor:
        """() what to take the backward of, for losses and weights (B,); weights count for nothing in a single sample's.

        The sum of the unweighted losses, where every sample's gradient is kept apart or scaled by `close`.
        """
        del weights
        return losses.sum()

    def close(self, i: int, weights: Tensor) -> None:
        """Keep what they wrote, given the samples' weights (B,)."""
        del i
        if len(weights) > 1:
            takes_apart(self.splitter).close()

    @abstractmethod
    def combine(self, batch: JudgeBatch, weights: Tensor) -> Tensor:
        """(P,) the window gradient (1/K) sum_i weights_i g_i, for weights (K,)."""


def takes_apart(splitter: PerSampleGradients | None) -> PerSampleGradients:
    """The splitter, which must be there."""
    assert splitter is not None, "a store without a splitter takes micro-batches of one sample"
    return splitter


class SampleRows:
    """A row for each sample of one micro-batch, until they are scaled down and added up.

    Args:
        flat, splitter: see `GradientStore`.
        max_sample_norm: longer rows are scaled down to it.
    """

    def __init__(
        self, flat: FlatView, splitter: PerSampleGradients | None = None, max_sample_norm: float | None = None
    ) -> None:
        self.flat = flat
        self.splitter = splitter
        self.max_sample_norm = max_sample_norm
        self._rows = flat.new_zeros(0)
        """(B, P), of the largest micro-batch so far."""

    def open(self, size: int) -> None:
        """Direct the next backwards, of the sum of `size` losses."""
        if size > len(self._rows):
            self._rows = self.flat.new_zeros(size)
        rows = self._rows[:size].zero_()
        if size > 1:
            takes_apart(self.splitter).open(rows, range(size))
        else:
            self.flat.point_gradients_at(rows[0])

    def add_to(self, total: Tensor, weights: Tensor) -> None:
        """Add the rows times weights (B,) to total (P,)."""
        rows = self._rows[: len(weights)]
        if len(rows) > 1:
            takes_apart(self.splitter).close()
        self.flat.shorten(rows, self.max_sample_norm)
        for row, weight in zip(rows, weights.to(rows.dtype), strict=True):
            total.add_(row * weight)


class GradientBank(GradientStore):
    """A row for every sample, reused every T windows.

    Args:
        flat, splitter: see `GradientStore`.
        num_rows: K.
        dtype: "float32" lets autograd write rows in place; "bfloat16" halves the memory and is as
            exact as the gradients themselves where these were computed in bfloat16.
        num_windows: T, windows kept at a time.
        max_sample_norm: longer rows are scaled down to it.
    """

    per_sample = True

    def __init__(
        self,
        flat: FlatView,
        num_rows: int,
        dtype: BankDtype = "float32",
        num_windows: int = 1,
        splitter: PerSampleGradients | None = None,
        max_sample_norm: float | None = None,
    ) -> None:
        super().__init__(flat, splitter)
        self.max_sample_norm = max_sample_norm
        own = flat.parameters[0].dtype  # float64 in tests of exactness
        self._ring = flat.new_zeros(num_windows, num_rows, dtype=torch.bfloat16 if dtype == "bfloat16" else own)
        self._turn = 0
        self.rows = self._ring[0]
        self._staging = flat.new_zeros() if self.rows.dtype != own else None

    def open(self, i: int, samples: JudgeBatch) -> None:
        """The row is raw: one scaled by a weight of 0 could never win its weight back."""
        if i == 0:
            self.rows = self._ring[self._turn]
            self._turn = (self._turn + 1) % len(self._ring)
        if len(samples) > 1:
            end = i + len(samples)
            self.rows[i:end].zero_()
            takes_apart(self.splitter).open(self.rows, range(i, end))
            return
        target = self.rows[i] if self._staging is None else self._staging
        self.flat.point_gradients_at(target.zero_())

    def close(self, i: int, weights: Tensor) -> None:
        super().close(i, weights)
        if self._staging is not None and len(weights) == 1:
            self.flat.shorten(self._staging[None], self.max_sample_norm)
            self.rows[i].copy_(self._staging)
        else:
            self.flat.shorten(self.rows[i : i + len(weights)], self.max_sample_norm)

    def combine(self, batch: JudgeBatch, weights: Tensor) -> Tensor:
        return grad_bank_combine(self.rows, weights / len(batch))


class DomainSums(GradientStore):
    """A row for every domain: the sum of its samples' raw gradients."""

    def __init__(self, flat: FlatView, num_domains: int, splitter: PerSampleGradients | None = None) -> None:
        super().__init__(flat, splitter)
        self.rows = flat.new_zeros(num_domains)

    def open(self, i: int, samples: JudgeBatch) -> None:
        if i == 0:
            self.rows.zero_()
        if len(samples) > 1:
            takes_apart(self.splitter).open(self.rows, samples.domains.tolist())
            return
        self.flat.point_gradients_at(self.rows[int(samples.domains)])

    def combine(self, batch: JudgeBatch, weights: Tensor) -> Tensor:
        """All samples of a domain have one weight here."""
        of_domain = weights.new_zeros(len(self.rows)).index_copy(0, batch.domains, weights)
        return grad_bank_combine(self.rows, of_domain / len(batch))


class GradientSum(GradientStore):
    """One running weighted sum, as in plain accumulation.

    Args:
        flat, splitter: see `GradientStore`; larger micro-batches need one where there is a norm.
        max_sample_norm: longer gradients are scaled down to it; then samples are taken apart.
    """

    def __init__(
        self, flat: FlatView, splitter: PerSampleGradients | None = None, max_sample_norm: float | None = None
    ) -> None:
        super().__init__(flat, splitter)
        self.rows = flat.new_zeros(1)
        self._apart = SampleRows(flat, splitter, max_sample_norm)

    def open(self, i: int, samples: JudgeBatch) -> None:
        if i == 0:
            self.rows.zero_()
        self._is_apart = len(samples) == 1 or self._apart.max_sample_norm is not None
        if self._is_apart:
            self._apart.open(len(samples))
        else:
            self.flat.point_gradients_at(self.rows[0])

    def total(self, losses: Tensor, weights: Tensor) -> Tensor:
        """Of several samples without a norm the weighted losses: no gradient needs to be kept apart."""
        return losses.sum() if self._is_apart else (losses * weights.to(losses.dtype)).sum()

    def close(self, i: int, weights: Tensor) -> None:
        if self._is_apart:
            self._apart.add_to(self.rows[0], weights)

    def combine(self, batch: JudgeBatch, weights: Tensor) -> Tensor:
        return self.rows[0] / len(batch)
