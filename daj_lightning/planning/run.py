"""What a plan is of: sizes of a judge and a run, and the choices that can be made otherwise.

Letters: K samples in a window, M meta samples, P adapter parameters, T windows that the engine follows, D domains.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from transformers import AutoConfig

from daj_lightning.bilevel import BankEngine, HypergradientEngine, JvpEngine, TraceEngine, TrainingSet
from daj_lightning.data import BilevelData, JudgeData
from daj_lightning.data.responses import SampledResponses
from daj_lightning.judge import Judge
from daj_lightning.objectives import GRPO, KTO, ORPO
from daj_lightning.records import DajError
from daj_lightning.rollout import TransformersEngine, VllmColocated
from daj_lightning.training import DataReweightedJudge
from daj_lightning.training.checks import check_shares

Keeps = Literal["rows", "directions", "differences", "tangents", "nothing"]
"""What stands behind the hypergradient: BankEngine, JvpEngine, FiniteDifferenceEngine, TraceEngine, or no weights."""
ASSUMED_SAMPLES = 100_000
"""In the training set, where a reweighter has a weight for each: a plan reads no data."""
ROWS = {"pair": 2, "chosen": 1, "response": 1}
"""Of tokens, in a sample of an objective's unit."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the configuration fixes."""

    judge: Judge
    """On the meta device."""
    base_bytes: int
    """Frozen parameters and buffers."""
    layer_bytes: int
    """Of these, one decoder layer's."""
    num_layers: int
    hidden: int
    vocabulary: int
    attention_width: int
    """Heads times their width: of the queries."""
    cache_width: int
    """Key heads times their width, twice: what a token leaves in a key-value cache of one layer."""
    linear_numbers: int
    """Weights of the decoder's frozen linear layers."""
    base_itemsize: int
    adapters: int
    """P."""
    largest_adapter: int
    adapter_itemsize: int
    shortens_samples: bool
    """There is a `max_sample_norm`."""
    moments: int
    """Tensors of the inner optimizer's state beside each parameter: 2 for Adam."""
    weights: int
    """Parameters of the reweighter."""
    num_inner: int
    """K."""
    num_meta: int
    """M."""
    num_domains: int
    """D."""
    meta_every: int
    max_windows: int
    rows_per_sample: int
    rows_per_prompt: int
    """Fewer, where a sample is a question in both orders; 0 without rollouts."""
    reference_rows: int
    """Of a sample, how often each goes through the judge once more without a graph, in every window (KTO, GRPO)."""
    new_tokens: int
    """Drawn for each row while the judge trains; 0 without rollouts."""
    sequences: int
    """Generated together by this process; 0 where another does, or nobody."""
    reserved: float
    """Share of the device that a colocated engine takes for itself."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What the knobs turn."""

    length: int
    """Tokens of the longest row."""
    scored: int
    """Of these, at most so many are of the response."""
    rows: int
    """Of a forward; packed ones are planned as if they were padded."""
    checkpointing: bool
    keeps: Keeps
    exact: bool
    """The engine's preconditioner."""
    bank_itemsize: int
    unroll_windows: int
    """T."""
    offload: bool
    sequences: int
    """Generated together by this process."""
    devices: int = 1
    sharded: bool = False
    """The frozen layers over all devices (FSDP2); else each has its own (DDP)."""


def read_run(
    module: DataReweightedJudge, data: BilevelData, base: str, devices: int = 1, sharded: bool = False
) -> tuple[Sizes, Choices]:
    """What a configuration's classes say.

    Args:
        base: directory, config.json or hub name whose architecture the judge has.
        devices: that share a window's samples.
        sharded: they share the frozen layers too.
    Raises:
        DajError: the architecture cannot be read, or more devices than samples.
    """
    if not 1 <= devices <= min(data.num_inner, data.num_meta):
        raise DajError(f"--devices {devices}: a window's {data.num_inner} and {data.num_meta} samples need 1 or more.")
    check_shares(devices, data.num_inner, data.num_meta)
    judge = module.judge
    if judge.trains == "everything":
        raise DajError(
            "plan knows judges that train adapters over a frozen base; this one trains everything. Measure a window "
            "(tools/check_plan.py shows how)."
        )
    if judge.model is None:
        _build(module, base)
    causal_lm = judge.causal_lm
    decoder = causal_lm.get_decoder()
    config = causal_lm.config
    adapters = judge.trained_parameters()
    if module.credits_samples:
        module.reweighter.build(TrainingSet(data.domains, ASSUMED_SAMPLES))
    layers = getattr(decoder, "layers", ())
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rollouts, objective = module.rollouts, module.objective
    group = rollouts.group_size if rollouts is not None else ROWS[objective.unit]
    orders = 2 if isinstance(data, JudgeData) and data.both_orders else 1
    per_prompt = group // orders if rollouts is not None else 0
    sequences = 0
    if rollouts is not None and isinstance(rollouts.engine, TransformersEngine):
        sequences = min(rollouts.engine.batch_size, data.num_inner * orders) * per_prompt
    new_tokens = rollouts.sampling.max_new_tokens if rollouts is not None else 0
    sizes = Sizes(
        judge=judge,
        base_bytes=sum(p.nbytes for p in causal_lm.parameters() if not p.requires_grad)
        + sum(b.nbytes for b in causal_lm.buffers()),
        layer_bytes=sum(p.nbytes for p in layers[0].parameters() if not p.requires_grad) if layers else 0,
        num_layers=len(layers),
        hidden=config.hidden_size,
        vocabulary=config.vocab_size,
        attention_width=config.num_attention_heads * head_width,
        cache_width=2 * getattr(config, "num_key_value_heads", config.num_attention_heads) * head_width,
        linear_numbers=sum(
            m.weight.numel() for m in decoder.modules() if isinstance(m, nn.Linear) and not m.weight.requires_grad
        ),
        base_itemsize=next(p.itemsize for p in causal_lm.parameters() if not p.requires_grad),
        adapters=sum(p.numel() for p in adapters),
        largest_adapter=max(p.numel() for p in adapters),
        adapter_itemsize=adapters[0].itemsize,
        shortens_samples=module.max_sample_norm is not None,
        moments=_moments(module, adapters),
        weights=sum(p.numel() for p in module.reweighter.parameters()),
        num_inner=data.num_inner,
        num_meta=data.num_meta,
        num_domains=len(data.domains),
        meta_every=module.meta_every,
        max_windows=data.max_windows,
        rows_per_sample=group,
        rows_per_prompt=per_prompt,
        reference_rows=_reference_passes(module),
        new_tokens=new_tokens,
        sequences=sequences,
        reserved=rollouts.engine.gpu_memory_utilization
        if rollouts and isinstance(rollouts.engine, VllmColocated)
        else 0.0,
    )
    length = _max_length(data)
    response = length if isinstance(objective, ORPO) and objective.nll_on_prompt else _response_tokens(data, length)
    together = group * module.micro_batch_size
    rows = min(objective.rows_per_forward or group, group) if isinstance(objective, GRPO) else together
    engine = module.engine
    choices = Choices(
        length=length,
        scored=min(length - 1, new_tokens or response),
        rows=rows,
        checkpointing=judge.gradient_checkpointing,
        keeps=_keeps(engine) if module.credits_samples else "nothing",
        exact=getattr(engine, "preconditioner", "exact") == "exact",
        bank_itemsize=2 if isinstance(engine, BankEngine) and engine.dtype == "bfloat16" else sizes.adapter_itemsize,
        unroll_windows=engine.unroll_windows if isinstance(engine, BankEngine) else 1,
        offload=isinstance(engine, BankEngine) and engine.offload,
        sequences=sequences,
        devices=devices,
        sharded=sharded,
    )
    return sizes, choices


def _build(module: DataReweightedJudge, base: str) -> None:
    """The judge on the meta device."""
    cold_start = module.cold_start
    with tempfile.TemporaryDirectory() as made:
        if cold_start is not None and not Path(base).exists():  # a base that the run itself will make
            shape = cold_start.architecture | {"vocab_size": cold_start.vocab_size}
            AutoConfig.for_model(**shape).save_pretrained(made)
            base = made
        try:
            with torch.device("meta"):
                module.judge.build_empty(base)
        except DajError:
            raise
        except (OSError, ValueError) as error:
            raise DajError(
                f"cannot read the architecture of {base!r}: {str(error).splitlines()[0]} Give --base a directory with "
                f"the model's config.json, or that file; a plan needs no more of it."
            ) from error


def _keeps(engine: HypergradientEngine) -> Keeps:
    if isinstance(engine, BankEngine):
        return "rows"
    if isinstance(engine, TraceEngine):
        return "tangents"
    return "directions" if isinstance(engine, JvpEngine) else "differences"


def _moments(module: DataReweightedJudge, adapters: list[nn.Parameter]) -> int:
    optimizer = module.inner.make_optimizer(adapters)
    if isinstance(optimizer, torch.optim.SGD):
        return int(optimizer.param_groups[0]["momentum"] != 0)
    return 2


def _reference_passes(module: DataReweightedJudge) -> int:
    objective = module.objective
    if isinstance(objective, GRPO):
        return int(objective.beta > 0) + int(module.engine.goes_back)
    return 2 if isinstance(objective, KTO) else 0  # the judge and the reference, for the divergence


def _max_length(data: BilevelData) -> int:
    length = getattr(data, "max_length", None)
    assert isinstance(length, int), "the data module has no max_length"
    return length


def _response_tokens(data: BilevelData, length: int) -> int:
    """At most, of a response that is on disk already; its end of turn included."""
    if isinstance(data, JudgeData) and isinstance(data.preparation.responses, SampledResponses):
        return min(data.preparation.responses.sampling.max_new_tokens + 1, length)
    return length
