"""What would spoil a run is refused before it starts, or before it reaches the judge or the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from lightning import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from daj_lightning.bilevel import (
    Credit,
    DomainWeights,
    GradientStore,
    HypergradientEngine,
    PerSampleGradients,
    Reweighter,
)
from daj_lightning.judge import Judge, check_adapter_dtype
from daj_lightning.objectives import Objective
from daj_lightning.records import DajError, JudgeBatch
from daj_lightning.training.ranks import Ranks
from daj_lightning.training.resumable import Resumable
from daj_lightning.training.rollouts import Rollouts
from daj_lightning.training.step import MetaGradient


class NonFiniteError(DajError):
    """A loss or a gradient is NaN or infinite; raised before it reaches the judge."""


def check_numbers(at_least_1: Mapping[str, int], outer_warmup_windows: int, norms: Mapping[str, float | None]) -> None:
    """Refuse counts of nothing, and clipping norms that would stop the judge."""
    norms_hold = all(norm is None or norm > 0 for norm in norms.values())
    if min(at_least_1.values()) < 1 or outer_warmup_windows < 0 or not norms_hold:
        counts, given = (", ".join(f"{name}={value}" for name, value in of.items()) for of in (at_least_1, norms))
        raise DajError(
            f"{counts} must be >= 1, outer_warmup_windows={outer_warmup_windows} >= 0, and {given} > 0 or absent."
        )


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


def splitter_for(size: int, objective: Objective, judge: Judge, apart: bool) -> PerSampleGradients | None:
    """What takes micro-batches of `size` samples apart, if anything has to.

    Args:
        apart: gradients of samples or domains are asked for.
    Raises:
        DajError: the objective or the judge cannot have such micro-batches.
    """
    if size == 1:
        return None
    if objective.unit == "prompt":
        raise DajError(
            f"model.micro_batch_size is {size}, but a sample of {type(objective).__name__} is a batch already: a group "
            f"of responses. Set it to 1, and rows_per_forward of the objective to the rows that fit."
        )
    return PerSampleGradients(judge) if apart else None


def check_rollouts(objective: Objective, rollouts: Rollouts | None) -> None:
    """Refuse to draw responses that nothing learns from."""
    if rollouts is not None and objective.unit != "prompt":
        raise DajError(
            f"model.rollouts is set, but {type(objective).__name__} learns from responses that are there already. "
            f"Leave model.rollouts out, or use GRPO."
        )


def check_outer(run: Resumable, optimizer: str, num_outer: int) -> None:
    """Refuse an optimizer that cannot move the weights, or a run in which they never move."""
    sparse = any(getattr(module, "sparse", False) for module in run.reweighter.modules())
    if sparse and optimizer != "lazy_adam":
        raise DajError(
            f"an instance table has sparse gradients, which {optimizer} does not take. Set model.outer.optimizer to "
            f"lazy_adam."
        )
    if num_outer == 0:
        raise DajError(
            f"no outer step in {run.data.max_windows} windows: outer_warmup_windows={run.outer_warmup_windows}, "
            f"meta_every={run.meta_every}, outer_accumulation={run.outer_accumulation}. Lower them, raise "
            f"data.max_windows, or use the reweighter Uniform."
        )


def check_inner_step(
    inner: JudgeBatch,
    losses: Tensor,
    weights: Tensor,
    gradient: Tensor,
    store: GradientStore,
    ranks: Ranks,
    number: int,
) -> None:
    """Stop before the update, in all processes alike, naming the samples."""
    if gradient.isfinite().all() and losses.isfinite().all():
        return
    bad = ~(losses.isfinite() & weights.isfinite())
    if store.per_sample:
        of_own = torch.stack([~row.isfinite().all() for row in store.rows]).to(losses)
        bad |= ranks.collect(of_own, len(inner)) > 0
    ids = inner.sample_ids
    which = f"samples {ids[bad].tolist()} (losses {losses[bad].tolist()})" if bad.any() else f"one of {ids.tolist()}"
    raise NonFiniteError(
        f"window {number}: loss or gradient is not finite for {which}. Nothing was updated; look at these training "
        f"samples, lower model.inner.lr or set model.max_norm."
    )


def check_processes(trainer: Trainer, answers: bool, stage: str) -> None:
    """Refuse a strategy, or several processes, where they could not do what one does.

    Args:
        answers: the judge's own responses are drawn while it trains.
    """
    check_strategy(type(trainer.strategy).__name__)
    if trainer.world_size == 1:
        return
    if stage != "fit":
        raise DajError(
            f"`{TrainerFn(stage).value}` asks in one process, but this trainer has {trainer.world_size}. Set "
            f"trainer.devices to 1 and trainer.strategy to auto: a checkpoint loads in any number of processes."
        )
    if answers:
        raise DajError(
            f"GRPO trains in one process, but this trainer has {trainer.world_size}: each would need an engine of its "
            f"own. Set trainer.devices to 1, and give the other GPUs to the rollouts (configs/grpo.yaml: VllmServer "
            f"with CUDA_VISIBLE_DEVICES)."
        )


def check_strategy(name: str) -> None:
    """Refuse a strategy that cannot train two levels with a gradient for every sample.

    Args:
        name: of its class, or as `trainer.strategy` abbreviates it.
    """
    for prefix, reason in _REFUSED_STRATEGIES.items():
        if name.lower().startswith(prefix):
            raise DajError(f"trainer.strategy is {name}: {reason}")


_FSDP2 = "configs/strategy/fsdp2.yaml, which shards the frozen base and keeps the adapters whole"
_NO_SCRIPT = "its processes cannot tell the one that started them how they ended, nor stop with it."
_REFUSED_STRATEGIES = {
    "deepspeed": f"Lightning's DeepSpeed takes one optimizer, and judge and weights have one each. Use {_FSDP2}.",
    "fsdp": f"FSDP1 melts adapters and base into flat shards: no sample has a gradient of its own. Use {_FSDP2}.",
    "ddp_spawn": f"{_NO_SCRIPT} Use ddp.",
    "ddp_fork": f"{_NO_SCRIPT} Use ddp.",
    "ddp_notebook": f"{_NO_SCRIPT} Use ddp, from a script.",
    "modelparallel": f"its checkpoints are its own. Use {_FSDP2}: its checkpoints are read under any strategy.",
}
"""How a name begins -> why not, and what else."""


def check_shares(num_processes: int, num_inner: int, num_meta: int) -> None:
    """Refuse batches that do not deal out evenly: the share of one process would weigh more than another's."""
    if num_inner % num_processes or num_meta % num_processes:
        raise DajError(
            f"{num_processes} processes share the samples of a window, and data.num_inner={num_inner} and "
            f"data.num_meta={num_meta} must both be multiples of that. Change them, or trainer.devices."
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
