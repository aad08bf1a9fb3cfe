"""Kills processes once the caller is gone: `python reaper.py CALLER PID...`.

For those that outlive a parent which is killed, as vLLM's engine does, with the GPU's memory. Imports nothing of this
package.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

POLL_S = 0.2


def main(caller: int, pids: list[int]) -> None:
    descriptors = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            descriptors.append(os.pidfd_open(pid))  # a number may be given to another process, a descriptor may not
    while os.getppid() == caller:
        time.sleep(POLL_S)
    for descriptor in descriptors:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]), [int(pid) for pid in sys.argv[2:]])
