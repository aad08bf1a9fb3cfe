"""Inner steps by hand, as the training module takes them, for tests of engines."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer
from transformers import Qwen3Config

import oracle
from daj_lightning.bilevel import (
    FlatView,
    GradientBank,
    GradientStore,
    HypergradientEngine,
    RecomputedLoss,
    Setting,
    Window,
    snapshot,
)
from daj_lightning.judge import Judge
from daj_lightning.objectives import DPO
from daj_lightning.records import JudgeBatch
from tiny import make_batch, make_judge, randomize_adapters

K, M = 4, 3
ALPHA = torch.tensor([0.7, 1.4, 0.1, 1.8], dtype=torch.float64)


def double_judge(config: Qwen3Config, *, at_init: bool = False) -> Judge:
    judge = make_judge(config, attention="eager").double()
    if not at_init:
        randomize_adapters(judge)
    return judge


def batches(dtype: torch.dtype = torch.float64, seed: int = 3) -> tuple[JudgeBatch, JudgeBatch]:
    inner, meta = make_batch(K, seed=seed), make_batch(M, seed=seed + 1)
    for batch in (inner, meta):
        object.__setattr__(batch, "reference_logp", batch.reference_logp.to(dtype))
    return inner, meta


def setting(judge: Judge, num_inner: int = K, num_domains: int = 3) -> Setting:
    flat = FlatView(judge.trained_parameters())
    return Setting(flat, num_inner, num_domains, RecomputedLoss(judge, DPO()).at)


def record(judge: Judge, inner: JudgeBatch, weights: Tensor, store: GradientStore) -> Tensor:
    """Raw gradients into the store; losses (K,)."""
    losses = []
    for i, sample in enumerate(inner.micro_batches()):
        loss = DPO()(judge, sample)
        store.open(i, sample)
        loss.sum().backward()
        store.close(i, weights[i : i + 1])
        losses.append(loss.detach())
    return torch.cat(losses)


def bank_of(judge: Judge, inner: JudgeBatch) -> Tensor:
    """(K, P) raw gradients."""
    store = GradientBank(FlatView(judge.trained_parameters()), len(inner))
    record(judge, inner, torch.ones(len(inner)), store)
    return store.rows


def take_inner_step(
    judge: Judge,
    optimizer: Optimizer,
    inner: JudgeBatch,
    weights: Tensor,
    max_norm: float | None = None,
    store: GradientStore | None = None,
) -> Window:
    """One step of the real optimizer along the weighted gradient."""
    flat = FlatView(judge.trained_parameters())
    store = store or GradientBank(flat, len(inner))
    losses = record(judge, inner, weights, store)
    phi = flat.gather(flat.parameters)
    gradient = store.combine(inner, weights)
    window = Window(inner, losses, store.rows, gradient, max_norm, snapshot(optimizer, flat), phi)
    flat.point_gradients_at(window.clipped_gradient)
    optimizer.step()
    flat.release_gradients()
    return window


def meta_gradient(judge: Judge, meta: JudgeBatch) -> Tensor:
    """q (P,) at the judge as it is."""
    flat = FlatView(judge.trained_parameters())
    q = flat.new_zeros()
    flat.point_gradients_at(q)
    for sample in meta.micro_batches():
        (DPO()(judge, sample) / len(meta)).sum().backward()
    flat.release_gradients()
    return q


def take_step(
    judge: Judge, optimizer: Optimizer, inner: JudgeBatch, meta: JudgeBatch, weights: Tensor, max_norm: float | None
) -> tuple[Window, Tensor]:
    """One inner step, and q at the moved judge."""
    window = take_inner_step(judge, optimizer, inner, weights, max_norm)
    return window, meta_gradient(judge, meta)


def credited(engine: HypergradientEngine, window: Window, q: Tensor) -> Tensor:
    """(K,) d L_meta / d alpha of this one window."""
    engine.observe(window)
    return engine(q)[-1].derivative


def warm(judge: Judge, optimizer: Optimizer, num_steps: int, scale: float) -> None:
    """Give the optimizer a history of `num_steps` noisy gradients, without moving the judge."""
    generator = torch.Generator().manual_seed(9)
    before = [p.detach().clone() for p in judge.trained_parameters()]
    for _ in range(num_steps):
        for p in judge.trained_parameters():
            p.grad = scale * torch.randn(p.shape, generator=generator, dtype=p.dtype)
        optimizer.step()
    with torch.no_grad():
        for p, value in zip(judge.trained_parameters(), before, strict=True):
            p.copy_(value)


def gradient_scale(judge: Judge, inner: JudgeBatch) -> float:
    return float(bank_of(judge, inner).mean(dim=0).std())


def adam_state(optimizer: Optimizer, judge: Judge, step: int) -> oracle.AdamState:
    flat = FlatView(judge.trained_parameters())
    if step == 1:
        return oracle.AdamState(flat.new_zeros(), flat.new_zeros(), 1)
    moments = [flat.gather([optimizer.state[p][key] for p in flat.parameters]) for key in ("exp_avg", "exp_avg_sq")]
    return oracle.AdamState(moments[0].clone(), moments[1].clone(), step)


def truth(judge: Judge, update: Callable[[Tensor], Tensor], max_norm: float | None = None) -> Tensor:
    inner, meta = batches()
    alpha = ALPHA.clone().requires_grad_()
    loss = oracle.Oracle(judge, inner, meta).meta_loss(lambda losses: alpha, update, max_norm)
    return torch.autograd.grad(loss, alpha)[0]


def relative_error(got: Tensor, wanted: Tensor) -> float:
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())
