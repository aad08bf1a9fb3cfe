"""Does `label` survive kill -9, and does its memory stay flat: real runs of trivial programs, PASS or FAIL a line.

    python tools/bench_label.py                         # 2,000 and 20,000 candidates
    python tools/bench_label.py --sizes 1000 5000       # a shorter check

Memory is the most that the labelling process itself has held (VmHWM); the programs' own is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NUM_PROBLEMS = 200
MAX_MIB = 500
MAX_GROWTH = 0.10
KILL_AFTER_ROWS = 40


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs=2, default=[2000, 20000], help="candidates of the two runs")
    parser.add_argument("--num_workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--killed_size", type=int, default=200, help="candidates of the run that is killed")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        problems = write_problems(directory / "problems.jsonl")
        fine = survives(directory, problems, args.killed_size, args.num_workers)
        peaks = []
        for size in args.sizes:
            candidates = write_candidates(directory / f"c{size}.jsonl", size)
            output = directory / f"v{size}.jsonl"
            started = time.monotonic()
            peaks.append(peak_mib(start(problems, candidates, output, args.num_workers)))
            elapsed = time.monotonic() - started
            complete = ids(output) == [f"c{i}" for i in range(size)]
            print(f"{size} candidates: {peaks[-1]:.0f} MiB at most, {elapsed:.0f} s, {size / elapsed:.1f} a second")
            fine &= say(complete, f"{size} candidates have one verdict each")
        growth = peaks[1] / peaks[0] - 1
        fine &= say(growth <= MAX_GROWTH, f"memory grows by {growth:+.1%}, at most {MAX_GROWTH:.0%}")
        fine &= say(max(peaks) < MAX_MIB, f"memory stays under {MAX_MIB} MiB")
    return 0 if fine else 1


def survives(directory: Path, problems: Path, size: int, num_workers: int) -> bool:
    """Kill a run in the middle, finish it, compare it with one that was left alone."""
    candidates = write_candidates(directory / "killed.jsonl", size)
    killed, whole = directory / "killed-v.jsonl", directory / "whole-v.jsonl"
    process = start(problems, candidates, killed, num_workers)
    while process.poll() is None and (not killed.exists() or killed.read_bytes().count(b"\n") < KILL_AFTER_ROWS):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = len(ids(killed))
    for output in (killed, whole):
        start(problems, candidates, output, num_workers).wait()
    return (
        say(0 < there < size, f"killed with {there} of {size} verdicts written")
        & say(ids(killed) == [f"c{i}" for i in range(size)], "after a rerun each candidate has one verdict")
        & say(outcomes(killed) == outcomes(whole), "and the same one as in a run that was left alone")
    )


def write_problems(path: Path) -> Path:
    """Print n plus k, two tests each."""
    with path.open("w") as file:
        for k in range(NUM_PROBLEMS):
            tests = [{"input": f"{n}\n", "output": f"{n + k}\n", "testtype": "stdin"} for n in (1, 5)]
            row = {
                "question_title": f"Plus {k}",
                "question_content": f"Read n and print n plus {k}.",
                "platform": "atcoder",
                "question_id": f"plus-{k}",
                "contest_date": "2024-03-01T00:00:00",
                "starter_code": "",
                "difficulty": "easy",
                "public_test_cases": json.dumps(tests),
                "private_test_cases": "[]",
                "metadata": "{}",
            }
            file.write(json.dumps(row) + "\n")
    return path


def write_candidates(path: Path, number: int) -> Path:
    """Three in four are right; a program has 2 kB, most of it a comment."""
    with path.open("w") as file:
        for i in range(number):
            k = i % NUM_PROBLEMS
            code = f"print(int(input()) + {k + (i % 4 == 3)})\n#" + f" {i}" * (2000 // (len(str(i)) + 1))
            row = {"candidate_id": f"c{i}", "problem_id": f"plus-{k}", "policy": "trivial", "code": code}
            file.write(json.dumps(row) + "\n")
    return path


def start(problems: Path, candidates: Path, output: Path, num_workers: int) -> subprocess.Popen[bytes]:
    paths = ("--problems", str(problems), "--candidates", str(candidates), "--output", str(output))
    command = [sys.executable, "-m", "daj_lightning", "label", *paths, "--num_workers", str(num_workers)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def peak_mib(process: subprocess.Popen[bytes]) -> float:
    """Most memory that the process held until it ended."""
    peak_kib = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
        peak_kib = max([peak_kib, *map(int, found)])
        time.sleep(0.2)
    process.wait()
    return peak_kib / 1024


def ids(path: Path) -> list[str]:
    """Of the verdicts, in order of their numbers."""
    return sorted(names_of(path), key=lambda name: int(name[1:]))


def names_of(path: Path) -> list[str]:
    whole = (line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n"))
    return [row["candidate_id"] for row in map(json.loads, whole) if "candidate_id" in row]


def outcomes(path: Path) -> dict[str, str]:
    rows = map(json.loads, path.read_text().splitlines())
    return {row["candidate_id"]: row["outcome"] for row in rows if "candidate_id" in row}


def say(fine: bool, what: str) -> bool:
    print(f"{'PASS' if fine else 'FAIL'}: {what}", flush=True)
    return fine


if __name__ == "__main__":
    sys.exit(main())
