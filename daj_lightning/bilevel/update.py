"""What the inner optimizer does to a gradient, and how its update and its state move when the gradient moves.

u(g) is the update: phi' = phi - u(C(g)), C the clipping. J = du/dg is elementwise for SGD and Adam and
is evaluated after clipping; C has a closed form that is symmetric, so C^T = C (spec, section 6).
Over several steps the optimizer's state carries a gradient on: `pull_back` takes adjoints backwards through
one step, `push_forward` tangents forwards. Both leave the loss's Hessian out, whose part is of the order of
the learning rate (research: 1.3e-5 at 1e-6 over four steps; leaving the state out too: 0.67).
Letters: K samples in a window, P adapter parameters; s and D of Adam as in kernels/adam.py.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from daj_lightning.bilevel.flat import FlatView
from daj_lightning.kernels import AdamJacobian, grad_bank_dot, grad_bank_dot_adam
from daj_lightning.records import DajError

Preconditioner = Literal["exact", "frozen", "identity"]


class Carried(NamedTuple):
    """What one step hands to the next (tangents) or to the one before (adjoints); several at once as (D, P)."""

    phi: Tensor
    """(P,) or (D, P) of the adapters."""
    state: tuple[Tensor, ...]
    """The same each, of the optimizer's state: a momentum buffer, or the first and the second moment."""


class Update(Protocol):
    """The state of the inner optimizer just before a step, enough to differentiate that step."""

    def jacobian(self, gradient: Tensor, preconditioner: Preconditioner) -> Tensor | float:
        """The diagonal of du/dg at the clipped gradient (P,): (P,), or one number for all."""
        ...

    def dot_rows(self, rows: Tensor, vector: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """(K,) <y, row> for rows (K, P), and () <y, gradient>; y = J o vector, J exact at the clipped gradient (P,)."""
        ...

    def at_rest(self, phi: Tensor) -> Carried:
        """`phi`, (P,) or (D, P), beside a state of zeros."""
        ...

    def pull_back(self, gradient: Tensor, after: Carried) -> tuple[Tensor, Carried]:
        """Adjoints after the step -> adjoint (P,) of the clipped gradient, and adjoints before the step."""
        ...

    def push_forward(self, gradient: Tensor, gradient_tangent: Tensor, before: Carried) -> Carried:
        """Tangents before the step, and of the clipped gradient, (P,) or (D, P) each -> tangents after the step."""
        ...


@dataclass(frozen=True, slots=True)
class SgdUpdate:
    """SGD, with or without momentum: buffer' = mu buffer + entering g."""

    lr: float
    mu: float
    entering: float
    """Of a gradient into the buffer: 1 - dampening, 1 in the first step."""
    nesterov: bool

    def jacobian(self, gradient: Tensor, preconditioner: Preconditioner) -> float:
        if preconditioner == "identity":
            return self.lr
        return self.lr * (1 + self.mu * self.entering if self.nesterov else self.entering)

    def dot_rows(self, rows: Tensor, vector: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        jacobian = self.jacobian(gradient, "exact")
        return jacobian * grad_bank_dot(rows, vector), jacobian * (vector @ gradient)

    def at_rest(self, phi: Tensor) -> Carried:
        return Carried(phi, (torch.zeros_like(phi),))

    def pull_back(self, gradient: Tensor, after: Carried) -> tuple[Tensor, Carried]:
        (buffer,) = after.state
        of_gradient = self.entering * buffer - self.jacobian(gradient, "exact") * after.phi
        return of_gradient, Carried(after.phi, (self.mu * (buffer - self._moves * after.phi),))

    def push_forward(self, gradient: Tensor, gradient_tangent: Tensor, before: Carried) -> Carried:
        (buffer,) = before.state
        update = self.jacobian(gradient, "exact") * gradient_tangent + self._moves * self.mu * buffer
        return Carried(before.phi - update, (self.mu * buffer + self.entering * gradient_tangent,))

    @property
    def _moves(self) -> float:
        """du / d buffer'."""
        return self.lr * self.mu if self.nesterov else self.lr


@dataclass(frozen=True, slots=True)
class AdamUpdate:
    """Adam without coupled weight decay; decoupled decay (AdamW) does not depend on the gradient."""

    lr: float
    beta1: float
    beta2: float
    eps: float
    kept: float
    """phi' = kept phi - u: 1 - lr weight_decay for AdamW, 1 for Adam."""
    step: int
    """1 in the first step."""
    m0: Tensor
    """(P,) first moment before the step."""
    v0: Tensor
    """(P,) second moment before the step."""

    def jacobian(self, gradient: Tensor, preconditioner: Preconditioner) -> Tensor | float:
        """exact: du/dg; frozen: lr / D, moments held fixed; identity: lr, as Betty does."""
        if preconditioner == "identity":
            return self.lr
        exact = self._exact(gradient)
        return exact.diagonal() if preconditioner == "exact" else self.lr / (exact.root() + self.eps)

    def dot_rows(self, rows: Tensor, vector: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return grad_bank_dot_adam(rows, vector, self._exact(gradient))

    def at_rest(self, phi: Tensor) -> Carried:
        return Carried(phi, (torch.zeros_like(phi), torch.zeros_like(phi)))

    def pull_back(self, gradient: Tensor, after: Carried) -> tuple[Tensor, Carried]:
        m, v = after.state
        of_m, of_v = self._moment_jacobians(gradient)
        # The step's own part through J, which does not cancel at step 1; the carried parts beside it.
        of_gradient = (1 - self.beta1) * m + 2 * (1 - self.beta2) * gradient * v
        of_gradient -= self.jacobian(gradient, "exact") * after.phi
        moments = (self.beta1 * (m - of_m * after.phi), self.beta2 * (v - of_v * after.phi))
        return of_gradient, Carried(self.kept * after.phi, moments)

    def push_forward(self, gradient: Tensor, gradient_tangent: Tensor, before: Carried) -> Carried:
        m, v = (self.beta1 * before.state[0], self.beta2 * before.state[1])
        of_m, of_v = self._moment_jacobians(gradient)
        update = self.jacobian(gradient, "exact") * gradient_tangent + of_m * m + of_v * v
        m += (1 - self.beta1) * gradient_tangent
        v += 2 * (1 - self.beta2) * gradient * gradient_tangent
        return Carried(self.kept * before.phi - update, (m, v))

    def _exact(self, gradient: Tensor) -> AdamJacobian:
        return AdamJacobian(gradient, self.m0, self.v0, self.lr, self.beta1, self.beta2, self.eps, self.step)

    def _moment_jacobians(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """du/dm and du/dv at the moments after the step, (P,) each; du/dv is 0 where v is."""
        bc1, bc2 = 1 - self.beta1**self.step, 1 - self.beta2**self.step
        s = self._exact(gradient).root()
        of_m = self.lr / bc1 / (s + self.eps)
        m = self.beta1 * self.m0 + (1 - self.beta1) * gradient
        of_v = torch.where(s == 0, 0.0, -of_m * m / (s + self.eps) / (2 * bc2 * s))
        return of_m, of_v


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
        return SgdUpdate(lr, mu, entering, group["nesterov"])
    b1, b2 = (float(beta) for beta in group["betas"])
    kept = 1 - lr * group["weight_decay"]
    if not first_state:
        return AdamUpdate(lr, b1, b2, group["eps"], kept, 1, flat.new_zeros(), flat.new_zeros())
    moments = [flat.gather([optimizer.state[p][key] for p in flat.parameters]) for key in ("exp_avg", "exp_avg_sq")]
    return AdamUpdate(lr, b1, b2, group["eps"], kept, int(first_state["step"]) + 1, *moments)


_UPDATES: dict[str, type[SgdUpdate] | type[AdamUpdate]] = {"sgd": SgdUpdate, "adam": AdamUpdate}


def update_state(update: Update) -> dict[str, Any]:
    """Plain numbers and tensors, for a checkpoint."""
    (kind,) = (kind for kind, known in _UPDATES.items() if isinstance(update, known))
    return {"kind": kind, **asdict(update)}  # type: ignore[call-overload]


def update_from_state(state: dict[str, Any]) -> Update:
    return _UPDATES[state["kind"]](**{name: value for name, value in state.items() if name != "kind"})


def check_optimizer(optimizer: Optimizer) -> None:
    """Refuse, before training, an inner optimizer that cannot be differentiated."""
    if not isinstance(optimizer, (SGD, Adam, AdamW)):
        raise DajError(
            f"the inner optimizer is {type(optimizer).__name__}; the hypergradient knows the Jacobian of SGD, "
            f"Adam and AdamW. Choose one of these in model.inner.optimizer."
        )
    (group,) = optimizer.param_groups
    coupled = group["weight_decay"] != 0 and not isinstance(optimizer, AdamW)
    if isinstance(optimizer, (Adam, AdamW)) and not group["eps"] > 0:
        raise DajError(
            f"the inner {type(optimizer).__name__} has eps={group['eps']}; where a gradient is 0, as LoRA's first ones "
            f"are, its step is then 0 / 0. Set a positive eps."
        )
    if coupled or group.get("amsgrad") or group.get("maximize"):
        raise DajError(
            f"the inner {type(optimizer).__name__} uses coupled weight decay, amsgrad or maximize, whose "
            f"Jacobian is not elementwise in the gradient alone. Use AdamW for weight decay, and leave the others off."
        )


def clipped(gradient: Tensor, max_norm: float | None) -> Tensor:
    """The gradient (P,) times `torch.nn.utils.clip_grad_norm_`'s min(1, c / (n + 1e-6)); itself where that is 1."""
    scale = 1.0 if max_norm is None else min(1.0, max_norm / (float(gradient.norm()) + 1e-6))
    return gradient if scale == 1.0 else gradient * scale


def clip_factors(gradient: Tensor, max_norm: float | None) -> tuple[float, float] | None:
    """(a, b) of C^T y = a y - b <g, y> g, for the gradient g (P,) before clipping; None where clipping is inactive."""
    norm = float(gradient.norm())
    if max_norm is None or max_norm / (norm + 1e-6) >= 1.0:
        return None
    scale = max_norm / (norm + 1e-6)
    return scale, scale / ((norm + 1e-6) * norm)


def clip_vjp(vector: Tensor, gradient: Tensor, max_norm: float | None) -> Tensor:
    """C^T vector, (..., P), for the gradient (P,) before clipping; `vector` itself where clipping is inactive."""
    factors = clip_factors(gradient, max_norm)
    if factors is None:
        return vector
    scale, along = factors
    return scale * vector - (along * (vector @ gradient))[..., None] * gradient
