"""A toy run in a process of its own, for tests that kill it: resume_run.py ROOT BASE DIRECTORY [last]."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, seed_everything

from daj_lightning.bilevel import InstanceTable
from daj_lightning.training import InfluenceRecorder, WindowCheckpoint, last_checkpoint
from tiny import toy_data, toy_module, toy_trainer

NUM_WINDOWS = 30


class Slowly(Callback):
    """Leaves time to be killed in."""

    def on_train_batch_end(self, *args: Any) -> None:
        time.sleep(0.05)


def main(root: str, base: str, directory: str, ckpt: str | None = None) -> None:
    torch.set_num_threads(1)
    seed_everything(0)
    out = Path(directory)
    module = toy_module(Path(base), reweighter=InstanceTable())
    callbacks = [
        WindowCheckpoint(str(out / "checkpoints"), every_n_windows=4),
        InfluenceRecorder(str(out / "influence.parquet"), every_n_windows=5),
        Slowly(),
    ]
    data = toy_data(Path(root), Path(base), max_windows=NUM_WINDOWS)
    path = None if ckpt is None else str(last_checkpoint(out / "checkpoints"))
    toy_trainer(out, callbacks).fit(module, data, ckpt_path=path)


if __name__ == "__main__":
    main(*sys.argv[1:])
