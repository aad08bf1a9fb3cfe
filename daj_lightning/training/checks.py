"""What would spoil a run is refused before it starts, or before it reaches the judge or the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from daj_lightning.bilevel import Credit, DomainWeights, GradientStore, HypergradientEngine, Reweighter
from daj_lightning.judge import Judge, check_adapter_dtype
from daj_lightning.objectives import Objective
from daj_lightning.records import DajError, JudgeBatch
from daj_lightning.training.step import MetaGradient


class NonFiniteError(DajError):
    """A loss or a gradient is NaN or infinite; raised before it reaches the judge."""


def check_precision(precision: str, adapters: Sequence[nn.Parameter]) -> None:
    """The base has its own dtype; adapters, bank and weights stay float32, unscaled and outside autocast."""
    if precision == "bf16-true":
        check_adapter_dtype([nn.Parameter(p.detach().bfloat16()) for p in adapters])
    if precision != "32-true":
        raise DajError(
            f"trainer.precision is {precision}; the bank needs gradients that nothing casts or scales. Set it to "
            f"32-true, and model.judge.init_args.base_dtype to bfloat16 for a bfloat16 base."
        )


def check_engine(
    engine: HypergradientEngine,
    reweighter: Reweighter,
    judge: Judge,
    num_meta: int,
    max_sample_norm: float | None = None,
) -> None:
    """Refuse an engine and a reweighter, or a judge, that cannot work together."""
    name, weights = type(engine).__name__, type(reweighter).__name__
    learns = any(True for _ in reweighter.parameters())
    if learns and engine.credits_domains and not isinstance(reweighter, DomainWeights):
        raise DajError(
            f"{name} differentiates by the weights of domains, but model.reweighter is {weights}. Use DomainWeights, "
            f"or BankEngine."
        )
    if learns and engine.goes_back and (dropout := judge.dropout()):
        raise DajError(
            f"{name} computes losses a second time, where dropout would drop other units, and the judge has "
            f"{', '.join(dropout)}. Set them to 0, or use BankEngine."
        )
    if learns and max_sample_norm is not None and (engine.credits_domains or engine.goes_back):
        raise DajError(
            f"model.max_sample_norm scales every sample's gradient, and {name} keeps none of them. Use BankEngine, "
            f"or leave max_sample_norm out."
        )
    if reweighter.needs_halves and num_meta < 2:
        raise DajError(f"{weights} compares the two halves of a meta batch: data.num_meta must be >= 2.")


def check_objective(objective: Objective, reweighter: Reweighter, judge: Judge, num_inner: int, num_meta: int) -> None:
    """Refuse windows, weights or a judge that the objective cannot serve."""
    name = type(objective).__name__
    if objective.needs_repeatability and (dropout := judge.dropout()):
        raise DajError(
            f"{name} compares the judge with itself at another time, where dropout would drop other units, and the "
            f"judge has {', '.join(dropout)}. Set them to 0."
        )
    learns = any(True for _ in reweighter.parameters())
    if min(num_inner, num_meta if learns else num_inner) < objective.min_samples:
        raise DajError(
            f"{name} compares the samples of a window with each other: data.num_inner={num_inner} and data.num_meta="
            f"{num_meta} must be >= {objective.min_samples}."
        )
    if reweighter.needs_rewards and objective.unit not in ("response", "prompt"):
        raise DajError(
            f"{type(reweighter).__name__} asks for rewards as features, and a sample of {name} has none. Use the "
            f"feature loss (and response_length) alone, or GRPO."
        )


def check_inner_step(
    inner: JudgeBatch, losses: Tensor, weights: Tensor, gradient: Tensor, store: GradientStore, number: int
) -> None:
    """Stop before the update, naming the samples."""
    if gradient.isfinite().all() and losses.isfinite().all():
        return
    bad = ~(losses.isfinite() & weights.isfinite())
    if store.per_sample:
        bad |= ~torch.stack([row.isfinite().all() for row in store.rows])
    ids = inner.sample_ids
    which = f"samples {ids[bad].tolist()} (losses {losses[bad].tolist()})" if bad.any() else f"one of {ids.tolist()}"
    raise NonFiniteError(
        f"window {number}: loss or gradient is not finite for {which}. Nothing was updated; look at these training "
        f"samples, lower model.inner.lr or set model.max_norm."
    )


def check_credits(credits: Sequence[Credit], meta: MetaGradient | None, number: int) -> None:
    """Stop before the weights move, naming the meta samples."""
    bad = [] if meta is None else meta.sample_ids[~meta.losses.isfinite()].tolist()
    if not bad and all(credit.derivative.isfinite().all() for credit in credits):
        return
    what = f"the meta loss of meta samples {bad}" if bad else "d alpha"
    raise NonFiniteError(
        f"window {number}: after the inner step {what} is not finite. The weights did not move; resume from the last "
        f"checkpoint with a lower model.inner.lr or a smaller model.max_norm."
    )
