"""q, the meta gradient, averaged over meta batches: less noise, for the price of age.

A meta batch of 8 says little (docs/results.md: its two halves hardly agree). With an average, windows without a
meta batch of their own can be credited as well, so that `meta_every` saves passes without losing outer steps.
Letters: P adapter parameters.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from daj_lightning.records import DajError


class MetaAverage:
    """Exponential average over meta batches, without bias towards its empty start.

    Args:
        decay: weight of what was there before; 0 keeps the newest meta batch alone.
    """

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < 1:
            raise DajError(f"meta_decay must be in [0, 1), got {decay}.")
        self.decay = decay
        self.sum: Tensor | None = None
        """(P,), biased."""
        self.weight = 0.0
        """Of the meta batches in the sum."""
        self.aged = 0.0
        """Sum of weight times age in windows."""

    @property
    def is_empty(self) -> bool:
        return self.sum is None

    @property
    def value(self) -> Tensor:
        """(P,) q."""
        assert self.sum is not None
        return self.sum / self.weight

    @property
    def staleness(self) -> float:
        """Mean age in windows of the meta batches in the average."""
        return self.aged / self.weight

    def pass_window(self) -> None:
        """The judge moved on by one inner step."""
        self.aged += self.weight

    def add(self, gradient: Tensor) -> float:
        """Take in the gradient (P,) of a new meta batch; returns its cosine to the average before, NaN without one."""
        if self.decay == 0:
            self.sum, self.weight, self.aged = gradient, 1.0, 0.0
            return float("nan")
        if self.sum is None:
            cosine = float("nan")
            self.sum = torch.zeros_like(gradient)
        else:
            # By hand: torch's cosine_similarity counts lengths below 1e-8 as 1e-8.
            cosine = float(torch.dot(gradient, self.sum) / (gradient.norm() * self.sum.norm()))
        self.sum = self.decay * self.sum + (1 - self.decay) * gradient
        self.weight = self.decay * self.weight + (1 - self.decay)
        self.aged *= self.decay
        return cosine

    def state(self) -> dict[str, Any]:
        """What the next meta batch does not replace."""
        if self.decay == 0:
            return {"sum": None, "weight": 0.0, "aged": 0.0}
        return {"sum": self.sum, "weight": self.weight, "aged": self.aged}

    def load_state(self, state: dict[str, Any]) -> None:
        self.sum, self.weight, self.aged = state["sum"], state["weight"], state["aged"]
