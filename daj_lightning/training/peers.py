"""A process of the run that dies takes the others with it, in seconds, and the user is told how to go on.

Lightning starts the other processes of a node and looks after them every five seconds; the one that started them may
then hang in a message to the dead, where no handler and no exception reaches it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver

from daj_lightning.records import LostPeerError

_GRACE_S = 30.0


def end_with_a_line(line: Callable[[], str], is_ending: threading.Event) -> None:
    """When a process that this one started has failed, print the line, end the others and this one.

    Lightning would end them without a word on what to do, and this one by SIGKILL. Does nothing in a process that
    started none.

    Args:
        line: for the user.
        is_ending: this process has an error of its own to tell; it gets half a minute for that.
    """
    for thread in threading.enumerate():
        if isinstance(thread, _ChildProcessObserver):
            thread._terminate_all = partial(_end, thread._child_processes, line, is_ending)  # type: ignore[method-assign]


def _end(children: Sequence[subprocess.Popen[bytes]], line: Callable[[], str], is_ending: threading.Event) -> None:
    if is_ending.is_set():
        time.sleep(_GRACE_S)  # this thread goes with the process
    print(f"error: {line()}", file=sys.stderr, flush=True)
    for child in children:
        child.kill()
    os._exit(LostPeerError.status)  # the main thread may be anywhere
