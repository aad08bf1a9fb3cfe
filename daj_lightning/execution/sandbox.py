"""One untrusted program in a process of its own: limits, start, conversation, end.

The work inside is worker.py's. Two modes, written into every verdict:
- "namespaces": own user, network, PID, IPC, UTS and mount namespace. No network, no other process in
  sight, file system read-only but for empty scratch directories, /root and /home empty. When its
  process 1 dies the kernel kills all the rest.
- "rlimits": for hosts that forbid namespaces. Limits, an empty environment and, for root, a user id
  of its own. The network works, files of the host stay readable and, where permissions
  allow, writable; for an ordinary user a process that outruns the clean-up can survive.
Neither hides world-readable files (namespaces: outside /root, /home and the scratch directories),
filters system calls, or bounds the memory of all processes of a test together: RLIMIT_AS is per
process, and memfd files come on top.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from daj_lightning.execution.limits import Limits

WORKER = Path(__file__).with_name("worker.py")
# -S and an environment of our own make the start fast and the same everywhere; -I would ignore the hash seed.
START = (sys.executable, "-S", "-s", str(WORKER))
ENVIRONMENT = {"LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}
START_LIMIT_S = 30.0
SILENCE_LIMIT_S = 10.0
"""Beyond a test's own wall limit: a worker that says nothing for longer was frozen by its program."""
LEAVE_LIMIT_S = 5.0
STOP_INTERVAL_MS = 100
NUM_ANSWER_FRAMES = 3

Mode = Literal["namespaces", "rlimits"]


class SandboxError(RuntimeError):
    """The sandbox itself failed: says nothing about the candidate."""


class Stopped(Exception):
    """The caller asked to stop while a program was running."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one test of one program showed, before anybody compares."""

    output: str
    """Standard output, or the return value as JSON; bytes that are no UTF-8 as lone surrogates."""
    errors: str
    """The end of standard error."""
    exit_code: int
    """Negative: the number of the signal."""
    timed_out: bool
    """By the wall or by the CPU limit."""
    output_too_long: bool
    cpu_s: float
    """Of all processes of the test."""


class Sandbox:
    """Starts sessions. Safe to share between threads.

    Args:
        limits: for each test; None for the defaults.
        mode: None takes namespaces where the host allows them and else warns and takes rlimits.
    Raises:
        SandboxError: the mode cannot start here.
    """

    def __init__(self, limits: Limits | None = None, mode: Mode | None = None) -> None:
        self.limits = limits or Limits()
        self.mode: Mode = mode or "namespaces"
        self.processes = self.limits.processes
        try:
            self.probe()
        except SandboxError as error:
            if mode is not None:
                raise
            warnings.warn(
                f"no namespaces on this host, candidates run under rlimits only: they reach the network and "
                f"the files of {'this host' if os.getuid() == 0 else 'your user'}. Allow user "
                f"namespaces (Linux 5.12 or newer; in Docker a seccomp profile that permits unshare and "
                f"mount). {error}",
                RuntimeWarning,
                stacklevel=2,
            )
            self.mode = "rlimits"
            self.probe()

    def probe(self) -> None:
        """Run one honest program."""
        if self.mode == "rlimits" and os.getuid() != 0:
            # The kernel then counts every process of the user, so the limit can only bound a flood.
            self.processes = count_own_threads() + 16 * self.limits.processes
        with self.session("import json\nprint(input())", None) as session:
            run = session.run("ready")
        if run.output != "ready\n":
            raise SandboxError(f"a test program failed in mode {self.mode}: {run.errors.strip() or run}")

    def session(self, code: str, function_name: str | None, stop: threading.Event | None = None) -> Session:
        """A program ready to be run on inputs; a context manager. `stop` ends a run with `Stopped`."""
        job = {
            "mode": self.mode,
            "code": code.encode("utf-8", "surrogatepass"),
            "function_name": function_name,
            "wall_s": self.limits.test_wall_s,
            "output_bytes": self.limits.output_kib << 10,
            "limits": self.limits.rlimits(self.processes),
        }
        return Session(job, self.limits, stop or threading.Event())


class Session:
    """One worker process and the conversation with it."""

    def __init__(self, job: Mapping[str, object], limits: Limits, stop: threading.Event) -> None:
        self.job = job
        self.limits = limits
        self.stop = stop

    def __enter__(self) -> Self:
        self.directory = tempfile.TemporaryDirectory(prefix="daj-", ignore_cleanup_errors=True)
        try:
            self.worker = subprocess.Popen(
                START,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=self.directory.name,
                env=ENVIRONMENT,
                start_new_session=True,
            )
        except OSError as error:
            self.directory.cleanup()
            raise SandboxError(f"cannot start {START[0]}: {error}. Is it a Python binary?") from error
        assert self.worker.stdin
        assert self.worker.stdout
        self.to_worker, self.from_worker = self.worker.stdin.fileno(), self.worker.stdout.fileno()
        os.set_blocking(self.to_worker, False)
        os.set_blocking(self.from_worker, False)
        deadline = time.monotonic() + START_LIMIT_S
        try:
            self.send(marshal.dumps(dict(self.job)), deadline)
            self.receive(deadline)
        except (EOFError, TimeoutError):
            reason = self.last_words()
            self.close()
            raise SandboxError(reason) from None
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, test_input: str) -> Run:
        """One test. A program that takes its worker down has crashed; one that freezes it has timed out."""
        deadline = time.monotonic() + self.limits.test_wall_s + SILENCE_LIMIT_S
        try:
            self.send(test_input.encode("utf-8", "surrogatepass"), deadline)
            header, output, errors = (self.receive(deadline) for _ in range(NUM_ANSWER_FRAMES))
        except TimeoutError:
            return Run("", "", 0, timed_out=True, output_too_long=False, cpu_s=0.0)
        except EOFError:
            signal_number = -self.worker.wait()
            if signal_number <= 0:
                raise SandboxError(self.last_words()) from None
            return Run("", "the worker was killed", -signal_number, False, False, cpu_s=0.0)
        timed_out, too_long, exit_code, cpu_s = map(float, header.split())
        out_of_cpu = exit_code == -signal.SIGXCPU or (
            exit_code == -signal.SIGKILL and cpu_s >= self.limits.test_cpu_s  # it had ignored SIGXCPU
        )
        return Run(
            output=output.decode("utf-8", "surrogateescape"),
            errors=errors.decode("utf-8", "replace"),
            exit_code=int(exit_code),
            timed_out=bool(timed_out) or out_of_cpu,
            output_too_long=bool(too_long),
            cpu_s=cpu_s,
        )

    def send(self, payload: bytes, deadline: float) -> None:
        view = memoryview(len(payload).to_bytes(8, "little") + payload)
        while view:
            self.wait_for(self.to_worker, select.POLLOUT, deadline)
            try:
                view = view[os.write(self.to_worker, view) :]
            except BrokenPipeError:
                raise EOFError from None

    def receive(self, deadline: float) -> bytes:
        return self.read_exactly(int.from_bytes(self.read_exactly(8, deadline), "little"), deadline)

    def read_exactly(self, size: int, deadline: float) -> bytes:
        parts = []
        while size:
            self.wait_for(self.from_worker, select.POLLIN, deadline)
            part = os.read(self.from_worker, min(size, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def wait_for(self, fd: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(fd, event)
        while not poll.poll(STOP_INTERVAL_MS):
            if self.stop.is_set():
                raise Stopped
            if time.monotonic() > deadline:
                raise TimeoutError

    def last_words(self) -> str:
        """Why a worker failed; ends it if need be."""
        self.kill()
        assert self.worker.stderr
        text = self.worker.stderr.read().decode("utf-8", "replace").strip()
        reason = text.rpartition("\n")[2] or "it said nothing; is the machine overloaded?"
        return f"the sandbox worker ended with status {self.worker.returncode}: {reason}"

    def close(self) -> None:
        """End every process of the session and remove its directory."""
        pipes = self.worker.stdin, self.worker.stdout, self.worker.stderr
        for pipe in pipes:
            assert pipe
            pipe.close()  # the worker's sign to kill what runs and to leave
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.worker.wait(timeout=LEAVE_LIMIT_S)
        self.kill()
        self.directory.cleanup()

    def kill(self) -> None:
        if self.worker.poll() is None:  # once it is reaped, its number may name somebody else
            os.killpg(self.worker.pid, signal.SIGKILL)
            self.worker.wait()


def count_own_threads() -> int:
    """Processes and threads of this user, everywhere on the host."""
    count = 0
    for directory in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it has ended meanwhile, or is no process
            if directory.name.isdecimal() and directory.stat().st_uid == os.getuid():
                count += len(os.listdir(directory / "task"))
    return count
