"""Callbacks and rewards that bring a run into trouble, for drills: a configuration names them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback

_SMALL_BYTES = 16 * 2**20


class Slowly(Callback):
    """Leaves time to be met by a signal in."""

    def on_train_batch_start(self, *args: Any) -> None:
        time.sleep(0.05)


class Waits(Callback):
    """Says that a place of the run is reached, and stays there until it is sent on, a minute at most.

    Args:
        hook: of Lightning's, e.g. on_train_batch_start.
        window: number of windows done, there.
        directory: a file "there" appears in it; a file "on" sends the run on.
    """

    def __init__(self, hook: str, window: int, directory: str) -> None:
        self.window = window
        self.directory = Path(directory)
        setattr(self, hook, self.wait)

    def wait(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if pl_module.num_windows != self.window or (self.directory / "on").exists():
            return
        (self.directory / "there").touch()
        until = time.monotonic() + 60
        while not (self.directory / "on").exists() and time.monotonic() < until:
            time.sleep(0.02)


class RunsOutOfMemory(Callback):
    """On a GPU, as torch says it; on the CPU by asking for more than any machine has."""

    def __init__(self, window: int, device: str) -> None:
        self.window = window
        self.device = device

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if pl_module.num_windows != self.window:
            return
        if self.device == "cpu":
            torch.empty(2**60, dtype=torch.uint8)
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.2 GiB "
            "is free. Including non-PyTorch memory, this process has 77.90 GiB memory in use."
        )


class FillsTheDisk(Callback):
    """Takes all room of a small disk but so many bytes once a window is done, and gives it back at a later one.

    Of any other disk it takes nothing: a run that goes on without the small one is on the machine's.
    """

    def __init__(self, directory: str, window: int, but_bytes: int = 0, until: int = 10**9) -> None:
        self.filler = Path(directory) / "filler"
        self.window, self.but_bytes, self.until = window, but_bytes, until

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        disk = os.statvfs(self.filler.parent)
        if disk.f_blocks * disk.f_frsize > _SMALL_BYTES:
            return
        if pl_module.num_windows == self.window:
            self.filler.write_bytes(bytes(max(0, disk.f_bavail * disk.f_frsize - self.but_bytes)))
        if pl_module.num_windows == self.until:
            self.filler.unlink()
