"""A window: one inner step, with all that it takes to differentiate it by its samples' weights.

Letters: K samples in the window, P adapter parameters, D domains.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor

from daj_lightning.bilevel.update import Update, clip_factors, clip_vjp, clipped, update_from_state, update_state
from daj_lightning.kernels import grad_bank_dot
from daj_lightning.records import JudgeBatch


@dataclass(frozen=True, slots=True)
class Window:
    """One inner step, enough to differentiate it with respect to its samples' weights."""

    batch: JudgeBatch
    """The K samples, of all processes."""
    losses: Tensor
    """(K,) float32, detached."""
    rows: Tensor
    """What the engine's store kept of the own samples: (K, P) raw gradients, (D, P) their sums by domain, or (1, P)
    the weighted sum."""
    gradient: Tensor
    """(P,) (1/K) sum_i alpha_i g_i, before clipping."""
    max_norm: float | None
    """Of clipping; None without."""
    update: Update
    """The optimizer just before the step."""
    phi: Tensor | None = None
    """(P,) the adapters before the step, for engines that go back there."""
    own: slice = field(default_factory=lambda: slice(None))
    """Of the K samples, those whose gradients are in this process; the others' part of a credit is zero here."""

    @property
    def own_batch(self) -> JudgeBatch:
        first, end, _ = self.own.indices(len(self.batch))
        return self.batch.part(first, end)

    def spread(self, own: Tensor) -> Tensor:
        """(K,) with the own samples' numbers in their places, zero elsewhere: the processes' parts add up."""
        spread = own.new_zeros(len(self.batch))
        spread[self.own] = own
        return spread

    @property
    def clipped_gradient(self) -> Tensor:
        return clipped(self.gradient, self.max_norm)

    def through_clipping(self, vector: Tensor) -> Tensor:
        """C vector, (..., P); C is symmetric, so this takes adjoints back and tangents forth."""
        return clip_vjp(vector, self.gradient, self.max_norm)

    def direction(self, of_gradient: Tensor) -> Tensor:
        """(P,) for which d L_meta / d alpha_i = <direction, g_i>, given the clipped gradient's adjoint (P,)."""
        return self.through_clipping(of_gradient) / len(self.batch)

    def credit(self, meta_gradient: Tensor) -> Tensor:
        """(K,) d L_meta / d alpha_i = -(1/K) <C^T (J o q), g_i> of the own samples, J exact, for q (P,).

        Products with `direction`, which is not written down: one pass over the rows computes J too, and C^T, which
        takes away a part along the window's gradient, needs another only where clipping is active.
        """
        dots, along = self.update.dot_rows(self.rows, meta_gradient, self.clipped_gradient)
        factors = clip_factors(self.gradient, self.max_norm)
        if factors is not None:
            scale, shrink = factors
            along_gradient = along / scale  # <g, y>; `along` is <C g, y>
            dots = scale * dots - shrink * along_gradient * grad_bank_dot(self.rows, self.gradient)
        return self.spread(dots / -len(self.batch))

    def state(self) -> dict[str, Any]:
        """What all processes hold alike, as plain numbers and tensors, for a checkpoint."""
        alike = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("rows", "own")}
        return alike | {"batch": batch_state(self.batch), "update": update_state(self.update)}

    @classmethod
    def from_state(cls, state: dict[str, Any], rows: Tensor, own: slice) -> Window:
        batch, update = JudgeBatch(**state["batch"]), update_from_state(state["update"])
        return cls(**(state | {"batch": batch, "update": update}), rows=rows, own=own)


def batch_state(batch: JudgeBatch) -> dict[str, Any]:
    """What `JudgeBatch(**state)` takes."""
    return {f.name: getattr(batch, f.name) for f in fields(batch)}
