"""Toy runs of float64 judges in one process or several: ranks_run.py PLAN.json; Lightning starts the other processes.

The plan has root, base, out, strategy (single, ddp or fsdp2) and runs, one after the other, since a process needs
seconds to start. A run has name, case and windows; ckpt to go on from, dtype (float64 unless given), and whether
callbacks write reports. `out`/name.pt is left by the first process, or `out`/name.RANK.txt by each: why it ended.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed
from lightning import Callback, seed_everything

from daj_lightning.bilevel import (
    BankEngine,
    DomainWeights,
    FiniteDifferenceEngine,
    HierarchicalWeights,
    InstanceNet,
    InstanceTable,
    JvpEngine,
    TraceEngine,
    Uniform,
)
from daj_lightning.evaluation.callbacks import BeforeAfter, DrawWeights, Scoreboard
from daj_lightning.judge import Judge
from daj_lightning.objectives import DPO, KTO
from daj_lightning.records import DajError, JudgeBatch
from daj_lightning.training import DataReweightedJudge, InfluenceRecorder, Level, ShardedBase, WindowCheckpoint
from daj_lightning.training.reference import reference_logps
from float64 import compute_in_float64
from tiny import randomize_adapters, toy_data, toy_module, toy_trainer

NUM_INNER, NUM_META = 4, 2
MAX_NORM = 0.02
"""Below the norm of every window's gradient."""
POISON = 5
"""Sample."""


class Poisoned(DPO):
    """The loss of one sample is fine, its gradient is not."""

    def __call__(self, judge: Judge, batch: JudgeBatch) -> torch.Tensor:
        loss = super().__call__(judge, batch)
        return loss + (loss - loss.detach()).abs().sqrt() if POISON in batch.sample_ids.tolist() else loss


class Case(NamedTuple):
    module: dict[str, Any]
    """Arguments that are not the toy's."""
    judge: dict[str, Any] = {}  # noqa: RUF012


def case(name: str) -> Case:
    """Of the name, with fresh parts."""
    cases = {
        "none": lambda: Case({"reweighter": Uniform()}),
        "domain": lambda: Case({"reweighter": DomainWeights()}),
        "table": lambda: Case({"reweighter": InstanceTable()}),
        "net": lambda: Case({"reweighter": InstanceNet()}),
        "hierarchical": lambda: Case({"reweighter": HierarchicalWeights()}),
        "trace": lambda: Case({"engine": TraceEngine()}),
        "unrolled": lambda: Case({"reweighter": InstanceTable(), "engine": BankEngine(unroll_windows=2)}),
        "averaged": lambda: Case({"reweighter": InstanceNet(), "meta_every": 2, "meta_decay": 0.5}),
        "jvp": lambda: Case({"reweighter": InstanceTable(), "engine": JvpEngine()}),
        "differences": lambda: Case({"reweighter": InstanceTable(), "engine": FiniteDifferenceEngine()}),
        "kto": lambda: Case({"reweighter": InstanceTable(), "objective": KTO()}),
        "dropout": lambda: Case({"reweighter": InstanceTable()}, {"lora_dropout": 0.2}),
        "checkpointed": lambda: Case({"reweighter": InstanceTable()}, {"gradient_checkpointing": True}),
        "packed": lambda: Case(
            {"reweighter": InstanceTable(), "micro_batch_size": 2, "packing": True}, {"attention": "sdpa"}
        ),
        "normalized": lambda: Case({"reweighter": InstanceNet(features=("loss", "mean_loss"), normalize=True)}),
        "shortened": lambda: Case(
            {"reweighter": InstanceTable(), "micro_batch_size": 2, "max_sample_norm": MAX_NORM},
        ),
        "poisoned": lambda: Case({"objective": Poisoned()}),
        "everything": lambda: Case({}, {"trains": "everything"}),
    }
    return cases[name]()


class Traced(DataReweightedJudge):
    """In the plan's dtype, away from LoRA's B = 0; keeps what every window saw and sent."""

    in_float64 = True

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if self.in_float64:
            self.double()
        randomize_adapters(self.judge)

    def on_train_start(self) -> None:
        super().on_train_start()
        self.losses: list[Any] = []
        self.weights: list[Any] = []
        self.ids: list[list[int]] = []
        self.norms: list[float] = []

    def inner_step(self, inner: JudgeBatch, losses: torch.Tensor, weights: torch.Tensor) -> None:
        if self.ranks.number == 1:
            self.norms.append(float(self.store.combine(inner, weights).norm()))
        super().inner_step(inner, losses, weights)

    def bilevel_step(self, batch: Any) -> None:
        super().bilevel_step(batch)
        assert self.report is not None
        self.losses.append(self.report.losses)
        self.weights.append(self.report.weights)
        self.ids.append(self.report.sample_ids.tolist())


class Numbers(Callback):
    """Counts what the processes tell each other in every window."""

    def __init__(self) -> None:
        self.of_window: list[list[int]] = []
        self._all_reduce = torch.distributed.all_reduce

    def on_train_batch_start(self, *args: Any) -> None:
        self.of_window.append([])

        def counting(tensor: Any, *rest: Any, **more: Any) -> Any:
            self.of_window[-1].append(tensor.numel())
            return self._all_reduce(tensor, *rest, **more)

        torch.distributed.all_reduce = counting

    def on_train_batch_end(self, *args: Any) -> None:
        torch.distributed.all_reduce = self._all_reduce


def strategy(name: str) -> dict[str, Any]:
    """Of the Trainer."""
    if name == "single":
        return {"devices": 1}
    return {"devices": 2, "strategy": "ddp" if name == "ddp" else ShardedBase()}


def reports(directory: Path) -> list[Callback]:
    """What writes files while a run trains."""
    return [
        InfluenceRecorder(str(directory / "influence.parquet"), every_n_windows=2),
        BeforeAfter(str(directory), num_loss_samples=6),
        Scoreboard(str(directory / "scores.json")),
        DrawWeights(str(directory / "weights.png")),
    ]


def run(plan: dict[str, Any], of: dict[str, Any]) -> None:
    seed_everything(0, verbose=False)
    parts = case(of["case"])
    judge = Judge(plan["base"], "float32", lora_r=4, lora_alpha=8, **({"attention": "eager"} | parts.judge))
    # Clipping undoes what all weights do alike, so that an instance net's biases have gradients that cancel, and Adam
    # makes steps of their last digits. A larger beta spreads losses, and a smaller outer rate shortens such steps.
    outer = Level(lr=2e-3, optimizer="lazy_adam")
    arguments = {"judge": judge, "objective": DPO(beta=1.0), "max_norm": MAX_NORM, "outer": outer, **parts.module}
    module = toy_module(Path(plan["base"]), Traced, **arguments)
    module.in_float64 = of.get("dtype", "float64") == "float64"
    out, numbers = Path(plan["out"]), Numbers()
    saves = WindowCheckpoint(str(out / of["name"]), every_n_windows=of.get("every", 6), keep=9)
    data = toy_data(
        Path(plan["root"]), Path(plan["base"]), num_inner=NUM_INNER, num_meta=NUM_META, max_windows=of["windows"]
    )
    callbacks = [saves, numbers, *(reports(out / of["name"]) if of.get("reports") else [])]
    more = {"limit_val_batches": 1} if of.get("reports") else {}
    trainer = toy_trainer(out, callbacks, **strategy(plan["strategy"]), **more)
    try:
        trainer.fit(module, data, ckpt_path=of.get("ckpt"))
    except DajError as error:
        (out / f"{of['name']}.{trainer.global_rank}.txt").write_text(str(error))
        return
    assert not any(hasattr(p, "full_tensor") for p in module.judge.trained_parameters()), "adapters are whole"
    adapters = torch.cat([p.detach().flatten() for p in module.judge.trained_parameters()])
    ends = [e.to(adapters.dtype) for e in module.ranks.gather(adapters)] if trainer.world_size > 1 else [adapters]
    five = copy.copy(data.train_set)  # more than one process has samples
    five.samples = five.samples[:5]
    odd = reference_logps(module.judge, five, out / "odd", module.device, module.ranks)
    everything = data.train_set.batch(range(len(data.train_set)))
    alphas = module.reweighter(everything, torch.linspace(0.1, 2, len(everything), dtype=adapters.dtype)).detach()
    if trainer.is_global_zero:
        left = {
            "alphas": alphas,
            "adapters": adapters,
            "same": all(torch.equal(end, adapters) for end in ends),
            "reweighter": {name: value.clone() for name, value in module.reweighter.state_dict().items()},
            "losses": torch.stack(module.losses),
            "weights": torch.stack(module.weights),
            "ids": module.ids,
            "norms": module.norms,
            "numbers": numbers.of_window,
            "odd_reference": odd,
            "num_outer_steps": module.num_outer_steps,
            "sharded": sum(hasattr(p, "full_tensor") for p in module.judge.parameters()),
        }
        torch.save(left, out / f"{of['name']}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    compute_in_float64()
    the_plan = json.loads(Path(sys.argv[1]).read_text())
    for each in the_plan["runs"]:
        run(the_plan, each)
