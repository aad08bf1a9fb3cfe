"""What one kernel benchmark is: an op in a mode at a size, its providers, the truth about it, and its floor.

A provider is one way to compute the op; it is timed only if its result agrees with float64. Ours have to meet what
we promise. A peer is allowed more, and its error stands beside its time.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from daj_lightning.kernels import kernel_report
from daj_lightning.kernels.dispatch import multiplies_bfloat16

Run = Callable[[], Any]
Errors = dict[str, float]
"""Name of an error -> its size."""


@dataclass(frozen=True, slots=True)
class Spec:
    """Which benchmark; enough to build the same one in another process."""

    op: str
    mode: str
    sizes: tuple[tuple[str, int], ...]
    """Letter and size, such as ("N", 512)."""
    dtype: str
    """Of the large inputs: "float32" or "bfloat16"."""
    device: str
    """"cpu" or "cuda"."""
    compiled: bool
    """Whether torch.compile takes part."""

    def __getitem__(self, letter: str) -> int:
        return dict(self.sizes)[letter]

    def __str__(self) -> str:
        sizes = " ".join(f"{letter} {size}" for letter, size in self.sizes)
        return f"{self.op} {self.mode}, {sizes}, {self.dtype}"

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)


@dataclass(frozen=True, slots=True)
class Provider:
    """One way to compute an op, ready to call."""

    name: str
    run: Run
    tolerance: Mapping[str, float]
    """Largest errors at which it is worth timing, by name; other errors are only shown."""
    ours: bool = False
    prepare: Run | None = None
    """Called once before the first run, neither timed nor measured; the floor does not hold for what comes after."""


@dataclass(frozen=True, slots=True)
class Case:
    """One benchmark, its inputs drawn."""

    spec: Spec
    providers: list[Provider]
    absent: dict[str, str]
    """Provider that does not run here -> why."""
    errors: Callable[[Any], Errors]
    """Of a provider's result against float64."""
    flop: float
    """The least that the op takes."""
    bytes: float
    """The least it moves: each input read once, each output written once."""
    bare_gemms: Run | None = None
    """The least matrix products, and nothing else; None where the op is bound by memory or latency."""

    def provider(self, name: str) -> Provider:
        return next(provider for provider in self.providers if provider.name == name)


class Problem(Protocol):
    """The inputs of an op's benchmarks."""

    def case(self, mode: str) -> Case: ...


def ours(
    op: str,
    device: str,
    run: Run,
    tolerance: Mapping[str, float],
    suffix: str = "",
    prepare: Run | None = None,
    bfloat16_products: bool = False,
) -> list[Provider]:
    """The public function in plain torch, and with the extension where it serves.

    DAJ_KERNELS, which is read at each call, switches between them; bench_kernels.main puts the old value back.

    Args:
        bfloat16_products: what runs multiplies bfloat16 matrices, which on some CPUs is the extension's part of it.
    """
    os.environ["DAJ_KERNELS"] = "auto"
    served = any((use.op, use.device, use.implementation) == (op, device, "ext") for use in kernel_report())
    served |= bfloat16_products and multiplies_bfloat16()

    def under(mode: str) -> Run:
        def switched() -> Any:
            os.environ["DAJ_KERNELS"] = mode
            return run()

        return switched

    modes = ("torch", "ext") if served else ("torch",)
    return [Provider(f"ours, {mode}{suffix}", under(mode), tolerance, True, prepare) for mode in modes]


def missing(*packages: str) -> str:
    """Which of these packages is not installed, in words; empty if all are. Imports none of them."""
    absent = [package for package in packages if importlib.util.find_spec(package) is None]
    return f"{' and '.join(absent)} not installed" if absent else ""


def relative_error(result: Tensor, truth: Tensor) -> float:
    """In the L2 norm; the truth is float64."""
    return float((result.double() - truth).norm() / truth.norm())
