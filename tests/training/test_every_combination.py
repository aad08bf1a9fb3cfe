"""Four objectives x four reweighters, five bi-level steps each, every one against its own oracle in float64."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import inner as by_hand
import oracle
from conftest import Prepared
from daj_lightning.bilevel import Credit, DomainWeights, InstanceNet, InstanceTable, Reweighter, Uniform
from daj_lightning.judge import Judge
from daj_lightning.objectives import DPO, GRPO, KTO, ORPO, Objective
from daj_lightning.records import JudgeBatch
from daj_lightning.training import DataReweightedJudge, Level, Rollouts
from tiny import Vowels, randomize_adapters, toy_data, toy_module, toy_trainer

LR, MAX_NORM, WINDOWS = 1e-3, 0.5, 5
EPS = 1e-5
"""Of Adam. At 1e-8 its first step is the gradient's sign, and autograd loses six digits in differentiating that."""


class Recorded(DataReweightedJudge):
    """Keeps what each step saw and did, for the oracle."""

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.double()
        randomize_adapters(self.judge)  # away from LoRA's B = 0

    def on_train_start(self) -> None:
        super().on_train_start()
        self.steps: list[dict[str, Any]] = []

    def inner_step(self, inner: JudgeBatch, losses: Tensor, weights: Tensor) -> None:
        optimizer = self._optimizers()[0].optimizer
        step = {
            "inner": inner,
            "phi": [p.detach().clone() for p in self.judge.trained_parameters()],
            "adam": by_hand.adam_state(optimizer, self.judge, self.num_windows + 1),
            "reweighter": copy.deepcopy(self.reweighter),
        }
        super().inner_step(inner, losses, weights)
        self.steps.append(step | {"moved": self.flat.gather(self.flat.parameters)})

    def draw_at_moved(self, meta: Any) -> JudgeBatch:
        self.steps[-1]["meta"] = super().draw_at_moved(meta)
        return self.steps[-1]["meta"]

    def outer_step(self, credits: list[Credit]) -> None:
        super().outer_step(credits)
        self.steps[-1]["derivative"] = credits[-1].derivative
        self.steps[-1]["gradients"] = [dense(p.grad) for p in self.reweighter.parameters()]


def dense(gradient: Tensor | None) -> Tensor:
    assert gradient is not None
    return gradient.to_dense().clone()


REWEIGHTERS = {
    "none": Uniform,
    "domain": DomainWeights,
    "table": InstanceTable,
    "net": lambda: InstanceNet(features=["loss", "response_length"]),
}
OBJECTIVES = {"dpo": DPO, "kto": KTO, "orpo": ORPO, "grpo": lambda: GRPO(beta=0.1, rows_per_forward=3)}


@pytest.mark.usefixtures("true_float64")
@pytest.mark.parametrize("weights", REWEIGHTERS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_five_steps_equal_the_oracles(prepared: Prepared, tmp_path: Path, objective: str, weights: str) -> None:
    """phi' of every inner step; d L_meta by the weights and by the reweighter's parameters, of every outer step."""
    chosen: Objective = OBJECTIVES[objective]()
    rollouts = Rollouts(group_size=4, max_new_tokens=8, reward=Vowels()) if objective == "grpo" else None
    reweighter: Reweighter = REWEIGHTERS[weights]()
    module = toy_module(
        prepared.base,
        kind=Recorded,
        judge=Judge(str(prepared.base), "float32", lora_r=4, lora_alpha=8, attention="eager"),
        objective=chosen,
        reweighter=reweighter,
        rollouts=rollouts,
        inner=Level(lr=LR, optimizer_args={"eps": EPS}),
        outer=Level(lr=0.05, optimizer="lazy_adam"),
        outer_warmup_windows=0,
        max_norm=MAX_NORM,
    )
    data = toy_data(prepared.root, prepared.base, max_windows=WINDOWS, both_orders=objective == "grpo")
    toy_trainer(tmp_path).fit(module, data)
    assert isinstance(module, Recorded)
    assert len(module.steps) == WINDOWS
    for step in module.steps:
        check(module, chosen, step)


@pytest.mark.usefixtures("true_float64")
@pytest.mark.parametrize("weights", REWEIGHTERS)
def test_five_steps_with_every_sample_clipped_equal_the_oracles(
    prepared: Prepared, tmp_path: Path, weights: str
) -> None:
    """The factors are constants: the derivative is that of the step that is taken."""
    module = toy_module(
        prepared.base,
        kind=Recorded,
        judge=Judge(str(prepared.base), "float32", lora_r=4, lora_alpha=8, attention="eager"),
        objective=DPO(),
        reweighter=REWEIGHTERS[weights](),
        inner=Level(lr=LR, optimizer_args={"eps": EPS}),
        outer=Level(lr=0.05, optimizer="lazy_adam"),
        outer_warmup_windows=0,
        max_norm=0.1,
        max_sample_norm=0.2,
    )
    toy_trainer(tmp_path).fit(module, toy_data(prepared.root, prepared.base, max_windows=WINDOWS))
    assert isinstance(module, Recorded)
    for step in module.steps:
        check(module, DPO(), step)


def check(module: Recorded, objective: Objective, step: dict[str, Any]) -> None:
    reweighter, inner = step["reweighter"], step["inner"]
    with torch.no_grad():
        for parameter, value in zip(module.judge.trained_parameters(), step["phi"], strict=True):
            parameter.copy_(value)
    world = oracle.Oracle(module.judge, inner, step.get("meta", inner), objective, module.max_sample_norm)
    update = oracle.adam(LR, step["adam"], eps=EPS)

    def alphas(losses: Tensor) -> Tensor:
        return reweighter(inner, losses.detach())

    phi = [p.clone().requires_grad_() for p in world.phi]
    moved = world.moved(phi, alphas, update, module.max_norm).detach()
    torch.testing.assert_close(step["moved"], moved, rtol=0, atol=1e-10)
    parameters = list(reweighter.parameters())
    assert ("gradients" in step) == bool(parameters)
    if not parameters:
        return
    alpha = torch.empty(0)

    def kept(losses: Tensor) -> Tensor:
        nonlocal alpha
        alpha = alphas(losses)
        return alpha

    loss = world.meta_loss(kept, update, module.max_norm)
    derivative, *gradients = torch.autograd.grad(loss, [alpha, *parameters])
    scale = float(derivative.abs().max())
    assert scale > 0
    assert float((step["derivative"] - derivative).abs().max()) <= 1e-10 * scale
    for got, wanted in zip(step["gradients"], gradients, strict=True):
        assert float((got - dense(wanted)).abs().max()) <= 1e-10 * scale
