"""Asked to stop, a run ends between two windows: which signals ask, and how SLURM is told to queue the job again.

SIGTERM comes from schedulers and `kill`, SIGINT from Ctrl-C, SIGUSR1 from SLURM some time before the end of a job whose
script asks for that (`#SBATCH --signal=USR1@120`). The exit status is 128 + the signal's number, as a shell says it:
143, 130, 138.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterable
from types import FrameType
from typing import Any

import torch
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities import rank_zero_only

from daj_lightning.records import Stopped

_SCONTROL_TIMEOUT_S = 60.0


class StopRequests:
    """Listens for the signals that ask a process to stop.

    While `holds` is true a signal is noted in `received` and nothing else, so that the work in hand comes to its end;
    a second SIGINT is a person who does not want to wait. While it is false the first signal raises `Stopped` wherever
    the process is. Whatever comes after the first is ignored: the state is being saved, or the engine closed.

    Signals that the process was started to ignore (a shell's background jobs) stay ignored.
    """

    def __init__(self, standing: str = "") -> None:
        self.received: signal.Signals | None = None
        self.holds = False
        self.standing = standing
        """A sentence on the state that is left behind, for `Stopped` to say."""
        self.is_saving = False
        """The state is being written: not even a second SIGINT breaks that off."""
        self._before: dict[signal.Signals, Any] = {}

    def listen(self, numbers: Iterable[signal.Signals] = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)) -> None:
        """Take these signals over from whoever has them; does nothing outside the main thread, as Python demands."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in numbers:
            if (handler := signal.getsignal(number)) is not signal.SIG_IGN:
                self._before.setdefault(number, handler)
                signal.signal(number, self._on_signal)

    def release(self) -> None:
        """Give the signals back to those who had them at the first `listen`."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def __enter__(self) -> StopRequests:
        self.listen()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is None or not issubclass(kind, Stopped):
            self.release()
        for number in self._before:  # the process ends now; a handler would not outlive the interpreter
            signal.signal(number, signal.SIG_IGN)

    def agree(self, strategy: Strategy) -> bool:
        """Whether any process of the run was asked to stop; each then knows by which signal."""
        own = torch.tensor(int(self.received or 0), device=strategy.root_device)
        number = int(strategy.reduce(own, reduce_op="max"))
        if number and self.received is None:
            self.received = signal.Signals(number)
        return number > 0

    def stopped(self, which: str = "") -> Stopped:
        """With the line for the user, on the first process of a run."""
        assert self.received is not None
        first = rank_zero_only.rank == 0  # type: ignore[attr-defined]
        told = f"stopped by {which}{self.received.name}. {self.standing}".rstrip() if first else ""
        return Stopped(128 + self.received, told)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        first = self.received is None
        if first:
            self.received = signal.Signals(number)
        if not self.holds and first:
            raise self.stopped()
        if self.holds and not first and number == signal.SIGINT and not self.is_saving:
            self.holds = False
            raise self.stopped("a second ")


def requeue_signal(environment: object) -> signal.Signals | None:
    """The signal after which the job is to be queued again; None outside SLURM, and where it is not to be."""
    if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
        return environment.requeue_signal
    return None


def requeue() -> str:
    """Queue this SLURM job again, and say what came of it. SLURM ends the job soon after, so this comes last.

    Lightning would do it in a signal handler, in the middle of a window, and save a file of its own there.
    """
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=_SCONTROL_TIMEOUT_S)
        failure = " ".join(done.stderr.split()) or f"status {done.returncode}" if done.returncode else None
    except (OSError, subprocess.TimeoutExpired) as error:
        failure = str(error)
    if failure is None:
        return f"SLURM has queued job {job} again."
    return f"`scontrol requeue {job}` failed ({failure}): queue the job again yourself."
