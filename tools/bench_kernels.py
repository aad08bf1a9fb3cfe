"""Kernels against their peers: time, memory, launches and error of each.

    python tools/bench_kernels.py                                  # seconds, on a CPU
    python tools/bench_kernels.py --preset issue                   # CPU figures of issue 6: 15 CPU minutes, 5 GB
    python tools/bench_kernels.py --preset gpu --device cuda --csv kernels.csv --plots plots
    python tools/bench_kernels.py --preset bfloat16                # a minute where the CPU multiplies bfloat16

The last one as on a CPU with AVX2 alone, where eager takes minutes a call (20 CPU minutes together):

    ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 python tools/bench_kernels.py --preset bfloat16 --no-onednn

A provider is timed only if its result agrees with float64 (kernel_cases.py: Provider.tolerance). One that is absent
is named with the reason. Exit status 1 if an op of ours disagrees or fails; a missed figure does not change it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from unittest import mock

import torch

import kernel_bank
import kernel_grpo
import kernel_instance_net
import kernel_logprob
import kernel_losses
import kernel_report as report
from daj_lightning.kernels import kernel_report
from kernel_cases import Case, Errors, Problem, Provider, Spec
from kernel_report import Row
from kernel_timing import copy_bandwidth, in_a_fork, launches, peak_on_cpu, peak_on_gpu, time_on_cpu, time_on_gpu

OPS: dict[str, ModuleType] = {
    "fused_linear_logprob": kernel_logprob,
    "grad_bank": kernel_bank,
    "linear_grpo": kernel_grpo,
    "segment_loss": kernel_losses,
    "instance_net_hypergrad": kernel_instance_net,
}
PEAKS = {"A100": (312e12, 2.0e12), "H200": (790e12, 4.3e12)}
"""Part of a GPU's name -> bfloat16 FLOP/s and bytes/s, as measured on such machines."""
FLOOR = "bare GEMMs"
QWEN3 = 151_936  # vocabulary
ADAPTERS = 34_865_152  # parameters of Qwen3-1.7B at r = 32


class Peaks(dict[str, dict[str, float]]):
    """Mode -> provider -> MiB above the inputs."""

    def of(self, mode: str, provider: str) -> float | None:
        return self.get(mode, {}).get(provider)


class Group(NamedTuple):
    """Benchmarks that share their inputs."""

    op: str
    sizes: dict[str, int]
    """The first one is the x axis of plots."""
    dtype: str
    modes: tuple[str, ...]
    rounds: int = 9
    """On a CPU."""
    compiled: bool = False
    """Whether torch.compile takes part on a CPU."""
    brief: bool = False
    """Times alone, where a call takes minutes: neither memory nor operators."""


LOGPROB = kernel_logprob.MODES
PRESETS = {
    "small": [
        *(Group("fused_linear_logprob", {"N": 32, "H": 64, "V": 500}, d, LOGPROB, 3) for d in ("float32", "bfloat16")),
        *(Group("grad_bank", {"P": 10_000, "K": 4}, d, kernel_bank.MODES, 3) for d in ("float32", "bfloat16")),
        Group("linear_grpo", {"N": 32, "H": 64, "V": 500, "T": 8}, "float32", kernel_grpo.MODES, 3),
        Group("segment_loss", {"R": 8, "T": 16}, "float32", kernel_losses.MODES, 3),
        Group("instance_net_hypergrad", {"B": 8, "F": 1, "H": 10}, "float32", kernel_instance_net.MODES, 3),
    ],
    "issue": [
        Group("fused_linear_logprob", {"N": 512, "H": 1024, "V": QWEN3}, "float32", LOGPROB, 3),
        # A CPU without bfloat16 products takes five minutes for eager's backward: that ratio is taken at a part of V.
        Group("fused_linear_logprob", {"N": 512, "H": 1024, "V": QWEN3}, "bfloat16", ("fwd",), 1),
        Group("fused_linear_logprob", {"N": 512, "H": 1024, "V": 8192}, "bfloat16", ("full",), 3),
        Group("grad_bank", {"P": ADAPTERS, "K": 16}, "bfloat16", kernel_bank.MODES),
        Group("segment_loss", {"R": 32, "T": 256}, "float32", kernel_losses.MODES, 31),
        Group("instance_net_hypergrad", {"B": 16, "F": 1, "H": 10}, "float32", kernel_instance_net.MODES, 31),
    ],
    "bfloat16": [
        Group("fused_linear_logprob", {"N": 512, "H": 1024, "V": 8192}, "bfloat16", ("full",), 3, brief=True),
        Group("fused_linear_logprob", {"N": 512, "H": 1024, "V": QWEN3}, "bfloat16", ("full",), 2, brief=True),
    ],
    "gpu": [
        Group("fused_linear_logprob", {"N": 8192, "H": 2048, "V": QWEN3}, "bfloat16", LOGPROB),
        *(
            Group("fused_linear_logprob", {"N": N, "H": H, "V": QWEN3}, "bfloat16", ("full",))
            for H in (2048, 5120)
            for N in (1024, 4096, 8192)
            if (N, H) != (8192, 2048)
        ),
        Group("linear_grpo", {"N": 8192, "H": 2048, "V": QWEN3, "T": 256}, "bfloat16", kernel_grpo.MODES),
        *(Group("grad_bank", {"P": ADAPTERS, "K": 16}, d, kernel_bank.MODES) for d in ("bfloat16", "float32")),
        *(Group("segment_loss", {"R": R, "T": 256}, "float32", kernel_losses.MODES) for R in (8, 32, 128)),
        *(
            Group("instance_net_hypergrad", {"B": B, "F": 1, "H": 10}, "float32", kernel_instance_net.MODES)
            for B in (16, 256, 4096)
        ),
    ],
}


def measure_group(group: Group, device: str, with_memory: bool) -> Iterator[tuple[Case, list[Row]]]:
    """Inputs are drawn once a group and freed before the next."""
    peaks = peaks_elsewhere(group) if with_memory and not group.brief and device == "cpu" else Peaks()
    problem = draw(group, device)
    for mode in group.modes:
        case = problem.case(mode)
        yield case, measure(case, group.rounds, peaks, group.brief)
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.compiler.reset()  # else the compiler gives up on a function after eight sizes of it


def draw(group: Group, device: str) -> Problem:
    compiled = group.compiled or device == "cuda"
    return OPS[group.op].Problem.draw(Spec(group.op, "", tuple(group.sizes.items()), group.dtype, device, compiled))


def measure(case: Case, rounds: int, peaks: Peaks, brief: bool = False) -> list[Row]:
    """Check every provider, then time those that are right. On a GPU memory is measured here, else it is known."""
    spec, on_gpu = case.spec, case.spec.device == "cuda"
    checked = [(provider, *check(provider, case)) for provider in case.providers]
    timed = [provider for provider, _, wrong in checked if not wrong]
    if case.bare_gemms is not None:
        floor = Provider(FLOOR, case.bare_gemms, {})
        timed.append(floor)
        checked.append((floor, {}, ""))
    times = time_on_gpu(timed) if on_gpu else time_on_cpu(timed, rounds)
    timings = {provider.name: timing for provider, timing in zip(timed, times, strict=True)}
    floor_ms = gpu_floor(case) if on_gpu else timings[FLOOR].p50 if FLOOR in timings else None
    rows = []
    for provider, errors, wrong in checked:
        row = Row(spec, provider.name, errors, case.flop, case.bytes, wrong, timings.get(provider.name), floor_ms)
        if provider.prepare is not None:
            row = replace(row, flop=0.0, bytes=0.0, floor_ms=None)
        if not wrong and not brief and provider.name != FLOOR:
            peak = peak_on_gpu(provider.run) if on_gpu else peaks.of(spec.mode, provider.name)
            row = replace(row, peak_mib=peak, launches=launches(provider.run, spec.device))
        rows.append(row)
    return rows


def check(provider: Provider, case: Case) -> tuple[Errors, str]:
    """Errors of a provider, and why it is not to be timed."""
    try:
        if provider.prepare is not None:
            provider.prepare()
        errors = case.errors(provider.run())
    except Exception as error:  # a peer's crash is a finding about it; ours ends in exit status 1
        first_line = (str(error).splitlines() or [""])[0]
        return {}, f"raises {type(error).__name__}: {first_line[:120]}".replace("|", "/")
    too_large = [name for name, bound in provider.tolerance.items() if not errors.get(name, 0.0) <= bound]
    bounds = ", ".join(f"{name} over {provider.tolerance[name]:g}" for name in too_large)
    return errors, f"wrong, {bounds}" if too_large else ""


def gpu_floor(case: Case) -> float | None:
    """Milliseconds that this GPU needs at least; None for a GPU whose rates are not known."""
    name = torch.cuda.get_device_name()
    rates = next((rates for part, rates in PEAKS.items() if part in name), None)
    return None if rates is None else max(case.flop / rates[0], case.bytes / rates[1]) * 1e3


def peaks_elsewhere(group: Group) -> Peaks:
    """Measured by a process that does nothing else."""
    command = [sys.executable, __file__, "--memory-of", json.dumps(group)]
    if not torch.backends.mkldnn.enabled:
        command.append("--no-onednn")
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Peaks(json.loads(done.stdout.splitlines()[-1]))


def peaks_here(group: Group) -> Peaks:
    """Each provider runs in a fork of its own, so that none finds memory that another one left."""
    small = group._replace(sizes={letter: min(size, 64) for letter, size in group.sizes.items()})
    warm_up, problem = draw(small, "cpu"), draw(group, "cpu")
    peaks = Peaks()
    for mode in group.modes:
        first, case = warm_up.case(mode), problem.case(mode)
        for provider in case.providers:
            peak = in_a_fork(partial(peak_of, first.provider(provider.name), provider))
            if peak is not None:
                peaks.setdefault(mode, {})[provider.name] = peak
    return peaks


def peak_of(warm_up: Provider, provider: Provider) -> float:
    for each in (warm_up, provider):
        if each.prepare is not None:
            each.prepare()
    warm_up.run()  # loads code, starts what starts once
    return peak_on_cpu(provider.run)


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "CPU, 1 thread"


def run(args: argparse.Namespace) -> int:
    groups = [group for group in PRESETS[args.preset] if args.ops is None or group.op in args.ops]
    groups = [group._replace(rounds=args.rounds or group.rounds, compiled=args.compile) for group in groups]
    kernels = (
        f"torch's kernels for {torch.backends.cpu.get_cpu_capability()}, oneDNN {'off' if args.no_onednn else 'on'}"
    )
    print(f"torch {torch.__version__}, {device_name(args.device)}, preset {args.preset}, {kernels}\n")
    print(*kernel_report(), sep="\n")
    print(f"\n{report.table_head()}")
    rows: list[Row] = []
    absent: dict[str, None] = {}
    for group in groups:
        for case, measured in measure_group(group, args.device, with_memory=args.preset != "small"):
            for row in measured:
                print(report.table_line(row, measured[0]), flush=True)
            rows += measured
            absent |= {f"{case.spec.op}, {name}: {reason}": None for name, reason in case.absent.items()}
    print("\nAbsent:", *(f"- {line}" for line in absent), sep="\n")
    if args.csv is not None:
        report.write_csv(args.csv, rows, device_name(args.device))
    if args.plots is not None:
        report.write_plots(args.plots, rows, device_name(args.device))
    if args.preset in ("issue", "bfloat16"):
        print("\nFigures of issue 6:", *report.cpu_verdict(rows), sep="\n")
    if args.preset == "gpu":
        print("\nFigures of issue 6, meant for an H200:", *report.gpu_verdict(rows, copy_bandwidth()), sep="\n")
    failed = [row for row in rows if row.wrong and row.provider.startswith("ours")]
    for row in failed:
        print(f"FAILED {row.spec}, {row.provider}: {row.wrong}")
    return 1 if failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 if an op of ours is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="small", help="sizes")
    parser.add_argument("--ops", nargs="+", choices=OPS, help="default: all")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, help="timed calls of each provider, on the CPU")
    parser.add_argument("--compile", action="store_true", help="torch.compile on the CPU too, where it takes minutes")
    parser.add_argument(
        "--no-onednn", action="store_true", help="torch multiplies without it, as where the CPU has no AVX-512"
    )
    parser.add_argument("--csv", type=Path, help="file for every number")
    parser.add_argument("--plots", type=Path, help="folder for PNG files")
    parser.add_argument("--memory-of", metavar="GROUP", help=argparse.SUPPRESS)  # for peaks_elsewhere
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    onednn = torch.backends.mkldnn.flags(enabled=False) if args.no_onednn else nullcontext()
    with onednn, mock.patch.dict(os.environ):  # providers of ours switch DAJ_KERNELS
        if args.memory_of:
            print(json.dumps(peaks_here(Group(*json.loads(args.memory_of)))))
            return 0
        return run(args)


if __name__ == "__main__":
    sys.exit(main())
