"""Our hypergradients beside Betty's, and our plain training beside TRL's: one judge, the same samples, one process.

    python tools/bench_bilevel.py                      # Markdown tables, then a line for every claim; 13 min of CPU
    python tools/bench_bilevel.py --quick              # a round each, SGD, two precisions; 2 min
    python tools/bench_bilevel.py --only accuracy cost

Betty is no dependency of the package. Its release asks for another Python, but runs:

    pip install --ignore-requires-python --no-deps betty-ml==0.2.1

The two sides are in tools/bench_sides.py; judge, samples and the float64 truth are those of tools/measure.py. Times
are CPU seconds of this process in user mode, on one thread, medians of interleaved rounds; passes and bytes are
counted.
Letters: K samples in a window (16), M meta samples (8), P adapter parameters.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import datasets
import torch
import transformers
import trl

from bench_sides import HAS_BETTY, INSTALL_BETTY, METHODS, SIZES, Betty, Method, Ours, betty_batched, together
from bench_step import peak_bytes
from bench_trl import plain
from daj_lightning.bilevel import BankEngine, FiniteDifferenceEngine
from measure import (
    FLOAT32,
    INNER_LR,
    LENGTH,
    PRECISIONS,
    WINDOWS,
    Against,
    Claim,
    CpuS,
    K,
    M,
    Passes,
    Precision,
    Problem,
    interleaved,
    make_problem,
    print_table,
    ratios,
    span,
    truth,
    warmed,
)

RADII = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


def accuracy(problem: Problem, quick: bool) -> list[Claim]:
    rows: list[list[Any]] = []
    for setting, own in {"SGD": problem}.items() if quick else {"SGD": problem, "Adam": warmed(problem)}.items():
        wanted = truth(own)
        for name, make in METHODS.items():
            # Our training refuses the last two precisions, so they are Betty's alone.
            compared: list[Against] = []
            for precision in list(PRECISIONS.values())[: 2 if quick or name.startswith("ours") else None]:
                method = make(own, precision)
                method.run()
                compared.append(Against.truth(method.derivative, wanted))
            rows.append(
                [setting, name, f"{compared[0].reached} of {K}", *compared, *["-"] * (len(PRECISIONS) - len(compared))]
            )
    title = "Derivatives by the weights against float64: cosine / relative error, both scaled to norm 1"
    print_table(title, [f"inner step, lr {INNER_LR}", "method", "weights reached", *PRECISIONS], rows)
    if not HAS_BETTY:
        return []
    bank, batched = (next(row[4].cosine for row in rows if row[1] == name) for name in ("ours, bank", "Betty batched"))
    text = "bfloat16 base, SGD: the bank's cosine >= 0.999, that of Betty batched below"
    return [Claim(text, f"{bank:.5f} and {batched:.5f}", bank >= 0.999 > batched)]


def radii(problem: Problem, quick: bool) -> list[Claim]:
    wanted, columns = truth(problem), dict[str, list[Against]]()
    for name, precision in list(PRECISIONS.items())[:2]:
        engine = FiniteDifferenceEngine()
        method = Ours(problem, engine, precision)
        method.run()  # the step is taken; the radius matters only after it
        q = method.meta_gradient(problem.meta)
        column = columns[f"ours, {name}"] = []
        for engine.radius in RADII:
            column.append(Against.truth(engine(q)[0].derivative, wanted))
        if HAS_BETTY and not quick:
            column = columns[f"Betty batched, {name}"] = []
            for radius in RADII:
                betty = betty_batched(problem, precision, radius)
                betty.run()
                column.append(Against.truth(betty.derivative, wanted))
    title = f"Finite differences over all {K} samples (SGD): cosine / relative error, both scaled to norm 1"
    print_table(title, ["radius", *columns], list(zip(map(str, RADII), *columns.values(), strict=True)))
    return []


def cost(problem: Problem, rounds: int) -> list[Claim]:
    makes: dict[str, Callable[[Problem, Precision], Method]]
    makes = {"inner and meta passes alone": lambda *own: Ours(own[0], None, own[1])}
    makes |= {f"ours, bank, {size} together": together(size) for size in SIZES} | METHODS
    title = f"One inner step of {K} samples, a meta batch of {M}, all {K} weights reached (Adam, float32)"
    times, mib = priced(title, warmed(problem), makes, rounds)
    fd = ratios(times["ours, finite difference"].user, times["ours, bank"].user)
    text = "finite differences over all samples >= 1.5x the bank's user CPU time"
    claims = [Claim(text, f"{span(fd)}x", statistics.median(fd) >= 1.5)]
    return claims + [
        claim
        for size in ("", *(f", {size} together" for size in SIZES))
        for claim in beside_betty(f"ours, bank{size}", times, mib)
    ]


def shared(rounds: int) -> list[Claim]:
    """What pairs are outside of random data: two responses to one prompt."""
    problem = warmed(make_problem(shares_prompt=True))
    makes: dict[str, Callable[[Problem, Precision], Method]] = {"ours, bank": METHODS["ours, bank"]}
    makes |= {f"ours, bank, {size} packed": together(size, packing=True) for size in (1, *SIZES)}
    if HAS_BETTY:
        makes["Betty batched, packed"] = partial(betty_batched, packing=True)
        makes["Betty batched"] = betty_batched
    title = f"The same where the rows of a pair share their prompt of {LENGTH // 2} tokens"
    times, mib = priced(title, problem, makes, rounds)
    return [
        claim
        for peer in ("Betty batched", "Betty batched, packed")
        for name in makes
        if name.startswith("ours") and "packed" in name
        for claim in beside_betty(name, times, mib, peer)
    ]


def priced(
    title: str, problem: Problem, makes: dict[str, Callable[[Problem, Precision], Method]], rounds: int
) -> tuple[dict[str, CpuS], dict[str, float]]:
    """Prints passes, bytes and time of a step by each way; its times and peak MiB."""
    makes = {name: make for name, make in makes.items() if name != "Betty as shipped"}  # has less to say; `schedule`
    passes, mib = dict[str, Passes](), dict[str, float]()

    def first_step(name: str) -> None:
        method = makes[name](problem, FLOAT32)
        passes[name] = Passes(method.judge)
        method.run()

    for name in makes:  # from nothing: the peak has model, moments, bank and activations
        mib[name] = peak_bytes(lambda name=name: first_step(name), "cpu") / 2**20  # type: ignore[misc]
    *_, last = makes
    times = interleaved({name: make(problem, FLOAT32).run for name, make in makes.items()}, rounds)
    over_last = {name: ratios(own.user, times[last].user) for name, own in times.items()}
    rows = []
    for name, of in passes.items():
        counts = of.forwards, of.backwards, f"{mib[name]:.1f}", f"{mib[name] / mib[last]:.3f}"
        took = span(times[name].user), span(over_last[name]), span(times[name].kernel)
        rows.append([name, *counts, *took])
    header = "method", "samples forward", "backward", "peak tensor MiB", "ratio", "user CPU s", "ratio", "kernel CPU s"
    print_table(f"{title}; ratios over {last}", header, rows)
    return times, mib


def beside_betty(name: str, times: dict[str, CpuS], mib: dict[str, float], peer: str = "Betty batched") -> list[Claim]:
    """The two bounds that one of our ways is held to."""
    if peer not in times:
        return []
    memory = mib[name] / mib[peer]
    user = ratios(times[name].user, times[peer].user)
    cpu = ratios(*([u + k for u, k in zip(*times[side], strict=True)] for side in (name, peer)))
    figure = f"{span(user)}x in user mode, {span(cpu)}x with the kernel's paging"
    holds = max(statistics.median(user), statistics.median(cpu)) <= 0.62
    return [
        Claim(f"{name} <= 0.62x the CPU time of {peer}", figure, holds),
        Claim(f"{name} <= 0.08x its peak tensor bytes", f"{memory:.4f}x", memory <= 0.08),
    ]


def schedule(problem: Problem, rounds: int) -> list[Claim]:
    problem = warmed(problem)
    metas = list(problem.meta.micro_batches())
    singles = [sample for window in problem.windows for sample in window.micro_batches()]
    methods: dict[str, Method] = {"ours, bank": Ours(problem, BankEngine(), windows=problem.windows, metas=metas)}
    if HAS_BETTY:
        methods["Betty as shipped"] = Betty(problem, singles, metas, K)
    passes = {name: Passes(method.judge) for name, method in methods.items()}
    times = interleaved({name: method.run for name, method in methods.items()}, rounds)
    rows = []
    for name, method in methods.items():
        reached = f"{int((method.derivative != 0).sum())} of {len(singles)}"
        counts = [count // rounds for count in (passes[name].forwards, passes[name].backwards)]
        rows.append([name, reached, *counts, span(times[name].user)])
    title = f"Betty's schedule: {WINDOWS} inner steps of {K}, a meta sample after each, one outer step (Adam, float32)"
    print_table(title, ["method", "weights reached", "samples forward", "backward", "user CPU s an outer step"], rows)
    if not HAS_BETTY:
        return []
    cpu = ratios(times["ours, bank"].user, times["Betty as shipped"].user)
    return [Claim("<= 1.0x Betty's user CPU time on its own schedule", f"{span(cpu)}x", statistics.median(cpu) <= 1.0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sections = ("accuracy", "radii", "cost", "shared", "schedule", "plain")
    parser.add_argument("--only", nargs="+", choices=sections, default=sections)
    parser.add_argument(
        "--rounds", type=int, default=10, help="of `cost` and `shared`; `schedule` takes half as many, `plain` a third"
    )
    parser.add_argument("--quick", action="store_true", help="a round each, SGD, two precisions")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    os.environ["TQDM_DISABLE"] = "1"
    rounds = 2 if args.quick else args.rounds
    if not HAS_BETTY:
        print(f"Betty is missing, and its rows are left out. Install it with: {INSTALL_BETTY}\n")
    problem = make_problem()
    size = sum(value.numel() for value in problem.adapters)
    print(f"CPU, 1 thread; torch {torch.__version__}, TRL {trl.__version__}; P = {size:,}, K = {K}, M = {M},")
    print(f"2 x {LENGTH} tokens a pair; medians of interleaved rounds [min-max]")
    measures: dict[str, Callable[[], list[Claim]]] = {
        "accuracy": lambda: accuracy(problem, args.quick),
        "radii": lambda: radii(problem, args.quick),
        "cost": lambda: cost(problem, rounds),
        "shared": lambda: shared(rounds),
        "schedule": lambda: schedule(problem, (rounds + 1) // 2),
        "plain": lambda: plain(problem, (rounds + 2) // 3, args.quick),
    }
    claims = [claim for name in sections if name in args.only for claim in measures[name]()]
    print()
    for claim in claims:
        print(f"{'PASS' if claim.holds else 'FAIL'}  {claim.text}: {claim.figure}")


if __name__ == "__main__":
    main()
