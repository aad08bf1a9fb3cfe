"""Every check that needs a GPU, in one command; prints a report in Markdown.

Builds the extension, runs the tests marked gpu, the same under compute-sanitizer where it is installed,
the kernel benchmark, and one real training step of a random model in the shape of Qwen3-1.7B.

    python tools/gpu_check.py > gpu_report.md

Exit status: 0 when every check passed, 1 when one failed, 3 without a CUDA device.
"""

from __future__ import annotations

import os
import shlex
import shutil
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


def checks() -> list[Check]:
    return [
        Check(
            "Build",
            [PYTHON, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "-e", str(ROOT)],
            env={"DAJ_CUDA": "1"},
        ),
        Check("Kernels in use", [PYTHON, "-m", "daj_lightning", "kernels"]),
        Check("Registers", [PYTHON, "tools/check_ptxas.py"]),
        Check("Tests", GPU_TESTS),
        sanitizer(),
        Check("Kernel benchmark", [PYTHON, "tools/bench_kernels.py", "--device", "cuda"]),
        training_step(),
    ]


def sanitizer() -> Check:
    """The kernel tests once more, every access to GPU memory checked."""
    tool = shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path=f"{os.environ.get('CUDA_HOME', '/usr/local/cuda')}/bin"
    )
    if tool is None:
        return Check("Memory accesses", None, "compute-sanitizer is not installed")
    return Check(
        "Memory accesses",
        [tool, "--tool=memcheck", "--error-exitcode=1", *GPU_TESTS, "tests/kernels"],
        # Torch's own allocator would hide an access beyond a tensor inside a larger block.
        env={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
    )


def training_step() -> Check:
    tool = ROOT / "tools" / "bench_step.py"
    if not tool.is_file():
        return Check("Training step", None, "tools/bench_step.py does not exist")
    return Check("Training step", [PYTHON, str(tool), "--shape", "qwen3-1.7b", "--device", "cuda"])


def run(check: Check) -> bool:
    """Run one check and print its section; returns whether it passed."""
    if check.command is None:
        print(f"\n## {check.title}: OWED\n\n{check.owed}.", flush=True)
        return True
    start = time.monotonic()
    done = subprocess.run(
        check.command,
        cwd=ROOT,
        env={**os.environ, "DAJ_REQUIRE_EXT": "1", **(check.env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    passed = done.returncode == 0
    outcome = "passed" if passed else f"FAILED with status {done.returncode}"
    print(f"\n## {check.title}: {outcome} in {time.monotonic() - start:.1f} s\n")
    print(f"`{shlex.join(check.command)}`\n\n```\n{done.stdout.strip()[-8000:]}\n```", flush=True)
    return passed


def main() -> int:
    if not torch.cuda.is_available():
        print("no CUDA device: GPU checks are owed")
        return 3
    properties = torch.cuda.get_device_properties(0)
    print(f"# GPU checks on {properties.name}\n")
    print(
        f"{properties.total_memory / 2**30:.0f} GiB, sm_{properties.major}{properties.minor}, "
        f"torch {torch.__version__}, CUDA {torch.version.cuda}",
        flush=True,
    )
    passed = [run(check) for check in checks()]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
