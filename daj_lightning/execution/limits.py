"""What one test of one candidate may use."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from daj_lightning.records import DajError


@dataclass(frozen=True, slots=True)
class Limits:
    """What one test of one candidate may use."""

    test_wall_s: float = 6.0
    """Seconds of real time (LiveCodeBench: 6), less those in which the machine had no core for it."""
    test_cpu_s: int = 6
    """Seconds of CPU time of each process, whole: the kernel counts in those."""
    memory_mib: int = 1024
    """Address space of each process, interpreter included."""
    total_memory_mib: int = 2048
    """Of all processes of a candidate together, their files included; where a control group can be made."""
    scratch_mib: int = 64
    """Size of each of /tmp, /var/tmp and /dev/shm."""
    output_kib: int = 1024
    """Standard output, standard error, return value and every file, each."""
    processes: int = 64
    """Processes and threads at one time."""
    open_files: int = 256
    """File descriptors of each process."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            whole = field.name != "test_wall_s"
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                raise DajError(f"{field.name} is {value!r}; wanted a {'whole ' if whole else ''}number.")
            if not 0 < value < math.inf:
                raise DajError(f"{field.name} is {value}; wanted a number > 0.")

    def __str__(self) -> str:
        return " ".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))

    def rlimits(self, processes: int) -> dict[str, tuple[int, int]]:
        """Soft and hard limit by the name of the constant in `resource`."""
        memory, files = self.memory_mib << 20, self.open_files
        return {
            "RLIMIT_CPU": (self.test_cpu_s, self.test_cpu_s + 1),
            "RLIMIT_AS": (memory, memory),
            "RLIMIT_FSIZE": ((self.output_kib << 10) + 1,) * 2,  # one more: only a longer output is cut
            "RLIMIT_NPROC": (processes, processes),
            "RLIMIT_NOFILE": (files, files),
            "RLIMIT_CORE": (1, 1),  # 0 would still start a host's core handler, 1 does not (core(5))
        }
