"""Micro-batches of several samples, padded or packed, compute what samples one by one compute; in float64."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import Prepared
from daj_lightning.bilevel import (
    BankEngine,
    Credit,
    DomainWeights,
    HierarchicalWeights,
    HypergradientEngine,
    InstanceNet,
    InstanceTable,
    JvpEngine,
    Reweighter,
    TraceEngine,
    Uniform,
)
from daj_lightning.judge import Judge
from daj_lightning.objectives import DPO, GRPO, KTO, ORPO, SFT
from daj_lightning.records import DajError, JudgeBatch
from daj_lightning.training import DataReweightedJudge, Level, NonFiniteError, Rollouts
from daj_lightning.training.step import MetaGradient
from inner import relative_error
from runs import Passes, fit
from tiny import randomize_adapters, toy_data, toy_module, toy_trainer

K, M, WINDOWS = 6, 5, 3
"""4 samples and 2 left over; halves of the meta batch of 2 and 3."""
OBJECTIVES = {"dpo": lambda: DPO(nll_weight=0.1), "kto": KTO, "orpo": ORPO, "sft": SFT}
REWEIGHTERS = {
    "none": Uniform,
    "domain": DomainWeights,
    "table": InstanceTable,
    "hierarchical": HierarchicalWeights,
    "net": lambda: InstanceNet(features=["loss", "response_length"]),
}


class Recorded(DataReweightedJudge):
    """Keeps every number that a step hands on."""

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.double()
        randomize_adapters(self.judge)
        self.seen: list[Tensor] = []
        self.meta_lengths: list[float] = []
        """Of the gradients of meta samples one by one."""

    def inner_step(self, inner: JudgeBatch, losses: Tensor, weights: Tensor) -> None:
        self.seen += [losses, weights, self.store.rows.double()]
        super().inner_step(inner, losses, weights)
        self.seen.append(self.flat.gather(self.flat.parameters))

    def accumulate_into(self, gradient: Tensor, samples: JudgeBatch, share: float) -> Tensor:
        before = gradient.clone()
        losses = super().accumulate_into(gradient, samples, share)
        self.meta_lengths.append(float((gradient - before).norm()) / share)
        return losses

    def meta_gradient(self, meta: JudgeBatch) -> MetaGradient:
        gradient = super().meta_gradient(meta)
        self.seen += gradient.gradients
        return gradient

    def outer_step(self, credits: list[Credit]) -> None:
        self.seen += [credit.derivative for credit in credits]
        super().outer_step(credits)
        self.seen.append(torch.cat([parameter.detach().flatten() for parameter in self.reweighter.parameters()]))


def numbers(prepared: Prepared, tmp_path: Path, **arguments: Any) -> list[Tensor]:
    """Of a run: losses, weights, rows, adapters, meta gradients by halves and derivatives of every window."""
    return recorded(prepared, tmp_path, **arguments).seen


def recorded(
    prepared: Prepared, tmp_path: Path, *, num_inner: int = K, checkpointing: bool = False, **arguments: Any
) -> Recorded:
    """A run's module, with its numbers."""
    module = toy_module(
        prepared.base,
        kind=Recorded,
        judge=Judge(str(prepared.base), "float32", lora_r=4, lora_alpha=8, gradient_checkpointing=checkpointing),
        inner=Level(lr=1e-3, optimizer_args={"eps": 1e-5}),  # at 1e-8 Adam's first step is the gradient's sign
        outer=Level(lr=0.05, optimizer="lazy_adam"),
        max_norm=0.5,
        **arguments,
    )
    data = toy_data(prepared.root, prepared.base, num_inner=num_inner, num_meta=M, max_windows=WINDOWS)
    toy_trainer(tmp_path).fit(module, data)
    assert isinstance(module, Recorded)
    return module


def a_norm(prepared: Prepared, tmp_path: Path) -> float:
    """That half of the first window's gradients exceed, and gradients of meta samples too."""
    free = recorded(prepared, tmp_path, reweighter=InstanceTable())
    lengths = free.seen[2].norm(dim=1).tolist()
    norm = statistics.median(lengths)
    assert min(lengths) < norm < max(lengths)
    assert norm < max(free.meta_lengths)
    return norm


def assert_equal(got: list[Tensor], wanted: list[Tensor], bound: float = 1e-12) -> None:
    assert len(got) == len(wanted) >= 4 * WINDOWS
    for one, other in zip(got, wanted, strict=True):
        if other.norm() > 0:  # a domain that has not been met has no derivative
            assert relative_error(one, other) <= bound
        else:
            assert float(one.norm()) == 0


@pytest.mark.usefixtures("true_float64")
class TestEqualsSamplesOneByOne:
    @pytest.mark.parametrize("weights", REWEIGHTERS)
    @pytest.mark.parametrize("objective", OBJECTIVES)
    def test_for_every_objective_and_reweighter(
        self, prepared: Prepared, tmp_path: Path, objective: str, weights: str
    ) -> None:
        def run(**how: Any) -> list[Tensor]:
            torch.manual_seed(0)  # the net starts at random
            reweighter: Reweighter = REWEIGHTERS[weights]()
            return numbers(prepared, tmp_path, objective=OBJECTIVES[objective](), reweighter=reweighter, **how)

        alone = run()
        for packing in (False, True):
            assert_equal(run(micro_batch_size=4, packing=packing), alone)

    @pytest.mark.parametrize(
        "engine",
        [lambda: BankEngine(unroll_windows=2), TraceEngine, JvpEngine],
        ids=["unrolled bank", "trace", "jvp"],
    )
    def test_for_every_engine(self, prepared: Prepared, tmp_path: Path, engine: type[HypergradientEngine]) -> None:
        alone = numbers(prepared, tmp_path, engine=engine())
        for packing in (False, True):
            assert_equal(numbers(prepared, tmp_path, engine=engine(), micro_batch_size=4, packing=packing), alone)

    def test_under_gradient_checkpointing(self, prepared: Prepared, tmp_path: Path) -> None:
        alone = numbers(prepared, tmp_path)
        for packing in (False, True):
            how = {"micro_batch_size": 4, "packing": packing, "checkpointing": True}
            assert_equal(numbers(prepared, tmp_path, **how), alone)

    def test_when_micro_batches_of_one_are_packed(self, prepared: Prepared, tmp_path: Path) -> None:
        assert_equal(numbers(prepared, tmp_path, packing=True), numbers(prepared, tmp_path))

    def test_when_the_whole_window_is_one(self, prepared: Prepared, tmp_path: Path) -> None:
        assert_equal(numbers(prepared, tmp_path, micro_batch_size=100), numbers(prepared, tmp_path))

    @pytest.mark.parametrize(
        "how",
        [
            {"reweighter": InstanceTable},
            {"reweighter": Uniform},
            {"reweighter": InstanceTable, "engine": lambda: BankEngine(unroll_windows=2)},
            {"reweighter": InstanceTable, "engine": lambda: BankEngine(offload=True)},
        ],
        ids=["table", "none", "unrolled bank", "offloaded bank"],
    )
    def test_where_gradients_of_samples_are_shortened(
        self, prepared: Prepared, tmp_path: Path, how: dict[str, Any]
    ) -> None:
        def run(**more: Any) -> list[Tensor]:
            return numbers(prepared, tmp_path, **{name: make() for name, make in how.items()}, **more)

        norm = a_norm(prepared, tmp_path)
        alone = run(max_sample_norm=norm)
        for packing in (False, True):
            assert_equal(run(max_sample_norm=norm, micro_batch_size=4, packing=packing), alone)
        assert relative_error(alone[2], run()[2]) > 1e-3, "the first window is another one"

    def test_for_shortened_rows_in_bfloat16_but_for_their_rounding(self, prepared: Prepared, tmp_path: Path) -> None:
        """A row by itself is rounded once, after it was shortened; one of several before and after."""
        norm = a_norm(prepared, tmp_path)
        alone, together = (
            numbers(
                prepared, tmp_path, engine=BankEngine(dtype="bfloat16"), micro_batch_size=size, max_sample_norm=norm
            )
            for size in (1, 4)
        )
        for one, other in zip(together[:3], alone[:3], strict=True):
            assert relative_error(one, other) <= 2**-8

    def test_for_rows_in_bfloat16_but_for_their_rounding(self, prepared: Prepared, tmp_path: Path) -> None:
        """A number between two of bfloat16's may go to either; one run is then another run, at that precision."""
        alone, together = (
            numbers(prepared, tmp_path, engine=BankEngine(dtype="bfloat16"), micro_batch_size=size, packing=size > 1)
            for size in (1, 4)
        )
        for one, other in zip(together[:3], alone[:3], strict=True):
            assert relative_error(one, other) <= 1e-4


def test_it_takes_as_many_passes_as_micro_batches(prepared: Prepared, tmp_path: Path) -> None:
    passes = Passes()
    fit(prepared, tmp_path, [passes], num_inner=16, num_meta=8, max_windows=3, micro_batch_size=4, packing=True)
    assert passes.windows == [[4, 4], [6, 6], [6, 6]], "the first window is outer warm-up"


class _Poisoned(DPO):
    def __call__(self, judge: Any, batch: JudgeBatch) -> Tensor:
        poison = torch.where(batch.sample_ids == 5, float("nan"), 1.0)
        return super().__call__(judge, batch) * poison


@pytest.mark.parametrize("packing", [False, True])
def test_a_loss_that_is_not_finite_still_names_its_sample_alone(
    prepared: Prepared, tmp_path: Path, packing: bool
) -> None:
    module = toy_module(prepared.base, objective=_Poisoned(), micro_batch_size=4, packing=packing)
    with pytest.raises(NonFiniteError, match=r"samples \[5\]"):
        toy_trainer(tmp_path).fit(module, toy_data(prepared.root, prepared.base, max_windows=50))


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        ({"objective": GRPO(), "rollouts": Rollouts(group_size=2, max_new_tokens=8)}, "rows_per_forward"),
        ({"judge": "everything"}, r"model\.micro_batch_size to 1"),
        (
            {"judge": "everything", "reweighter": Uniform(), "max_sample_norm": 0.3},
            r"model\.micro_batch_size to 1",
        ),
        ({"micro_batch_size": 0}, "micro_batch_size=0, outer_accumulation=1 must be >= 1"),
    ],
    ids=["a group is a batch already", "no adapters", "no adapters and a norm", "none"],
)
def test_what_cannot_have_them_is_refused_before_training(
    prepared: Prepared, tmp_path: Path, arguments: dict[str, Any], remedy: str
) -> None:
    if "judge" in arguments:
        arguments = {"judge": Judge(str(prepared.base), "float32", trains="everything")}
    with pytest.raises(DajError, match=remedy):
        fit(prepared, tmp_path, **{"micro_batch_size": 2, **arguments})


def test_a_judge_without_adapters_may_have_them_where_nothing_credits_samples(
    prepared: Prepared, tmp_path: Path
) -> None:
    """Then nothing needs a sample's gradient: one weighted backward a micro-batch."""
    finals = []
    for size in (1, 4):
        torch.manual_seed(0)
        judge = Judge(str(prepared.base), "float32", trains="everything")
        inner = Level(lr=1e-3, optimizer="sgd")
        fit(prepared, tmp_path, judge=judge, reweighter=Uniform(), inner=inner, max_windows=3, micro_batch_size=size)
        finals.append(torch.cat([p.detach().flatten() for p in judge.trained_parameters()]))
    assert relative_error(*finals) <= 1e-6
