"""Whole runs side by side: the price of reweighting, and what larger micro-batches save.

    python tools/bench_run.py            # after `make quickstart`, whose data and base it uses
    python tools/bench_run.py --only micro-batches --windows 15 --rounds 5

Trains through the command line's own classes, without callbacks; counts CPU time in user mode from the first window
to the last. Variants are interleaved, medians over rounds; ratios are taken round by round, so that both sides met the
same load of the machine.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import torch
from lightning import Callback

from daj_lightning.cli import Cli
from measure import ratios, span

WEIGHTS = {
    "none": ["--model.reweighter=daj_lightning.bilevel.Uniform"],
    "domain weights, meta_every 1": ["--model.meta_every=1"],
    "domain weights, meta_every 8": ["--model.meta_every=8"],
}
PACKED, BFLOAT16 = "--model.packing=true", "--model.engine.init_args.dtype=bfloat16"
MICRO_BATCHES = {
    "1, padded": [],
    "4, padded": ["--model.micro_batch_size=4"],
    "16, padded": ["--model.micro_batch_size=16"],
    "1, packed": [PACKED],
    "4, packed": ["--model.micro_batch_size=4", PACKED],
    "16, packed": ["--model.micro_batch_size=16", PACKED],
    "4, packed, bfloat16 bank": ["--model.micro_batch_size=4", PACKED, BFLOAT16],
}
TABLES = {"weights": WEIGHTS, "micro-batches": MICRO_BATCHES}


class UserTime(Callback):
    """CPU seconds of the windows in user mode, and the samples that passed through the judge, inner and meta."""

    def on_train_start(self, *args: Any) -> None:
        self.samples, self._start = 0, os.times().user

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        meta_is_due = module.credits_samples and module.meta_is_due(module.num_windows)
        self.samples += len(batch.inner) + meta_is_due * len(batch.meta)

    def on_train_end(self, *args: Any) -> None:
        self.seconds = os.times().user - self._start


def train(config: str, windows: int, overrides: list[str]) -> UserTime:
    quiet = ["--trainer.callbacks=null", "--trainer.logger=false", "--trainer.enable_progress_bar=false"]
    cli = Cli(["fit", "--config", config, *quiet, f"--data.max_windows={windows}", *overrides], run=False)
    clock = UserTime()
    cli.trainer.callbacks.append(clock)  # type: ignore[attr-defined]
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    return clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/quickstart.yaml")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.only:
        variants = TABLES[name]
        times: dict[str, list[float]] = {variant: [] for variant in variants}
        samples = dict[str, int]()
        for _ in range(args.rounds):
            for variant, overrides in variants.items():
                clock = train(args.config, args.windows, overrides)
                times[variant].append(clock.seconds)
                samples[variant] = clock.samples
        first, *_ = variants
        print(f"\n{args.config}, {args.windows} windows, 1 thread, median of {args.rounds} rounds [min-max]\n")
        print(f"| {name} | user CPU s | over {first} | samples a user CPU s | over {first} |")
        print("|---|---|---|---|---|")
        rates = {variant: [samples[variant] / second for second in own] for variant, own in times.items()}
        for variant, own in times.items():
            took, over = span(own, 1), span(ratios(own, times[first]))
            rate, faster = span(rates[variant], 1), span(ratios(rates[variant], rates[first]))
            print(f"| {variant} | {took} | {over} | {rate} | {faster} |", flush=True)


if __name__ == "__main__":
    main()
