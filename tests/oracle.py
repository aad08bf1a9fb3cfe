"""The truth in float64: differentiate straight through the inner step.

Every optimizer is written again as a differentiable function of the window gradient, so that autograd
through `phi - u(C(sum_i alpha_i g_i / K))` owes nothing to the closed forms under test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.func import functional_call

from daj_lightning.judge import Judge
from daj_lightning.kernels import LinearLogprob
from daj_lightning.objectives import DPO, Objective
from daj_lightning.records import JudgeBatch


@dataclass
class AdamState:
    m0: Tensor
    v0: Tensor
    step: int
    """Number of the step about to be taken, from 1."""


def sgd(lr: float) -> Callable[[Tensor], Tensor]:
    return lambda g: lr * g


def momentum(lr: float, mu: float, buffer: Tensor, nesterov: bool = False) -> Callable[[Tensor], Tensor]:
    def update(g: Tensor) -> Tensor:
        new = mu * buffer + g
        return lr * (g + mu * new if nesterov else new)

    return update


def adam(
    lr: float, state: AdamState, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> Callable[[Tensor], Tensor]:
    b1, b2 = betas

    def update(g: Tensor) -> Tensor:
        m = b1 * state.m0 + (1 - b1) * g
        v = b2 * state.v0 + (1 - b2) * g * g
        # sqrt has no derivative at 0; there the step is lr g (1 - b1) / (bc1 eps) to first order.
        positive = v > 0
        root = torch.where(positive, v, torch.ones_like(v)).sqrt() * positive
        return lr * (m / (1 - b1**state.step)) / (root / (1 - b2**state.step) ** 0.5 + eps)

    return update


def clip(g: Tensor, max_norm: float | None) -> Tensor:
    if max_norm is None:
        return g
    return g * torch.clamp(max_norm / (g.norm() + 1e-6), max=1.0)


def shortened(rows: Tensor, max_sample_norm: float | None) -> Tensor:
    """(B,) by how much each of the rows (B, P) is scaled down; a constant."""
    lengths = rows.detach().norm(dim=1)
    return torch.ones_like(lengths) if max_sample_norm is None else (max_sample_norm / lengths).clamp(max=1.0)


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Inside, judges keep their logits: the fused pass has no second derivatives, and says so."""

    def by_logits(hidden: Tensor, weight: Tensor, targets: Tensor, **unused: Any) -> LinearLogprob:
        logits = hidden @ weight.T
        logp = logits.log_softmax(dim=1).gather(1, targets[:, None]).squeeze(1)
        return LinearLogprob(logp, logits.logsumexp(dim=1), u=None, entropy=None)

    with mock.patch("daj_lightning.judge.model.fused_linear_logprob", by_logits):
        yield


class Oracle:
    """Meta loss after one weighted inner step, as a differentiable function of the weights.

    Where samples are clipped, each loss of either level stands beside a factor that scales its gradient down and is
    itself no function of anything.
    """

    def __init__(
        self,
        judge: Judge,
        inner: JudgeBatch,
        meta: JudgeBatch,
        objective: Objective | None = None,
        max_sample_norm: float | None = None,
    ) -> None:
        self.judge, self.inner, self.meta = judge, inner, meta
        self.max_sample_norm = max_sample_norm
        named = [(n, p) for n, p in judge.named_parameters() if p.requires_grad]
        self.names = [n for n, _ in named]
        self.phi = [p.detach().clone() for _, p in named]
        self.objective = objective or DPO()

    def losses(self, phi: Sequence[Tensor], batch: JudgeBatch) -> Tensor:
        """(B,), one forward a sample, differentiable in phi."""
        module = _Losses(self.judge, self.objective)
        parameters = {f"judge.{name}": value for name, value in zip(self.names, phi, strict=True)}
        return torch.cat([functional_call(module, parameters, (sample,)) for sample in batch.micro_batches()])

    def meta_loss(
        self, weights: Callable[[Tensor], Tensor], update: Callable[[Tensor], Tensor], max_norm: float | None = None
    ) -> Tensor:
        """`weights` maps the window's losses (K,), still attached, to (K,) alphas."""
        phi = [p.clone().requires_grad_() for p in self.phi]
        parts = self.split(self.moved(phi, weights, update, max_norm))
        losses = self.losses(parts, self.meta)
        return (shortened(self.rows(losses, parts), self.max_sample_norm) * losses).mean()

    def rows(self, losses: Tensor, phi: Sequence[Tensor]) -> Tensor:
        """(B, P) gradients of losses (B,)."""
        own = [torch.autograd.grad(loss, phi, retain_graph=True) for loss in losses]
        return torch.stack([torch.cat([g.flatten() for g in gradients]) for gradients in own])

    def moved(
        self,
        phi: Sequence[Tensor],
        weights: Callable[[Tensor], Tensor],
        update: Callable[[Tensor], Tensor],
        max_norm: float | None = None,
    ) -> Tensor:
        """phi' (P,)."""
        losses = self.losses(phi, self.inner)
        rows = self.rows(losses, phi)
        rows = shortened(rows, self.max_sample_norm)[:, None] * rows
        gradient = (weights(losses)[:, None] * rows).mean(dim=0)
        return torch.cat([p.flatten() for p in phi]) - update(clip(gradient, max_norm))

    def split(self, flat: Tensor) -> list[Tensor]:
        parts = flat.split([p.numel() for p in self.phi])
        return [part.view_as(p) for part, p in zip(parts, self.phi, strict=True)]


class _Losses(nn.Module):
    def __init__(self, judge: Judge, objective: Objective) -> None:
        super().__init__()
        self.judge, self.objective = judge, objective

    def forward(self, batch: JudgeBatch) -> Tensor:
        return self.objective(self.judge, batch)
