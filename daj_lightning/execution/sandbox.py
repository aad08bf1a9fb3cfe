"""One untrusted program in a process of its own: limits, start, conversation, end.

The work inside is worker.py's. Three modes, written into every verdict:
- "namespaces": the worker makes its own user, network, PID, IPC, UTS, cgroup and mount namespace and a root
  directory that holds libraries, an interpreter and empty scratch directories (isolation.py, layout.py). When
  its process 1 dies the kernel kills all the rest. The default: it needs no program installed.
- "bubblewrap": bwrap makes the same world. For ordinary users on hosts that allow namespaces to
  bwrap alone (Ubuntu 24.04).
- "unsafe-local": limits, an empty environment and, for root, a user id of its own. The network works, files
  of the host stay readable and, where permissions allow, writable; for an ordinary user a process that
  outruns the clean-up can survive. Only on demand.
What is promised, and what is not: docs/security.md.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from daj_lightning.execution import cgroup
from daj_lightning.execution.isolation import PATIENCE, RETURNED, STDOUT
from daj_lightning.execution.layout import bubblewrap_command, interpreter, layout
from daj_lightning.execution.limits import Limits
from daj_lightning.records import DajError

WORKER = Path(__file__).with_name("worker.py")
# -S and an environment of our own make the start fast and the same everywhere; -I would ignore the hash seed.
START: Sequence[str] = ("-S", "-s", "-B", str(WORKER))
ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
}
START_LIMIT_S = 30.0
SILENCE_LIMIT_S = 10.0
"""Beyond a test's own wall limit: a worker that says nothing for longer was frozen by its program."""
LEAVE_LIMIT_S = 5.0
STOP_INTERVAL_MS = 100
NUM_ANSWER_FRAMES = 3
NUM_OWN_PROCESSES = 2
"""Of the worker: one waits outside its namespaces, one is process 1 inside."""

Mode = Literal["namespaces", "bubblewrap", "unsafe-local"]


class SandboxError(RuntimeError):
    """The sandbox itself failed: says nothing about the candidate."""


class Stopped(Exception):
    """The caller asked to stop while a program was running."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, and how."""

    code: str
    name: str = ""
    """Method of `class Solution` to call; empty for a program that reads standard input."""
    runner: Literal["run_process", "run_official", "run_unittest"] = "run_process"
    """Script beside worker.py."""

    @property
    def answer(self) -> int:
        """Where its answer is found: what it prints, or what its runner returns."""
        return RETURNED if self.name or self.runner != "run_process" else STDOUT


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
    out_of_memory: bool = False
    """A process was killed because all of them together had too much."""


class Sandbox:
    """Starts sessions. Safe to share between threads.

    Args:
        limits: for each test; None for the defaults.
        mode: None takes namespaces, else bubblewrap, whichever works here.
        python: binary that candidates run under, with the packages they may import; None for this one.
    Raises:
        DajError: no isolation works here, or the interpreter does not start.
        SandboxError: the mode that was asked for cannot start.
    """

    def __init__(self, limits: Limits | None = None, mode: Mode | None = None, python: str | None = None) -> None:
        self.limits = limits or Limits()
        self.interpreter = interpreter(python or sys.executable)
        self.layout = layout(self.interpreter)
        self.processes = self.limits.processes
        self.bwrap = shutil.which("bwrap")
        self.groups: cgroup.Parents | None = None
        if mode is not None:
            self.start_in(mode)
        else:
            self.start_in_the_first_that_works()

    @property
    def description(self) -> str:
        """The mode, and whether control groups bound all processes together: for verdicts."""
        return f"{self.mode}+cgroup" if self.groups else self.mode

    @property
    def python(self) -> str:
        """Version that candidates run under."""
        return self.interpreter.version

    @property
    def environment(self) -> dict[str, str]:
        """All that a program finds in its environment; `python` on the PATH is its own interpreter."""
        return {**ENVIRONMENT, "PATH": f"{os.path.dirname(self.interpreter.executable)}:/usr/bin:/bin"}

    def start_in_the_first_that_works(self) -> None:
        reasons = []
        modes: tuple[Mode, ...] = ("namespaces", "bubblewrap")
        for mode in modes:
            try:
                return self.start_in(mode)
            except SandboxError as error:
                reasons.append(f"{mode}: {error}")
        raise DajError(
            f"nothing on this host can shut in untrusted programs ({'; '.join(reasons)}). Install bubblewrap "
            f"(apt-get install bubblewrap) or allow user namespaces (Linux 5.12 or newer; in Docker a seccomp profile "
            f"that permits unshare and mount, and systempaths=unconfined). Or, only if you trust every program, run "
            f"them without isolation (label: --unsafe-local; a configuration: data.unsafe_local: true); every "
            f"verdict then says so."
        )

    def start_in(self, mode: Mode) -> None:
        """Run one honest program in this mode."""
        self.mode = mode
        if mode == "bubblewrap" and (self.bwrap is None or os.getuid() == 0):
            # As root, bwrap leaves a user 0 that reads what root reads; namespaces drop root first.
            raise SandboxError("root takes namespaces" if self.bwrap else "there is no bwrap on the PATH")
        if mode == "unsafe-local" and os.getuid() != 0:
            # The kernel then counts every process of the user, so the limit can only bound a flood.
            self.processes = count_own_threads() + 16 * self.limits.processes
        # bwrap has forked before we could put it into a group.
        self.groups = None if mode == "bubblewrap" else cgroup.find()
        with self.session(Program("import json\nprint(input())")) as session:
            run = session.run("ready")
        if run.output != "ready\n":
            raise SandboxError(f"a test program failed in mode {mode}: {run.errors.strip() or run}")

    def session(self, program: Program, stop: threading.Event | None = None) -> Session:
        """A program ready to be run on inputs; a context manager. `stop` ends a run with `Stopped`."""
        return Session(self, program, stop or threading.Event())

    def command(self, directory: str) -> list[str]:
        """How a worker is started whose working directory is `directory`."""
        start = [self.interpreter.start, *START]
        if self.mode != "bubblewrap":
            return start
        assert self.bwrap
        files = Path(directory) / "files"
        for path, text in self.layout.files.items():
            (files / path[1:]).parent.mkdir(parents=True, exist_ok=True)
            (files / path[1:]).write_text(text)
        around = bubblewrap_command(self.bwrap, self.layout, str(WORKER.parent), str(files), self.limits.scratch_mib)
        return [*around, *start]

    def job(self, program: Program) -> dict[str, Any]:
        """What a worker is told, in types that marshal takes."""
        return {
            "mode": self.mode,
            "runner": program.runner,
            "code": program.code.encode("utf-8", "surrogatepass"),
            "name": program.name,
            "answer": program.answer,
            "wall_s": self.limits.test_wall_s,
            "output_bytes": self.limits.output_kib << 10,
            "scratch_mib": self.limits.scratch_mib,
            "limits": self.limits.rlimits(self.processes),
            "paths": self.layout.paths,
            "links": self.layout.links,
            "files": self.layout.files,
            "packages": self.layout.packages,
            "site_packages": [
                path if self.mode == "unsafe-local" else self.layout.inside(path)
                for path in self.interpreter.site_packages
            ],
        }


class Session:
    """One worker process and the conversation with it."""

    def __init__(self, sandbox: Sandbox, program: Program, stop: threading.Event) -> None:
        self.sandbox = sandbox
        self.limits = sandbox.limits
        self.job = sandbox.job(program)
        self.stop = stop
        self.group: cgroup.Group | None = None

    def __enter__(self) -> Self:
        self.directory = tempfile.TemporaryDirectory(prefix="daj-", ignore_cleanup_errors=True)
        command = self.sandbox.command(self.directory.name)
        try:
            self.worker = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=self.directory.name,
                env=self.sandbox.environment,
                start_new_session=True,
            )
        except OSError as error:
            self.directory.cleanup()
            raise SandboxError(f"cannot start {command[0]}: {error}.") from error
        assert self.worker.stdin
        assert self.worker.stdout
        self.to_worker, self.from_worker = self.worker.stdin.fileno(), self.worker.stdout.fileno()
        os.set_blocking(self.to_worker, False)
        os.set_blocking(self.from_worker, False)
        deadline = time.monotonic() + START_LIMIT_S
        try:
            self.enter_group()
            self.send(marshal.dumps(self.job), deadline)
            self.receive(deadline)
        except (EOFError, TimeoutError):
            reason = self.last_words()
            self.close()
            raise SandboxError(reason) from None
        except BaseException:
            self.close()
            raise
        return self

    def enter_group(self) -> None:
        """Before the job arrives, for until then the worker has no child."""
        groups = self.sandbox.groups
        if groups is None:
            return
        try:
            processes = self.sandbox.processes + NUM_OWN_PROCESSES
            self.group = groups.create(self.limits.total_memory_mib << 20, processes)
            self.group.add(self.worker.pid)
        except OSError as error:
            raise SandboxError(f"no control group for a candidate: {error}") from error

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, test_input: str) -> Run:
        """One test. A program that takes its worker down has crashed; one that freezes it has timed out."""
        deadline = time.monotonic() + PATIENCE * self.limits.test_wall_s + SILENCE_LIMIT_S
        killed_before = self.group.out_of_memory_kills() if self.group else 0
        try:
            self.send(test_input.encode("utf-8", "surrogatepass"), deadline)
            header, output, errors = (self.receive(deadline) for _ in range(NUM_ANSWER_FRAMES))
        except TimeoutError:
            return Run("", "", 0, timed_out=True, output_too_long=False, cpu_s=0.0)
        except EOFError:
            signal_number = -self.worker.wait()
            if signal_number <= 0:
                raise SandboxError(self.last_words()) from None
            return Run("", "the worker was killed", -signal_number, False, False, 0.0, self.ran_out(killed_before))
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
            out_of_memory=exit_code != 0 and self.ran_out(killed_before),
        )

    def ran_out(self, killed_before: int) -> bool:
        return self.group is not None and self.group.out_of_memory_kills() > killed_before

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
        if self.group:
            self.group.remove()
        try:
            self.directory.cleanup()
        except RecursionError:  # a tree deeper than Python's stack, left by a program that killed its worker
            subprocess.run(["rm", "-rf", "--", self.directory.name], check=False, capture_output=True)

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
