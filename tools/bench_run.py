"""The whole price of reweighting: CPU time of a real run with weights over the same run without.

    python tools/bench_run.py            # after `make quickstart`, whose data and base it uses

Trains through the command line's own classes, without callbacks; counts process CPU time from the first window
to the last. Variants are interleaved, medians over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from lightning import Callback

from daj_lightning.cli import Cli

VARIANTS = {
    "none": ["--model.reweighter=daj_lightning.bilevel.Uniform"],
    "domain weights, meta_every 1": ["--model.meta_every=1"],
    "domain weights, meta_every 8": ["--model.meta_every=8"],
}


class CpuTime(Callback):
    """Process CPU seconds of the windows."""

    def on_train_start(self, *args: Any) -> None:
        self._start = time.process_time()

    def on_train_end(self, *args: Any) -> None:
        self.seconds = time.process_time() - self._start


def train(config: str, windows: int, overrides: list[str]) -> float:
    quiet = ["--trainer.callbacks=null", "--trainer.logger=false", "--trainer.enable_progress_bar=false"]
    cli = Cli(["fit", "--config", config, *quiet, f"--data.max_windows={windows}", *overrides], run=False)
    clock = CpuTime()
    cli.trainer.callbacks.append(clock)  # type: ignore[attr-defined]
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    return clock.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/quickstart.yaml")
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    times: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(args.rounds):
        for name, overrides in VARIANTS.items():
            times[name].append(train(args.config, args.windows, overrides))
    base = statistics.median(times["none"])
    print(f"\n{args.config}, {args.windows} windows, CPU s, median of {args.rounds} [min-max]\n")
    print("| run | CPU s | over none |")
    print("|---|---|---|")
    for name, own in times.items():
        median = statistics.median(own)
        print(f"| {name} | {median:.1f} [{min(own):.1f}-{max(own):.1f}] | {median / base:.2f} |")


if __name__ == "__main__":
    main()
