"""Which implementation an op uses: the extension built from csrc/, or plain torch.

The environment variable `DAJ_KERNELS` is read at every call:
    auto    the extension where it was built and serves the tensors at hand, else plain torch (default); a
            warning, once a process, where it was not built
    torch   always plain torch
    ext     the extension; an error that says why where it cannot. Still plain torch: fused_linear_logprob on a CPU,
            whose algorithm that is (but for bfloat16 products, where the CPU has an instruction for them), and segment
            losses in forward mode, which kernels do not have
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import warnings
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from textwrap import shorten
from typing import Literal

import torch
from torch import Tensor

from daj_lightning.kernels import fake
from daj_lightning.kernels.autograd import guard
from daj_lightning.records import DajError

OPS = {
    "grad_bank_dot": ("grad_bank_dot",),
    "grad_bank_dot_adam": ("grad_bank_dot_adam",),
    "grad_bank_combine": ("grad_bank_combine",),
    "segment_preference_loss": ("segment_preference_loss",),
    "segment_policy_loss": ("segment_policy_loss",),
    "instance_net_hypergrad": ("instance_net_hypergrad",),
    "fused_linear_logprob": ("logprob_tile", "logprob_finish", "bfloat16_mm"),
}
"""Public op -> the operators of torch.ops.daj behind it."""
TORCH_ON_CPU = {
    "fused_linear_logprob": "matrix products are 95 % of its time: on a CPU, plain torch runs the same algorithm",
}
"""Public op -> why the extension does not serve it on a CPU, whatever DAJ_KERNELS says."""
OLDEST_GPU = (8, 0)
"""Compute capability that csrc/cuda is compiled for."""


@dataclass(frozen=True, slots=True)
class Extension:
    """The extension in this process, or why there is none."""

    library: torch.library.Library | None
    """Owns the registrations made from Python; None without an extension."""
    reason: str
    """What it was built with; without an extension, why."""
    has_cuda: bool
    has_bfloat16_mm: bool
    """Multiplies bfloat16 matrices on this CPU, with float32 results."""


@dataclass(frozen=True, slots=True)
class KernelUse:
    """Which implementation an op uses on a device, and why."""

    op: str
    device: str
    """"cpu" or "cuda"."""
    implementation: Literal["ext", "torch"]
    reason: str

    def __str__(self) -> str:
        return f"{self.op:24} {self.device:5} {self.implementation:6} {self.reason}"


@functools.cache
def extension() -> Extension:
    """Load the extension, once a process."""
    folder = Path(__file__).parent
    record = folder / "_build.json"
    if not record.is_file():
        return _none("it was never built here. Build it: pip install -e .")
    build = json.loads(record.read_text())
    if not build["built"]:
        return _none(f"its build failed: {build['reason']}")
    try:
        module = importlib.import_module("daj_lightning.kernels._C")
        torch.ops.load_library(folder / "libdaj.so")
    except (ImportError, OSError) as error:  # another Python or torch than it was built for
        return _none(f"it does not load: {error}. Build it again: pip install -e .")
    lacking = [op for op in chain.from_iterable(OPS.values()) if not hasattr(torch.ops.daj, op)]
    if lacking:
        return _none(f"it was built from other sources, without {', '.join(lacking)}. Build it again: pip install -e .")
    library = torch.library.Library("daj", "IMPL")
    fake.register(library)
    for op in chain.from_iterable(OPS.values()):
        guard(library, getattr(torch.ops.daj, op).default)
    facts = module.build_info()
    cuda = f"CUDA {facts['cuda']} ({facts['cuda_archs']})" if facts["cuda"] else "no CUDA"
    made_with = f"built with {facts['compiler']}, torch {facts['torch']}, {cuda}"
    return Extension(library, made_with, bool(facts["cuda"]), module.has_bfloat16_mm())


def uses_extension(*tensors: Tensor, unless: str = "") -> bool:
    """Whether the extension computes a call with these tensors, all on one device.

    Args:
        unless: why this op's kernel cannot serve the call; empty if it can.
    Raises:
        DajError: DAJ_KERNELS is none of the three, or is "ext" and the extension cannot serve.
    """
    mode = _mode()
    if mode == "torch":
        return False
    obstacle = unless or _obstacle(tensors[0].device, *(tensor.dtype for tensor in tensors))
    if mode == "ext" and obstacle:
        raise DajError(f"DAJ_KERNELS=ext cannot serve this call: {obstacle}. Set DAJ_KERNELS=auto.")
    return not obstacle


def multiplies_bfloat16() -> bool:
    """Whether the extension multiplies bfloat16 matrices on this CPU, which torch does with rounded results only.

    Not where ATEN_CPU_CAPABILITY keeps torch itself from AVX-512.
    """
    return _mode() != "torch" and extension().has_bfloat16_mm and torch.backends.cpu.get_cpu_capability() == "AVX512"


def kernel_report() -> list[KernelUse]:
    """What each op uses for float32 or bfloat16 tensors on each device of this machine, and why."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return [_use(op, device) for op in OPS for device in devices]


def _use(op: str, device: str) -> KernelUse:
    if _mode() == "torch":
        return KernelUse(op, device, "torch", "DAJ_KERNELS=torch")
    obstacle = _obstacle(torch.device(device))
    if device == "cpu":
        obstacle = TORCH_ON_CPU.get(op, obstacle)
        if op == "fused_linear_logprob" and multiplies_bfloat16():
            obstacle += "; bfloat16 products are the extension's"
    if obstacle:
        return KernelUse(op, device, "torch", obstacle)
    return KernelUse(op, device, "ext", extension().reason)


def _mode() -> str:
    mode = os.environ.get("DAJ_KERNELS", "auto")
    if mode not in ("auto", "torch", "ext"):
        raise DajError(f"DAJ_KERNELS={mode}: unknown. Set it to auto, torch or ext.")
    return mode


@torch.compiler.assume_constant_result  # torch.compile asks once, and traces none of the loading
def _obstacle(device: torch.device, *dtypes: torch.dtype) -> str:
    """Why the extension cannot serve tensors of these dtypes; empty if it can."""
    if torch.float64 in dtypes:
        return "float64 is computed by plain torch"
    if extension().library is None:
        return f"no extension: {extension().reason}"
    if device.type == "cuda":
        if not extension().has_cuda:
            return "the extension was built without its CUDA half"
        if torch.cuda.get_device_capability(device) < OLDEST_GPU:
            return f"{torch.cuda.get_device_name(device)} is older than sm_80, the oldest GPU compiled for"
        return ""
    return "" if device.type == "cpu" else f"the extension has no kernels for {device.type}"


def _none(reason: str) -> Extension:
    """Told to whoever did not ask for plain torch: once, as an extension is looked for once."""
    if _mode() == "auto":
        warnings.warn(
            f"the extension is missing, and plain torch runs in place of its kernels, slower: {shorten(reason, 200)} "
            "(`python -m daj_lightning kernels` tells more, DAJ_KERNELS=torch asks for plain torch)",
            stacklevel=2,
        )
    return Extension(None, reason, has_cuda=False, has_bfloat16_mm=False)
