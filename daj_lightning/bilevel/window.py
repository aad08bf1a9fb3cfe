"""A window: the micro-batches of one inner step, with each sample's own raw gradient.

The gradients exist anyway: a window is accumulated from micro-batches of one sample. Keeping them in
a bank makes the hypergradient exact at the price of K P numbers of memory and no further pass.
Letters: K samples in the window, P adapter parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from daj_lightning.bilevel.flat import FlatView
from daj_lightning.bilevel.update import Update, clip_scale
from daj_lightning.kernels import grad_bank_combine


@dataclass(frozen=True, slots=True)
class Window:
    """One inner step, enough to differentiate it with respect to its samples' weights."""

    sample_ids: Tensor
    """(K,) int64."""
    losses: Tensor
    """(K,) float32, detached."""
    bank: Tensor
    """(K, P): row i is the gradient of loss i, raw. A row scaled by a weight of 0 could never win it back."""
    gradient: Tensor
    """(P,) (1/K) sum_i alpha_i g_i, before clipping."""
    max_norm: float | None
    """Of clipping; None without."""
    update: Update
    """The optimizer just before the step."""

    @property
    def clipped_gradient(self) -> Tensor:
        return self.gradient * clip_scale(self.gradient, self.max_norm)


class GradientBank:
    """Storage of a window's rows, reused by every window.

    Args:
        flat: the adapters.
        num_rows: K.
        dtype: "float32" lets autograd write rows in place; "bfloat16" halves the memory and is as
            exact as the gradients themselves where these were computed in bfloat16.
    """

    def __init__(self, flat: FlatView, num_rows: int, dtype: Literal["float32", "bfloat16"] = "float32") -> None:
        self.flat = flat
        own = flat.parameters[0].dtype  # float64 in tests of exactness
        self.rows = flat.new_zeros(num_rows, dtype=torch.bfloat16 if dtype == "bfloat16" else own)
        self._staging = flat.new_zeros() if self.rows.dtype != own else None

    def open_row(self, i: int) -> None:
        """Zero row i and let the next backward accumulate into it."""
        target = self.rows[i] if self._staging is None else self._staging
        self.flat.point_gradients_at(target.zero_())

    def close_row(self, i: int) -> None:
        """Keep what the backward wrote into row i."""
        if self._staging is not None:
            self.rows[i].copy_(self._staging)

    def combine(self, weights: Tensor) -> Tensor:
        """(P,) the window gradient (1/K) sum_i weights_i g_i, for weights (K,)."""
        return grad_bank_combine(self.rows, weights / self.rows.size(0))


class GradientSum:
    """Stands in for the bank where no weight is learned: one running sum, as in plain accumulation."""

    def __init__(self, flat: FlatView, num_rows: int, dtype: Literal["float32", "bfloat16"] = "float32") -> None:
        del dtype  # the sum is always kept in the adapters' own dtype
        self.flat = flat
        self.num_rows = num_rows
        self.rows = flat.new_zeros(1)

    def open_row(self, i: int) -> None:
        """Let the next backward add to the sum; row 0 starts a new one."""
        if i == 0:
            self.rows.zero_()
        self.flat.point_gradients_at(self.rows[0])

    def close_row(self, i: int) -> None:
        pass

    def combine(self, weights: Tensor) -> Tensor:
        """(P,) the mean gradient; the weights are all 1 here."""
        del weights
        return self.rows[0] / self.num_rows
