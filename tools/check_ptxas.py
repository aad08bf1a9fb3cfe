"""Compile every CUDA kernel and fail if one spills registers or keeps a stack frame.

Both mean that a loop was not unrolled or an array is indexed at run time: the kernel would be right, and
slow. Needs nvcc, no GPU and no torch.

    python tools/check_ptxas.py
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

CSRC = Path(__file__).resolve().parents[1] / "csrc"
ARCHS = ("sm_80", "sm_90")  # those that setup.py compiles for
KERNEL = re.compile(
    r"Function properties for (?P<name>\S+)\n"
    r"\s*(?P<stack>\d+) bytes stack frame, "
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads\n"
    r".*?Used (?P<registers>\d+) registers"
)


def find_nvcc() -> str | None:
    """The nvcc of CUDA_HOME, else of PATH."""
    home = os.environ.get("CUDA_HOME")
    return shutil.which("nvcc", path=f"{home}/bin" if home else None)


def compile_verbosely(nvcc: str, source: Path, arch: str) -> str:
    """What ptxas says about the kernels of one file."""
    command = [nvcc, "-O3", "-std=c++17", f"-arch={arch}", "-Xptxas", "-v", "-cubin", "-o", os.devnull]
    done = subprocess.run([*command, f"-I{CSRC / 'include'}", str(source)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{source.name} does not compile for {arch}:\n{done.stderr}")
    return done.stderr


def main() -> int:
    """Print one line a kernel; returns 1 if any spills or has a stack frame, 3 without nvcc."""
    nvcc = find_nvcc()
    if nvcc is None:
        print("no nvcc: neither CUDA_HOME nor PATH leads to one. Kernels were not checked.", file=sys.stderr)
        return 3
    bad = 0
    for source in sorted((CSRC / "cuda").glob("*.cu")):
        for arch in ARCHS:
            kernels = list(KERNEL.finditer(compile_verbosely(nvcc, source, arch)))
            assert kernels, f"ptxas names no kernel of {source.name}: has its output changed?"
            for kernel in kernels:
                spilt = int(kernel["stores"]) + int(kernel["loads"])
                wrong = spilt > 0 or int(kernel["stack"]) > 0
                bad += wrong
                print(
                    f"{'BAD' if wrong else 'ok ':3} {arch} {kernel['registers']:>3} registers, "
                    f"{kernel['stack']} B stack, {spilt} B spilt  {kernel['name']}"
                )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
