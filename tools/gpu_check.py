"""Every check that needs a GPU, in one command; prints a report in Markdown.

Builds the extension, says which kernels are in use, counts registers, runs the tests marked gpu, the kernels' tests
again under compute-sanitizer's tools, the kernel benchmark, a real bi-level step of a random model in the shape
of Qwen3-1.7B, and windows of this shape and of Qwen2.5-Coder-14B's beside the peak that `plan` predicts. The report
holds the end of each command's output, short enough for a screen; all of it is in gpu_check.log, beside the
benchmark's kernels.csv and plots.

    python tools/gpu_check.py                          # into $OUT, else runs/gpu_check
    python tools/gpu_check.py build benchmark          # these sections alone

Exit status: 0 when every check passed or is owed for want of a program, 1 when one failed, 3 without a CUDA device.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
PYTHON = sys.executable
GPU_TESTS = [PYTHON, "-m", "pytest", "-m", "gpu"]
KERNELS = "tests/kernels"
SHOWN_OF_FAILURES = 3000
"""Characters of output in the report."""


@dataclass(frozen=True, slots=True)
class Check:
    """One command that has to succeed on a GPU."""

    title: str
    command: list[str] | None
    """None: cannot run here."""
    owed: str = ""
    """Why it cannot run."""
    env: Mapping[str, str] | None = None
    """On top of this process's environment."""
    shown: int = 600
    """Characters of output in the report, where it passed."""


def checks(out: Path) -> dict[str, Check]:
    benchmark = [PYTHON, "tools/bench_kernels.py", "--preset", "gpu", "--device", "cuda"]
    step = [PYTHON, "tools/bench_step.py", "--shape", "qwen3-1.7b", "--device", "cuda", "--bank-dtype", "bfloat16"]
    return {
        "build": Check(
            "Build",
            [PYTHON, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "-e", str(ROOT)],
            env={"DAJ_CUDA": "1"},
            shown=200,
        ),
        "kernels": Check("Kernels in use", [PYTHON, "-m", "daj_lightning", "kernels"], shown=2000),
        "registers": Check("Registers", [PYTHON, "tools/check_ptxas.py"], shown=400),
        "tests": Check("Tests", GPU_TESTS),
        "memcheck": sanitizer("memcheck", "Memory accesses"),
        "racecheck": sanitizer("racecheck", "Shared memory races"),
        "initcheck": sanitizer("initcheck", "Uninitialised memory"),
        "benchmark": Check(
            "Kernel benchmark",
            [*benchmark, "--csv", str(out / "kernels.csv"), "--plots", str(out)],
            shown=2500,
        ),
        "step": Check("Bi-level step", [*step, "--rounds", "3"], shown=1200),
        "plan": Check("Peaks that plan predicts", [PYTHON, "tools/check_plan.py", "--device", "cuda"], shown=1500),
    }


def sanitizer(tool: str, title: str) -> Check:
    """The kernels' tests once more under one of compute-sanitizer's tools."""
    program = shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path=f"{os.environ.get('CUDA_HOME', '/usr/local/cuda')}/bin"
    )
    if program is None:
        return Check(title, None, "compute-sanitizer is not installed")
    return Check(
        title,
        # Without torch's cache nothing can be allocated while a graph is captured, and torch counts no memory.
        [program, f"--tool={tool}", "--error-exitcode=1", *GPU_TESTS, "-k", "not cuda_graph and not memory", KERNELS],
        # Torch's own allocator would hide an access beyond a tensor inside a larger block, and hand out blocks that
        # were written before.
        env={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
    )


def run(check: Check, log: Path, limit_s: float) -> bool:
    """Run one check and print its section; returns whether it passed."""
    if check.command is None:
        print(f"\n## {check.title}: OWED\n\n{check.owed}.", flush=True)
        return True
    with log.open("a") as file:
        file.write(f"\n## {check.title}\n{shlex.join(check.command)}\n")
    start, begin = time.monotonic(), log.stat().st_size
    with log.open("a") as file:  # straight into the file: what a killed run said is kept
        child = subprocess.Popen(
            check.command,
            cwd=ROOT,
            env={**os.environ, "DAJ_REQUIRE_EXT": "1", "PYTHONUNBUFFERED": "1", **(check.env or {})},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = child.wait(limit_s)
            outcome = "passed" if status == 0 else f"FAILED with status {status}"
        except subprocess.TimeoutExpired:
            outcome = f"FAILED: not done after {limit_s:g} s"
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)  # compute-sanitizer's child too
                child.wait()
    passed = outcome == "passed"
    with log.open(errors="replace") as file:
        file.seek(begin)
        output = file.read().strip()
    print(f"\n## {check.title}: {outcome} in {time.monotonic() - start:.1f} s\n")
    print(f"`{shlex.join(check.command)}`\n\n```\n{output[-(check.shown if passed else SHOWN_OF_FAILURES) :]}\n```")
    sys.stdout.flush()
    return passed


def main() -> int:
    out = Path(os.environ.get("OUT") or ROOT / "runs" / "gpu_check")
    every = checks(out)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(every)}; default: all")
    parser.add_argument("--limit-s", type=float, default=900, help="a section that takes longer has failed")
    args = parser.parse_args()
    if unknown := set(args.sections) - set(every):
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    if not torch.cuda.is_available():
        print("no CUDA device: GPU checks are owed")
        return 3
    out.mkdir(parents=True, exist_ok=True)
    log = out / "gpu_check.log"
    log.write_text("")
    properties = torch.cuda.get_device_properties(0)
    print(f"# GPU checks on {properties.name}\n")
    print(
        f"{properties.total_memory / 2**30:.0f} GiB, sm_{properties.major}{properties.minor}, "
        f"torch {torch.__version__}, CUDA {torch.version.cuda}; files in {out}",
        flush=True,
    )
    passed = [run(every[name], log, args.limit_s) for name in args.sections or every]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
