"""How long a call takes, how much memory it wants, and how many operators or kernels it launches.

CPU: process CPU time (wall time means nothing on a shared machine), one thread, rounds interleaved, the first one
dropped. GPU: CUDA events, with the L2 cache flushed before each call. Memory: above what lay there before the call,
on the CPU resident pages of a process that runs nothing else, on the GPU torch's allocator.
"""

from __future__ import annotations

import ctypes
import gc
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from kernel_cases import Provider, Run

NO_LAUNCH = ("aten::empty", "aten::new_empty", "aten::empty_like", "aten::empty_strided", "aten::detach")
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds: median, and the 20th and 80th percentile."""

    p50: float
    p20: float
    p80: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Timing:
        fifths = statistics.quantiles(values, n=5, method="inclusive") if len(values) > 1 else [values[0]] * 4
        return cls(statistics.median(values), fifths[0], fifths[-1])


def time_on_cpu(providers: Sequence[Provider], rounds: int) -> list[Timing]:
    """CPU time of this process; rounds interleaved, so that a busy neighbour hits every provider alike.

    The caller has run each provider once, to see whether it is right: that is the round dropped.
    """
    times: list[list[float]] = [[] for _ in providers]
    for _ in range(rounds):
        for provider, taken in zip(providers, times, strict=True):
            taken.append(cpu_ms(provider.run))
    return [Timing.of(taken) for taken in times]


def cpu_ms(run: Run) -> float:
    start = time.process_time()
    run()
    return (time.process_time() - start) * 1e3


def time_on_gpu(providers: Sequence[Provider]) -> list[Timing]:
    from triton.testing import do_bench

    return [Timing(*do_bench(provider.run, quantiles=[0.5, 0.2, 0.8])) for provider in providers]


def copy_bandwidth(num_bytes: int = 1 << 31) -> float:
    """GB/s of a copy on the GPU, bytes read and bytes written."""
    from triton.testing import do_bench

    source = torch.ones(num_bytes, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * num_bytes / do_bench(lambda: target.copy_(source), quantiles=[0.5, 0.2, 0.8])[0] / 1e6


def peak_on_gpu(run: Run) -> float:
    """MiB above what was allocated before; the second call, as the first may compile or tune."""
    run()
    gc.collect()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / MIB


def peak_on_cpu(run: Run) -> float:
    """MiB of resident memory above what this process held before; call it in a process or fork of its own."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # else memory freed before would hide some of what the call takes
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again
    before = _status_kib("VmRSS")
    run()
    return (_status_kib("VmHWM") - before) / 1024


def in_a_fork(measure: Callable[[], float]) -> float | None:
    """What it returns in a copy of this process; None where it raises there."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, repr(measure()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return float(text) if text else None


def _status_kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


class Launches(TorchDispatchMode):
    """Counts operators that compute: not views, not allocations."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view and func._schema.name not in NO_LAUNCH
        return func(*args, **(kwargs or {}))


def launches(run: Run, device: str) -> int:
    """Operators on the CPU; on a GPU kernels, copies and fills."""
    if device == "cpu":
        with Launches() as mode:
            run()
        return mode.count
    run()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as traced:
        run()
        torch.cuda.synchronize()
    return sum(event.device_type == DeviceType.CUDA for event in traced.events())
