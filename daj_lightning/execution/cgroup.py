"""Limits on all processes of a candidate together, where the host lets us make control groups.

RLIMIT_AS bounds each process and RLIMIT_NPROC a user; only a control group bounds the sum, scratch files
and memory files included. Needs root or a delegated group; without one, `find` returns None and the
sandbox says so in its description. Both versions of the kernel's interface.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PREFIX = "daj-"
REMOVE_LIMIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Parents:
    """Groups that we may make groups in; the same one twice in version 2."""

    memory: Path
    pids: Path

    @property
    def unified(self) -> bool:
        return self.memory == self.pids

    def create(self, memory_bytes: int, processes: int) -> Group:
        """A fresh group with these limits, still empty.

        Raises:
            OSError: the kernel does not let us.
        """
        name = f"{own_prefix()}{os.getpid()}-{os.urandom(6).hex()}"
        made: list[Path] = []
        try:
            for directory in dict.fromkeys((self.memory / name, self.pids / name)):
                directory.mkdir()
                made.append(directory)
            self.limit(name, memory_bytes, processes)
        except OSError:
            Group(tuple(made), self.unified).remove()
            raise
        return Group(tuple(made), self.unified)

    def limit(self, name: str, memory_bytes: int, processes: int) -> None:
        memory_file = "memory.max" if self.unified else "memory.limit_in_bytes"
        (self.memory / name / memory_file).write_text(str(memory_bytes))
        with contextlib.suppress(OSError):  # no swap accounting
            swap_file, swap = ("memory.swap.max", 0) if self.unified else ("memory.memsw.limit_in_bytes", memory_bytes)
            (self.memory / name / swap_file).write_text(str(swap))
        (self.pids / name / "pids.max").write_text(str(processes))


@dataclass(frozen=True, slots=True)
class Group:
    """One candidate's group."""

    directories: tuple[Path, ...]
    unified: bool

    def add(self, pid: int) -> None:
        for directory in self.directories:
            (directory / "cgroup.procs").write_text(str(pid))

    def out_of_memory_kills(self) -> int:
        name = "memory.events" if self.unified else "memory.oom_control"
        with contextlib.suppress(OSError):
            for line in (self.directories[0] / name).read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
        return 0

    def remove(self) -> None:
        """End whatever still runs in it; the kernel may need a moment to notice."""
        end = time.monotonic() + REMOVE_LIMIT_S
        for directory in self.directories:
            while directory.exists() and time.monotonic() < end:
                with contextlib.suppress(OSError):
                    for pid in (directory / "cgroup.procs").read_text().split():
                        os.kill(int(pid), signal.SIGKILL)
                with contextlib.suppress(OSError):
                    directory.rmdir()
                    break
                time.sleep(0.002)


def find() -> Parents | None:
    """Groups of this process that can have children with limits; tried by making one."""
    groups = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    candidates = []
    if "memory" in groups and "pids" in groups:
        candidates.append(Parents(ROOT / "memory" / groups["memory"][1:], ROOT / "pids" / groups["pids"][1:]))
    if "" in groups:
        candidates += [Parents(group, group) for group in unlimited_up(ROOT / groups[""][1:], ROOT)]
    for parents in candidates:
        with contextlib.suppress(OSError):
            parents.create(1 << 30, 64).remove()
            remove_left_over(parents)
            return parents
    return None


def unlimited_up(own: Path, root: Path) -> list[Path]:
    """A group of version 2 and those above it, as far as nobody who leaves one escapes a limit.

    A group that holds processes can have no children with limits, so that ours stand beside it.
    """
    found = [own]
    while found[-1] != root and root in found[-1].parents and not is_limited(found[-1]):
        found.append(found[-1].parent)
    return found


def is_limited(group: Path) -> bool:
    for name in ("memory.max", "memory.high", "memory.swap.max", "pids.max", "cpu.max"):
        with contextlib.suppress(OSError):
            if not (group / name).read_text().startswith("max"):
                return True
    return False


def own_prefix() -> str:
    """Names of groups that hosts in our PID namespace made; the numbers of others mean nothing to us."""
    return f"{PREFIX}{os.stat('/proc/self/ns/pid').st_ino}-"


def remove_left_over(parents: Parents) -> None:
    """Groups of hosts that were killed."""
    name = re.compile(re.escape(own_prefix()) + r"(\d+)-[0-9a-f]{12}")
    for parent in {parents.memory, parents.pids}:
        for directory in parent.glob(f"{own_prefix()}*"):
            made_by = name.fullmatch(directory.name)
            if made_by and not Path(f"/proc/{made_by[1]}").exists():
                with contextlib.suppress(OSError):
                    directory.rmdir()
