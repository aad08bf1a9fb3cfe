"""Engines without a bank: <direction, g_i> as a derivative of the loss along the direction, sample by sample.

Both go back to the adapters before the step and pass every sample of the window through the judge again. The
judge's own adapters never move: the passes run on a copy of P numbers.
Letters: K samples in a window, P adapter parameters.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, get_args

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from daj_lightning.bilevel.hypergradient import Credit, HypergradientEngine, Setting
from daj_lightning.bilevel.stores import GradientStore, GradientSum
from daj_lightning.bilevel.update import Preconditioner
from daj_lightning.bilevel.window import Window
from daj_lightning.records import DajError, JudgeBatch


class DirectionalEngine(HypergradientEngine):
    """What both share: the newest window, and the direction in which to differentiate its losses."""

    goes_back = True

    def __init__(self, preconditioner: Preconditioner = "exact") -> None:
        if preconditioner not in get_args(Preconditioner):
            raise DajError(f"an engine's preconditioner is one of {get_args(Preconditioner)}, got {preconditioner!r}.")
        self.preconditioner = preconditioner
        self.setting: Setting | None = None
        self.window: Window | None = None

    def start(self, setting: Setting) -> GradientStore:
        self.setting, self.window = setting, None
        return GradientSum(setting.flat)

    def observe(self, window: Window) -> None:
        self.window = window

    def forget(self) -> None:
        self.window = None

    def description(self) -> dict[str, Any]:
        return {"engine": f"{type(self).__name__}, {self.preconditioner}"}

    @torch.no_grad()
    def __call__(self, meta_gradient: Tensor) -> list[Credit]:
        window = self.window
        assert window is not None
        assert window.phi is not None
        jacobian = window.update.jacobian(window.clipped_gradient, self.preconditioner)
        direction = window.direction(-meta_gradient * jacobian)
        along = [self.derivative(window.phi, sample, direction) for sample in window.own_batch.micro_batches()]
        return [Credit(window.batch, window.losses, window.spread(torch.cat(along)))]

    @abstractmethod
    def derivative(self, phi: Tensor, sample: JudgeBatch, direction: Tensor) -> Tensor:
        """(1,) of the sample's loss at phi (P,) along the direction (P,)."""


class JvpEngine(DirectionalEngine):
    """Exact for one window by forward-mode differentiation, without a bank: K tangent passes an outer step.

    Forward mode exists for eager and for math attention only, so scaled-dot-product attention runs its math
    kernel in these passes.

    Args:
        preconditioner: as for `BankEngine`.
    """

    def derivative(self, phi: Tensor, sample: JudgeBatch, direction: Tensor) -> Tensor:
        assert self.setting is not None
        if not sample.response_mask.any():  # masked out of the loss, which is then constant
            return direction.new_zeros(1)
        with sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
            loss = self.setting.loss_at(forward_ad.make_dual(phi, direction), sample)
            tangent = forward_ad.unpack_dual(loss).tangent
        assert tangent is not None, "the loss does not depend on the adapters in forward mode"
        return tangent


class FiniteDifferenceEngine(DirectionalEngine):
    """Central differences: 2 K passes without a graph an outer step. For comparison: exact in no precision.

    Args:
        preconditioner: as for `BankEngine`.
        radius: length of the step to either side, in parameter space (docs/results.md compares five).
    """

    def __init__(self, preconditioner: Preconditioner = "exact", radius: float = 1e-2) -> None:
        if radius <= 0:
            raise DajError(f"FiniteDifferenceEngine needs radius > 0, got {radius}.")
        super().__init__(preconditioner)
        self.radius = radius

    def derivative(self, phi: Tensor, sample: JudgeBatch, direction: Tensor) -> Tensor:
        assert self.setting is not None
        norm = float(direction.norm())
        if norm == 0:
            return direction.new_zeros(1)
        step = direction * (self.radius / norm)
        up, down = (self.setting.loss_at(phi + side * step, sample) for side in (1, -1))
        return (up - down) * (norm / (2 * self.radius))
