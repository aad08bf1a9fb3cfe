"""What the comparisons share: one random judge with its samples, the truth about them in float64, counts and tables.

A random Qwen3 (4 layers, width 128, vocabulary 4096, LoRA r = 8 on every projection, moved off B = 0), pairs of
2 x 256 tokens, DPO with beta 0.1 and reference log-probabilities computed once. The base's weights are bfloat16
numbers, so that every precision computes the same function.
Letters: K samples in a window (16), M meta samples (8), P adapter parameters.
"""

from __future__ import annotations

import copy
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple
from unittest import mock

import torch
import transformers
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from bench_step import SHAPES, make_batch
from daj_lightning.bilevel import FlatView
from daj_lightning.judge import Judge
from daj_lightning.objectives import DPO
from daj_lightning.records import JudgeBatch

K, M, LENGTH, INNER_LR = 16, 8, 256, 1e-6
WINDOWS = 8  # inner updates to an outer step in Betty's schedule
VOCABULARY = SHAPES["tiny"]["vocab_size"]
OBJECTIVE = DPO(beta=0.1)


class Precision(NamedTuple):
    """Of a judge's frozen base, of its adapters, and whether its losses run under bfloat16 autocast."""

    base: torch.dtype = torch.float32
    adapters: torch.dtype = torch.float32
    autocast: bool = False


FLOAT64 = Precision(torch.float64, torch.float64)
FLOAT32 = Precision()
PRECISIONS = {
    "float32": FLOAT32,
    "bfloat16 base, float32 adapters": Precision(torch.bfloat16),
    "bfloat16 autocast": Precision(autocast=True),
    "all bfloat16": Precision(torch.bfloat16, torch.bfloat16),
}


@dataclass(frozen=True, eq=False)
class Problem:
    """What every method gets: weights, samples and the inner optimizer."""

    base: dict[str, Tensor]
    adapters: list[Tensor]
    windows: list[JudgeBatch]
    """K samples each."""
    meta: JudgeBatch
    """M samples."""
    adam: dict[str, Any] | None = None
    """State of an Adam after some steps; None: the inner optimizer is SGD."""

    def judge(self, precision: Precision) -> Judge:
        judge = new_judge(self.base, precision.base)
        for parameter, value in zip(judge.trained_parameters(), self.adapters, strict=True):
            parameter.data = value.to(precision.adapters, copy=True)
        return judge

    def optimizer(self, parameters: Sequence[nn.Parameter]) -> Optimizer:
        optimizer = (SGD if self.adam is None else Adam)(parameters, lr=INNER_LR)
        if self.adam is not None:
            optimizer.load_state_dict(copy.deepcopy(self.adam))  # torch would share the moments
        return optimizer


def random_base(dtype: torch.dtype) -> transformers.PreTrainedModel:
    config = transformers.AutoConfig.for_model("qwen3", max_position_embeddings=4096, **SHAPES["tiny"])
    return transformers.AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")


def new_judge(base: dict[str, Tensor], dtype: torch.dtype) -> Judge:
    judge, model = Judge("random", lora_r=8, lora_alpha=16), random_base(dtype)
    model.load_state_dict(base)
    judge.adapt(model)
    return judge


def make_problem(shares_prompt: bool = False) -> Problem:
    torch.manual_seed(0)
    base = {name: value.bfloat16().float() for name, value in random_base(torch.float32).state_dict().items()}
    judge = new_judge(base, torch.float32)
    adapters = [p.detach() + 0.05 * torch.randn_like(p) for p in judge.trained_parameters()]

    def batch(num: int, first_id: int = 0) -> JudgeBatch:
        made = make_batch(num, LENGTH, VOCABULARY, "cpu", shares_prompt)
        with judge.reference():
            logp = torch.stack([judge.response_logp(sample) for sample in made.micro_batches()])
        return replace(made, sample_ids=made.sample_ids + first_id, reference_logp=logp.flatten())

    return Problem(base, adapters, [batch(K, K * w) for w in range(WINDOWS)], batch(M))


@cache
def warmed(problem: Problem, steps: int = 20) -> Problem:
    """The problem after Adam steps on the other windows' samples, four a step."""
    judge = problem.judge(FLOAT32)
    optimizer = Adam(judge.trained_parameters(), lr=INNER_LR)
    others = [sample for window in problem.windows[1:] for sample in window.micro_batches()]
    for s in range(steps):
        optimizer.zero_grad()
        for sample in others[4 * s : 4 * s + 4]:
            (OBJECTIVE(judge, sample) / 4).sum().backward()
        optimizer.step()
    return replace(problem, adapters=[p.detach() for p in judge.trained_parameters()], adam=optimizer.state_dict())


@cache
def truth(problem: Problem) -> Tensor:
    """d L_meta / d alpha (K,) in float64, by autograd through the optimizer's update.

    A sample's raw gradient does not depend on the weights, so nothing else needs a second derivative. Of
    daj_lightning.bilevel this uses `FlatView` only.
    """

    def rms_norm(self: Qwen3RMSNorm, hidden: Tensor) -> Tensor:  # transformers' own computes in float32
        return self.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    def gradient(sample: JudgeBatch) -> Tensor:
        sample = replace(sample, reference_logp=sample.reference_logp.double())
        return flat.gather(torch.autograd.grad(OBJECTIVE(judge, sample).sum(), flat.parameters))

    with mock.patch.object(Qwen3RMSNorm, "forward", rms_norm):
        judge = problem.judge(FLOAT64)
        flat = FlatView(judge.trained_parameters())
        alpha = torch.ones(K, dtype=torch.float64, requires_grad=True)
        g = alpha @ torch.stack([gradient(sample) for sample in problem.windows[0].micro_batches()]) / K
        if problem.adam is None:
            update = INNER_LR * g
        else:
            state = problem.adam["state"]
            m0, v0 = (flat.gather([s[key] for s in state.values()]).double() for key in ("exp_avg", "exp_avg_sq"))
            m, v, t = 0.9 * m0 + 0.1 * g, 0.999 * v0 + 0.001 * g * g, int(state[0]["step"]) + 1
            update = INNER_LR * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        moved = flat.gather(flat.parameters) - update
        for parameter, value in zip(flat.parameters, flat.split(moved.detach()), strict=True):
            parameter.data = value.clone()
        q = torch.stack([gradient(sample) for sample in problem.meta.micro_batches()]).mean(dim=0)
    return torch.autograd.grad(moved @ q, alpha)[0]


class Table(nn.Module):
    """alpha of every sample; both sides weigh with it."""

    def __init__(self, num_samples: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(num_samples))

    def forward(self, batch: JudgeBatch) -> Tensor:
        return self.alpha[batch.sample_ids]


class Claim(NamedTuple):
    """A line of the verdict."""

    text: str
    figure: str
    holds: bool


class Against(NamedTuple):
    """A derivative compared with the truth, both scaled to norm 1: Betty's has neither the rate nor 1/K."""

    reached: int
    cosine: float
    error: float

    @classmethod
    def truth(cls, got: Tensor, wanted: Tensor) -> Against:
        a, b = (v.detach().double() / v.detach().double().norm() for v in (got, wanted))
        return cls(int((got != 0).sum()), float(a @ b), float((a - b).norm()))

    def __str__(self) -> str:
        return f"{self.cosine:.6f} / {self.error:.1e}"


class Passes:
    """Counts samples on their way through the judge, forwards and backwards."""

    def __init__(self, judge: Judge) -> None:
        self.forwards = self.backwards = 0
        judge.causal_lm.get_decoder().register_forward_hook(self._forward, with_kwargs=True)

    def _forward(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        mask = kwargs["attention_mask"]
        num_rows = mask.size(2) if mask.dim() == 4 else len(mask)  # packed rows come with their layout as the mask
        num_samples = num_rows // 2  # chosen and rejected
        self.forwards += num_samples
        if output.last_hidden_state.requires_grad:
            output.last_hidden_state.register_hook(lambda _: self._backward(num_samples))

    def _backward(self, num_samples: int) -> None:
        self.backwards += num_samples


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    print(f"\n### {title}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    print("\n".join(f"| {' | '.join(map(str, row))} |" for row in rows), flush=True)


def span(values: Sequence[float], digits: int = 2) -> str:
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}-{max(values):.{digits}f}]"


class CpuS(NamedTuple):
    """CPU seconds of one step, round by round."""

    user: list[float]
    kernel: list[float]
    """Mostly first touches of pages: next to nothing but for steps of much memory, and there a matter of luck."""


def interleaved(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, CpuS]:
    """Times of each step by name; the first round only warms up, if it is not the last."""
    times = {name: CpuS([], []) for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            before = os.times()
            step()
            after = os.times()
            times[name].user.append(after.user - before.user)
            times[name].kernel.append(after.system - before.system)
    first = 1 if rounds > 1 else 0
    return {name: CpuS(own.user[first:], own.kernel[first:]) for name, own in times.items()}


def ratios(times: Sequence[float], others: Sequence[float]) -> list[float]:
    """Round by round: the two sides of a round meet the same load of the machine."""
    return [a / b for a, b in zip(times, others, strict=True)]
