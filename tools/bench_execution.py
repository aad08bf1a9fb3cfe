"""The price of isolation: test runs a second and cost of a candidate, beside three ways to run the same programs.

    python tools/bench_execution.py [--rounds 5] [--candidates 24]

Every side runs the same trivial program on the same inputs and compares what it prints. A "test run" is one program
on one input; ours, isolated, is `grade_all` at 10 tests a candidate. The peers: a plain subprocess a run (no
isolation at all), bubblewrap around each run (what a wrapper script would do), and one session of ours with many
tests, in which only a fork is left of a run (what a zygote inside one sandbox costs). Rounds are interleaved, so that
all sides meet the same load; figures are medians with the range. CPU time is that of this process and of all its
children that it has waited for.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from daj_lightning.execution import Limits, Sandbox, grade, grade_all
from daj_lightning.execution.layout import bubblewrap_command
from daj_lightning.execution.sandbox import ENVIRONMENT, WORKER
from daj_lightning.records import Candidate, Problem, TestCase
from measure import Claim, print_table, span

PROGRAM = "a, b = map(int, input().split())\nprint(a + b)\n"
WANTED_RUNS_PER_S, WANTED_MS = 150.0, 120.0
TESTS = 10
ZYGOTE_TESTS = 120


def problem(num_tests: int) -> Problem:
    tests = tuple(TestCase(f"{n} {n + 1}\n", f"{2 * n + 1}\n") for n in range(num_tests))
    day = datetime.date(2025, 2, 1)
    return Problem("sum", "", "", "atcoder", "easy", day, "", None, tests[:1], tests[1:])


def graded(sandbox: Sandbox, num_candidates: int, num_tests: int, workers: int) -> int:
    """Test runs, all of them passed."""
    task = problem(num_tests)
    jobs = [(task, Candidate(str(n), "sum", "", PROGRAM)) for n in range(num_candidates)]
    verdicts = list(grade_all(jobs, sandbox, workers))
    assert all(verdict.passed for verdict in verdicts), verdicts
    return num_candidates * num_tests


def subprocesses(command: Sequence[str], num_runs: int, workers: int) -> int:
    """One process a run, started by threads as our graders are."""
    tests = problem(num_runs).public_tests + tuple(problem(num_runs).hidden_tests)

    def run(test: TestCase) -> bool:
        ended = subprocess.run(
            command, input=test.input, capture_output=True, text=True, env=ENVIRONMENT, check=True, timeout=60
        )
        return ended.stdout == test.output

    with ThreadPoolExecutor(workers) as pool:
        assert all(pool.map(run, tests))
    return num_runs


@dataclass
class Side:
    """One way to run programs, and what it took round by round."""

    run: Callable[[], int]
    runs_per_s: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    """Of one test run."""

    def measure(self) -> None:
        cpu, begin = os.times(), time.perf_counter()
        num_runs = self.run()
        wall_s, now = time.perf_counter() - begin, os.times()
        self.runs_per_s.append(num_runs / wall_s)
        self.cpu_ms.append(1000 * sum(b - a for a, b in zip(cpu[:4], now[:4], strict=True)) / num_runs)


def fixed_ms(sandbox: Sandbox) -> float:
    """A candidate's verdict on one trivial test, whose run is the least part of it."""
    begin = time.perf_counter()
    grade(problem(1), Candidate("c", "sum", "", PROGRAM), sandbox)
    return 1000 * (time.perf_counter() - begin)


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--candidates", type=int, default=24, help="in a round, at 10 tests each")
    args = parser.parse_args()
    sandbox = Sandbox(Limits(test_wall_s=60))
    print(
        f"sandbox {sandbox.description}, Python {sandbox.python}, load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores"
    )
    few = max(4, args.candidates // 2)
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "main.py").write_text(PROGRAM)
        plain = [sandbox.interpreter.executable, f"{directory}/main.py"]
        sides = {
            "ours, 10 tests a candidate, 2 workers": Side(lambda: graded(sandbox, args.candidates, TESTS, 2)),
            "ours, 10 tests a candidate, 1 worker": Side(lambda: graded(sandbox, few, TESTS, 1)),
            f"zygote in one sandbox: {ZYGOTE_TESTS} tests, 2 workers": Side(
                lambda: graded(sandbox, 2, ZYGOTE_TESTS, 2)
            ),
            "plain subprocess a run, 2 workers": Side(lambda: subprocesses(plain, 2 * few, 2)),
        }
        around = bubblewrapped(sandbox, directory, plain)
        if around:
            sides["bubblewrap a run, 2 workers"] = Side(lambda: subprocesses(around, 2 * few, 2))
        fixed: list[float] = []
        for side in sides.values():
            side.run()  # warms caches of the file system
        for _ in range(args.rounds):
            for side in sides.values():
                side.measure()
            fixed += [fixed_ms(sandbox) for _ in range(5)]
    rows = [(name, span(side.runs_per_s, 0), span(side.cpu_ms, 2)) for name, side in sides.items()]
    print_table("Trivial programs", ("", "test runs/s", "CPU ms a test run"), rows)
    reached, cost = (statistics.median(v) for v in (sides["ours, 10 tests a candidate, 2 workers"].runs_per_s, fixed))
    print(f"\nfixed cost of a candidate (one trivial test included): {span(fixed, 0)} ms")
    claims = [
        Claim(f"test runs/s >= {WANTED_RUNS_PER_S:.0f}", f"{reached:.0f}", reached >= WANTED_RUNS_PER_S),
        Claim(f"fixed cost <= {WANTED_MS:.0f} ms", f"{cost:.0f} ms", cost <= WANTED_MS),
    ]
    for claim in claims:
        print(f"{'PASS' if claim.holds else 'FAIL'} {claim.text}: {claim.figure}")
    return all(claim.holds for claim in claims)


def bubblewrapped(sandbox: Sandbox, directory: str, plain: list[str]) -> list[str] | None:
    """The program in the same world as ours, made anew for each run; None, with a line, where it does not start."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        print("bubblewrap a run: skipped, there is no bwrap on the PATH")
        return None
    for path, text in sandbox.layout.files.items():
        (Path(directory) / "files" / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (Path(directory) / "files" / path[1:]).write_text(text)
    around = bubblewrap_command(bwrap, sandbox.layout, str(WORKER.parent), f"{directory}/files", 64)
    command = [*around, plain[0], "-c", PROGRAM]  # the world inside has no main.py
    try:
        subprocesses(command, 1, 1)
    except (subprocess.SubprocessError, AssertionError) as error:
        print(f"bubblewrap a run: skipped, it does not start here ({error})")
        return None
    return command


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
