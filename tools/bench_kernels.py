"""Time the gradient-bank ops against what one would write without them.

A provider is timed only after its result agreed with float64. CPU: process CPU seconds (wall time means
nothing on a shared machine), one thread, rounds interleaved, the first one dropped. GPU: CUDA events, with
the L2 cache flushed before each call (triton.testing.do_bench). P defaults to Qwen3-1.7B with r = 16.

    python tools/bench_kernels.py                  # CPU: 2 GB of memory, about a minute
    python tools/bench_kernels.py --device cuda
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from daj_lightning.kernels import kernel_report, reference

NUM_TENSORS = 392  # adapter tensors of Qwen3-1.7B: 28 layers x 7 linear layers x (A, B)
# Largest relative L2 error: what we promise, one long sum in float32, and operands rounded to bfloat16.
OURS, FLOAT32, BFLOAT16 = 1e-5, 1e-4, 2e-2

Op = Callable[[], Tensor]


@dataclass(frozen=True, slots=True)
class Provider:
    """One way to compute an op, ready to call."""

    name: str
    run: Op
    tolerance: float = FLOAT32
    """Largest relative L2 error against float64 at which it is worth timing."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds: median, and the 20th and 80th percentile."""

    p50: float
    p20: float
    p80: float


@dataclass(frozen=True, slots=True)
class Problem:
    """The tensors of one benchmark."""

    bank: Tensor
    """(K, P)."""
    vector: Tensor
    """(P,) float32."""
    weights: Tensor
    """(K,) float32."""

    @classmethod
    def draw(cls, K: int, P: int, dtype: torch.dtype, device: str) -> Problem:
        generator = torch.Generator(device).manual_seed(0)
        bank = torch.empty(K, P, dtype=dtype, device=device)
        for row in bank:  # row by row: no float32 copy of the bank
            row.copy_(torch.randn(P, generator=generator, device=device))
        vector = torch.randn(P, generator=generator, device=device)
        return cls(bank, vector, torch.rand(K, generator=generator, device=device))

    def true_dot(self) -> Tensor:
        """(K,) float64."""
        vector = self.vector.double()
        return torch.stack([torch.dot(row.double(), vector) for row in self.bank])

    def true_combine(self) -> Tensor:
        """(P,) float64."""
        total = torch.zeros_like(self.vector, dtype=torch.float64)
        for row, weight in zip(self.bank, self.weights.tolist(), strict=True):
            total.add_(row, alpha=weight)
        return total

    def parts(self, flat: Tensor) -> tuple[Tensor, ...]:
        """A (..., P) tensor cut into NUM_TENSORS parts, as a model's parameters would cut it."""
        return flat.tensor_split(NUM_TENSORS, dim=-1)


def dot_providers(problem: Problem) -> list[Provider]:
    bank, vector = problem.bank, problem.vector
    rows = [problem.parts(row) for row in bank]
    parts = problem.parts(vector)

    def loop() -> Tensor:
        terms = [torch.dot(g.float(), v) for row in rows for g, v in zip(row, parts, strict=True)]
        return torch.stack(terms).view(len(rows), -1).sum(dim=1)

    providers = [
        Provider("loop over tensors", loop),
        Provider("flat mv, float32", lambda: torch.mv(bank.float(), vector)),
        Provider("ours, torch", lambda: reference.grad_bank_dot(bank, vector), OURS),
    ]
    if bank.dtype == torch.bfloat16:
        providers.append(Provider("flat mv, bfloat16", lambda: torch.mv(bank, vector.bfloat16()), BFLOAT16))
    if bank.is_cuda:
        compiled = torch.compile(lambda b, v: (b.float() * v).sum(dim=1))
        providers.append(Provider("torch.compile", lambda: compiled(bank, vector)))
    if extension_serves(bank):
        dot = torch.ops.daj.grad_bank_dot
        providers.append(Provider("ours, extension", lambda: dot(bank, vector), OURS))
    return providers


def combine_providers(problem: Problem) -> list[Provider]:
    bank, weights = problem.bank, problem.weights
    rows = [problem.parts(row) for row in bank]

    def loop() -> Tensor:
        total = torch.zeros(bank.size(1), device=bank.device)
        for row, weight in zip(rows, weights.tolist(), strict=True):
            for into, g in zip(problem.parts(total), row, strict=True):
                into.add_(g, alpha=weight)
        return total

    providers = [
        Provider("loop over tensors", loop),
        Provider("flat mv, float32", lambda: torch.mv(bank.float().T, weights)),
        Provider("ours, torch", lambda: reference.grad_bank_combine(bank, weights), OURS),
    ]
    if bank.dtype == torch.bfloat16:
        providers.append(Provider("flat mv, bfloat16", lambda: torch.mv(bank.T, weights.bfloat16()), BFLOAT16))
    if bank.is_cuda:
        compiled = torch.compile(lambda b, w: (b.float() * w[:, None]).sum(dim=0))
        providers.append(Provider("torch.compile", lambda: compiled(bank, weights)))
    if extension_serves(bank):
        combine = torch.ops.daj.grad_bank_combine
        providers.append(Provider("ours, extension", lambda: combine(bank, weights), OURS))
    return providers


def extension_serves(bank: Tensor) -> bool:
    return any(use.device == bank.device.type and use.implementation == "ext" for use in kernel_report())


def relative_error(result: Tensor, truth: Tensor) -> float:
    """In the L2 norm."""
    difference = result.double().sub_(truth)
    return float(difference.norm() / truth.norm())


def time_on_cpu(providers: list[Provider], rounds: int) -> list[Timing]:
    """CPU time of this process; rounds interleaved, so that a busy neighbour hits every provider alike."""
    times: list[list[float]] = [[] for _ in providers]
    for round_ in range(rounds + 1):
        for provider, taken in zip(providers, times, strict=True):
            start = time.process_time()
            provider.run()
            if round_ > 0:
                taken.append((time.process_time() - start) * 1e3)
    return [Timing(*percentiles(taken)) for taken in times]


def percentiles(values: list[float]) -> tuple[float, float, float]:
    fifths = statistics.quantiles(values, n=5, method="inclusive")
    return statistics.median(values), fifths[0], fifths[-1]


def time_on_gpu(providers: list[Provider]) -> list[Timing]:
    from triton.testing import do_bench

    return [Timing(*do_bench(provider.run, quantiles=[0.5, 0.2, 0.8])) for provider in providers]


def bench(op: str, problem: Problem, rounds: int) -> bool:
    """Print the table of one op; returns whether every provider agreed with float64."""
    K, P = problem.bank.shape
    if op == "dot":
        providers, truth = dot_providers(problem), problem.true_dot()
    else:
        providers, truth = combine_providers(problem), problem.true_combine()
    errors = [relative_error(provider.run(), truth) for provider in providers]
    right = [error <= p.tolerance for p, error in zip(providers, errors, strict=True)]
    timed = [provider for provider, ok in zip(providers, right, strict=True) if ok]
    timings = iter(time_on_gpu(timed) if problem.bank.is_cuda else time_on_cpu(timed, rounds))
    moved_gb = (problem.bank.nbytes + 4 * P) / 1e9  # the least: the bank once, one float32 vector once
    unit = "ms" if problem.bank.is_cuda else "CPU ms"
    print(f"\ngrad_bank_{op}, K = {K}, P = {P:,}, {str(problem.bank.dtype).removeprefix('torch.')}\n")
    print(f"| provider | {unit} p50 [p20-p80] | GB/s | error vs float64 | time / loop |")
    print("|---|---|---|---|---|")
    loop: float | None = None
    for provider, error, ok in zip(providers, errors, right, strict=True):
        if not ok:
            print(f"| {provider.name} | not timed: wrong | | {error:.1e} | |")
            continue
        t = next(timings)
        loop = loop or t.p50
        print(
            f"| {provider.name} | {t.p50:.3f} [{t.p20:.3f}-{t.p80:.3f}] | {moved_gb / t.p50 * 1e3:.1f} "
            f"| {error:.1e} | {t.p50 / loop:.3f} |"
        )
    return all(right)


def main() -> int:
    """Returns 1 if a provider disagrees with float64."""
    parser = argparse.ArgumentParser(description="Time the gradient-bank ops.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("-K", type=int, default=16, help="rows")
    parser.add_argument("-P", type=int, default=17_432_576, help="columns")
    parser.add_argument("--rounds", type=int, default=9, help="timed calls of each provider, on the CPU")
    args = parser.parse_args()
    torch.set_num_threads(1)
    name = torch.cuda.get_device_name() if args.device == "cuda" else "CPU, 1 thread"
    print(f"torch {torch.__version__}, {name}")
    print(*kernel_report(), sep="\n")
    with torch.no_grad():
        agreed = [
            bench(op, Problem.draw(args.K, args.P, dtype, args.device), args.rounds)
            for dtype in (torch.bfloat16, torch.float32)
            for op in ("dot", "combine")
        ]
    return 0 if all(agreed) else 1


if __name__ == "__main__":
    sys.exit(main())
