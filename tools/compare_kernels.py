"""Does a run compute the same with the extension as with plain torch? Exits 1 where a step differs by more than 1e-5.

    python tools/compare_kernels.py                # after `make quickstart`, whose data and base it uses

Twice: every step of the quickstart is taken by both from the identical state (a forked process takes it with plain
torch), and the first ten windows of two whole runs are compared, in which differences may grow.
Differences are relative, in the L2 norm.
"""

from __future__ import annotations

import argparse
import math
import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning import Callback
from torch import Tensor

from daj_lightning.cli import Cli
from daj_lightning.kernels import kernel_report
from daj_lightning.training import DataReweightedJudge

TOLERANCE = 1e-5

Step = dict[str, Tensor]


def step_of(module: DataReweightedJudge) -> Step:
    """What the last step computed and left behind."""
    report = module.report
    assert report is not None
    step = {
        "losses": report.losses,
        "weights": report.weights,
        "adapters": module.flat.gather(module.flat.parameters),
        "reweighter": torch.cat([p.detach().flatten() for p in module.reweighter.parameters()] or [torch.zeros(0)]),
    }
    return step if report.hypergradient is None else {**step, "hypergradient": report.hypergradient}


def difference(a: Tensor, b: Tensor) -> float:
    """Of b from a, relative to a; infinite where either is no number."""
    norm, gap = float(a.double().norm()), float((b.double() - a.double()).norm())
    if not math.isfinite(norm + gap):
        return math.inf
    return gap / norm if norm else gap


def worst(steps: list[Step], others: list[Step]) -> dict[str, float]:
    """The largest difference of each quantity over the steps of two runs."""
    largest: dict[str, float] = {}
    for step, other in zip(steps, others, strict=True):
        assert step.keys() == other.keys()
        for name, value in step.items():
            largest[name] = max(largest.get(name, 0.0), difference(value, other[name]))
    return largest


@contextmanager
def kernels(mode: str) -> Iterator[None]:
    before = os.environ.get("DAJ_KERNELS")
    os.environ["DAJ_KERNELS"] = mode
    try:
        yield
    finally:
        if before is None:
            del os.environ["DAJ_KERNELS"]
        else:
            os.environ["DAJ_KERNELS"] = before


class Record(Callback):
    """Every step of a run."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.steps.append(step_of(pl_module))


class Twin(Record):
    """Every step, and the same step from the same state by a forked process with plain torch."""

    def __init__(self) -> None:
        super().__init__()
        self.others: list[Step] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        readable, writable = os.pipe()
        self.child = os.fork()
        if self.child == 0:
            os.close(readable)
            try:
                take(pl_module, batch, batch_idx, writable)
            finally:
                os._exit(1)  # nothing of the run's own clean-up
        os.close(writable)
        self.answer = readable

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        super().on_train_batch_end(trainer, pl_module, *args)
        with os.fdopen(self.answer, "rb") as pipe:
            told = pipe.read()
        _, status = os.waitpid(self.child, 0)
        if status != 0:
            raise SystemExit(f"the step {len(self.steps)} with plain torch failed; its error stands above.")
        self.others.append(pickle.loads(told))


def take(module: DataReweightedJudge, batch: Any, batch_idx: int, answer: int) -> None:
    """Take one step with plain torch, without a trace in the logs; answer with it, and leave the process."""
    module._log_step = module._log_meta = lambda *_: None  # type: ignore[method-assign,assignment]
    module.trainer.loggers = []
    with kernels("torch"):
        module.training_step(batch, batch_idx)
    with os.fdopen(answer, "wb") as pipe:
        pickle.dump(step_of(module), pipe)
    os._exit(0)


def train(config: str, windows: int, callback: Record) -> None:
    quiet = ["--trainer.callbacks=null", "--trainer.logger=false", "--trainer.enable_progress_bar=false"]
    cli = Cli(["fit", "--config", config, *quiet, f"--data.max_windows={windows}"], run=False)
    cli.trainer.callbacks.append(callback)  # type: ignore[attr-defined]
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)


def show(title: str, largest: dict[str, float]) -> bool:
    print(f"\n{title}\n\n| quantity | largest relative difference |\n|---|---|")
    for name, value in largest.items():
        print(f"| {name} | {value:.1e} |")
    agree = max(largest.values()) <= TOLERANCE
    print(f"\n{'PASS' if agree else 'FAIL'}  {TOLERANCE:.0e}", flush=True)
    return agree


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the extension with plain torch, step by step.")
    parser.add_argument("--config", default="configs/quickstart.yaml")
    parser.add_argument("--windows", type=int, default=300, help="steps that both take from the identical state")
    parser.add_argument("--apart", type=int, default=10, help="windows of the two runs that go their own ways")
    args = parser.parse_args()
    torch.set_num_threads(1)  # a forked process has no other thread
    print(*kernel_report(), sep="\n")
    if all(use.implementation == "torch" for use in kernel_report()):
        print("FAIL  there is no extension to compare with plain torch")
        return 1
    twin = Twin()
    with kernels("auto"):
        train(args.config, args.windows, twin)
    same = show(f"{args.windows} steps, each from the identical state", worst(twin.others, twin.steps))
    runs = []
    for mode in ("torch", "auto"):
        record = Record()
        with kernels(mode):
            train(args.config, args.apart, record)
        runs.append(record.steps)
    together = show(f"the first {args.apart} windows of two runs", worst(*runs))
    return 0 if same and together else 1


if __name__ == "__main__":
    sys.exit(main())
