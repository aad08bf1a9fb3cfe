"""Adam's update differentiated by its gradient, elementwise. csrc/include/daj/adam.h is the same formula in C++.

    u = lr (m / bc1) / D,   m = b1 m0 + (1 - b1) g,   v = b2 v0 + (1 - b2) g^2,   s = sqrt(v / bc2),   D = s + eps
    J = du/dg = lr [(1 - b1)(b2 v0 / s + eps bc2) - b1 (1 - b2) m0 (g / s)] / (bc1 bc2 D^2)

with bc1 = 1 - b1^step, bc2 = 1 - b2^step and m0, v0 the moments before the step.
Letters: P adapter parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class AdamJacobian:
    """J of one step, not yet computed: what `diagonal` and the fused ops need."""

    gradient: Tensor
    """(P,) g, as it enters the optimizer."""
    m0: Tensor
    """(P,) first moment before the step."""
    v0: Tensor
    """(P,) second moment before the step."""
    lr: float
    beta1: float
    beta2: float
    eps: float
    step: int
    """1 in the first step."""

    def root(self) -> Tensor:
        """s, (P,)."""
        v = self.beta2 * self.v0 + (1 - self.beta2) * self.gradient * self.gradient
        return (v / (1 - self.beta2**self.step)).sqrt_()

    def diagonal(self) -> Tensor:
        """J, (P,).

        The textbook form subtracts two nearly equal terms at step 1; this one does not (research: float32 loses 0.1 %
        there). Where s = 0 the terms with 1/s are 0, which leaves the limit lr (1 - b1) / (bc1 eps).
        """
        b1, b2 = self.beta1, self.beta2
        bc1, bc2 = 1 - b1**self.step, 1 - b2**self.step
        s = self.root()
        inverse = torch.where(s == 0, 0.0, 1 / s)
        numerator = (1 - b1) * (b2 * self.v0 * inverse + self.eps * bc2)
        numerator -= b1 * (1 - b2) * self.m0 * (self.gradient * inverse)
        s += self.eps
        return numerator.mul_(self.lr / (bc1 * bc2)).div_(s).div_(s)
