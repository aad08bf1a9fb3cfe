"""Runs one command, and ends it with everything it started: when told to, and when the caller is gone.

A script of its own process, since a trainer that is killed cannot clean up: `python warden.py PID COMMAND...`
ends when PID is no longer its parent. Not the kernel's parent-death signal, which comes already when the
thread ends that started the server. Imports nothing of this package.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from types import FrameType

POLL_S = 0.2
GRACE_S = 10.0
"""Between asking the command to end and killing what is left."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main(caller: int, command: list[str]) -> int:
    """The command's exit status; 128 + SIGTERM if it was ended."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans of the command become children of this process
    signal.signal(signal.SIGTERM, _stop)
    child: subprocess.Popen[bytes] | None = None
    status = 128 + signal.SIGTERM
    try:
        # This process has one thread, so here the kernel's signal means what it says: the warden was killed.
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        )
        while os.getppid() == caller and child.poll() is None:
            time.sleep(POLL_S)
        status = status if child.returncode is None else child.returncode
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end(child)
    return status


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def end(child: subprocess.Popen[bytes] | None) -> None:
    """Ask the child, then kill all descendants; none is left."""
    if child is not None and child.poll() is None:
        child.terminate()
        try:
            child.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
    while True:
        for pid in children():
            os.kill(pid, signal.SIGKILL)  # not yet waited for, so the number is still its own
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def children() -> list[int]:
    """Of this process, adopted ones included."""
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return [int(pid) for pid in file.read().split()]


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
