"""What the inner optimizer does to a gradient, and how much its update moves when the gradient moves.

u(g) is the update: phi' = phi - u(C(g)), C the clipping. J = du/dg is elementwise for SGD and Adam and
is evaluated after clipping; C has a closed form that is symmetric, so C^T = C (spec, section 6).
Letters: P adapter parameters; m0, v0 Adam's moments before the step; s = sqrt(v / bc2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from daj_lightning.bilevel.flat import FlatView
from daj_lightning.records import DajError

Preconditioner = Literal["exact", "frozen", "identity"]


class Update(Protocol):
    """The state of the inner optimizer just before a step, enough to differentiate that step."""

    def jacobian(self, gradient: Tensor, preconditioner: Preconditioner) -> Tensor | float:
        """The diagonal of du/dg at the clipped gradient (P,): (P,), or one number for all."""
        ...


@dataclass(frozen=True, slots=True)
class SgdUpdate:
    """SGD, with or without momentum."""

    lr: float
    gain: float
    """du/dg over lr: 1 - dampening (1 in the first step), times 1 + mu with Nesterov's momentum."""

    def jacobian(self, gradient: Tensor, preconditioner: Preconditioner) -> float:
        return self.lr if preconditioner == "identity" else self.lr * self.gain


@dataclass(frozen=True, slots=True)
class AdamUpdate:
    """Adam without coupled weight decay; decoupled decay (AdamW) does not depend on the gradient."""

    lr: float
    beta1: float
    beta2: float
    eps: float
    step: int
    """1 in the first step."""
    m0: Tensor
    """(P,) first moment before the step."""
    v0: Tensor
    """(P,) second moment before the step."""

    def jacobian(self, gradient: Tensor, preconditioner: Preconditioner) -> Tensor | float:
        """exact: du/dg; frozen: lr / (s + eps), moments held fixed; identity: lr, as Betty does.

        The textbook form of `exact` subtracts two nearly equal terms at step 1; this one does not
        (research: float32 loses 0.1 % there).
        """
        if preconditioner == "identity":
            return self.lr
        b1, b2, g = self.beta1, self.beta2, gradient
        bc1, bc2 = 1 - b1**self.step, 1 - b2**self.step
        s = ((b2 * self.v0 + (1 - b2) * g * g) / bc2).sqrt_()
        if preconditioner == "frozen":
            return self.lr / (s + self.eps)
        numerator = (1 - b1) * (b2 * self.v0 + self.eps * bc2 * s) - b1 * (1 - b2) * self.m0 * g
        jacobian = numerator.mul_(self.lr / (bc1 * bc2)).div_(s * (s + self.eps).square_())
        return torch.where(s == 0, self.lr * (1 - b1) / (bc1 * self.eps), jacobian)


def snapshot(optimizer: Optimizer, flat: FlatView) -> Update:
    """The inner optimizer's state before its next step; copies the moments, changes nothing.

    Raises:
        DajError: an optimizer or an option whose update has no elementwise Jacobian here.
    """
    (group,) = optimizer.param_groups
    check_optimizer(optimizer)
    first_state = optimizer.state.get(flat.parameters[0], {})
    lr = float(group["lr"])
    if isinstance(optimizer, SGD):
        mu, started = group["momentum"], first_state.get("momentum_buffer") is not None
        entering = 1 - group["dampening"] if mu and started else 1.0
        return SgdUpdate(lr, 1 + mu * entering if group["nesterov"] else entering)
    b1, b2 = (float(beta) for beta in group["betas"])
    if not first_state:
        return AdamUpdate(lr, b1, b2, group["eps"], 1, flat.new_zeros(), flat.new_zeros())
    moments = [flat.gather([optimizer.state[p][key] for p in flat.parameters]) for key in ("exp_avg", "exp_avg_sq")]
    return AdamUpdate(lr, b1, b2, group["eps"], int(first_state["step"]) + 1, *moments)


def check_optimizer(optimizer: Optimizer) -> None:
    """Refuse, before training, an inner optimizer that cannot be differentiated."""
    if not isinstance(optimizer, (SGD, Adam, AdamW)):
        raise DajError(
            f"the inner optimizer is {type(optimizer).__name__}; the hypergradient knows the Jacobian of SGD, "
            f"Adam and AdamW. Choose one of these in model.inner.optimizer."
        )
    (group,) = optimizer.param_groups
    coupled = group["weight_decay"] != 0 and not isinstance(optimizer, AdamW)
    if coupled or group.get("amsgrad") or group.get("maximize"):
        raise DajError(
            f"the inner {type(optimizer).__name__} uses coupled weight decay, amsgrad or maximize, whose "
            f"Jacobian is not elementwise in the gradient alone. Use AdamW for weight decay, and leave the others off."
        )


def clip_scale(gradient: Tensor, max_norm: float | None) -> float:
    """The factor of `torch.nn.utils.clip_grad_norm_`: min(1, c / (n + 1e-6))."""
    if max_norm is None:
        return 1.0
    return min(1.0, max_norm / (float(gradient.norm()) + 1e-6))


def clip_vjp(vector: Tensor, gradient: Tensor, max_norm: float | None) -> Tensor:
    """C^T vector, for the gradient (P,) before clipping; `vector` itself where clipping is inactive."""
    norm = float(gradient.norm())
    if max_norm is None or max_norm / (norm + 1e-6) >= 1.0:
        return vector
    scale = max_norm / (norm + 1e-6)
    along = torch.dot(gradient, vector) * (scale / ((norm + 1e-6) * norm))
    return scale * vector - along * gradient
