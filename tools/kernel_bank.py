"""The gradient bank's ops and what one would write without them.

Modes: dot (every row against one vector), combine (the rows' weighted sum), adam dot (every row against the vector
times Adam's Jacobian).
Letters: K rows, P adapter parameters in NUM_TENSORS tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from kernel_cases import Case, Errors, Provider, Spec, ours, relative_error
from torch import Tensor

from daj_lightning.kernels import grad_bank_combine, grad_bank_dot

MODES = ("dot", "combine")
NUM_TENSORS = 392  # adapter tensors of Qwen3-1.7B: 28 layers x 7 linear layers x (A, B)
# Relative in the L2 norm: what we promise, one long sum in float32, and operands rounded to bfloat16.
OURS, FLOAT32, BFLOAT16 = {"result": 1e-5}, {"result": 1e-4}, {"result": 2e-2}

Parts = tuple[list[Provider], Callable[[], Tensor], int]
"""Providers, their truth, and how many float32 vectors of length P are read or written beside the bank."""


@dataclass(frozen=True)
class Problem:
    """The tensors of one benchmark."""

    spec: Spec
    bank: Tensor
    """(K, P)."""
    vector: Tensor
    """(P,) float32."""
    weights: Tensor
    """(K,) float32."""

    @classmethod
    def draw(cls, spec: Spec) -> Problem:
        K, P = spec["K"], spec["P"]
        generator = torch.Generator(spec.device).manual_seed(0)
        bank = torch.empty(K, P, dtype=spec.torch_dtype, device=spec.device)
        for row in bank:  # row by row: no float32 copy of the bank
            row.copy_(torch.randn(P, generator=generator, device=spec.device))
        vector = torch.randn(P, generator=generator, device=spec.device)
        return cls(spec, bank, vector, torch.rand(K, generator=generator, device=spec.device))

    def case(self, mode: str) -> Case:
        make = {"dot": self._dot, "combine": self._combine}[mode]
        providers, truth, num_vectors = make()
        absent = {} if self.bank.is_cuda else {"torch.compile": "not tried on a CPU"}

        def errors(result: Tensor) -> Errors:
            return {"result": relative_error(result, truth())}

        K, P = self.bank.shape
        spec = replace(self.spec, mode=mode)
        return Case(spec, providers, absent, errors, flop=2.0 * K * P, bytes=self.bank.nbytes + 4.0 * num_vectors * P)

    def _dot(self) -> Parts:
        bank, vector = self.bank, self.vector
        rows, parts = self._tensors()

        def loop() -> Tensor:
            terms = [torch.dot(g.float(), v) for row in rows for g, v in zip(row, parts, strict=True)]
            return torch.stack(terms).view(len(rows), -1).sum(dim=1)

        providers = [Provider("loop over tensors", loop, FLOAT32)]
        providers += self._flat(lambda b, v: torch.mv(b, v), vector)
        if bank.is_cuda:
            compiled = torch.compile(lambda b, v: (b.float() * v).sum(dim=1), dynamic=False)
            providers.append(Provider("torch.compile", lambda: compiled(bank, vector), FLOAT32))
        providers += ours("grad_bank_dot", self.spec.device, lambda: grad_bank_dot(bank, vector), OURS)
        return providers, cache(lambda: self._true_dot(vector.double())), 1

    def _combine(self) -> Parts:
        bank, weights = self.bank, self.weights
        rows, _ = self._tensors()

        def loop() -> Tensor:
            total = torch.zeros_like(self.vector)
            for row, weight in zip(rows, weights.tolist(), strict=True):
                for into, g in zip(total.tensor_split(NUM_TENSORS), row, strict=True):
                    into.add_(g, alpha=weight)
            return total

        providers = [Provider("loop over tensors", loop, FLOAT32)]
        providers += self._flat(lambda b, w: torch.mv(b.T, w), weights)
        if bank.is_cuda:
            compiled = torch.compile(lambda b, w: (b.float() * w[:, None]).sum(dim=0), dynamic=False)
            providers.append(Provider("torch.compile", lambda: compiled(bank, weights), FLOAT32))
        providers += ours("grad_bank_combine", self.spec.device, lambda: grad_bank_combine(bank, weights), OURS)
        return providers, cache(self._true_combine), 1

    def _flat(self, product: Callable[[Tensor, Tensor], Tensor], operand: Tensor) -> list[Provider]:
        """One matrix product over the whole bank, in float32 and in the bank's own bfloat16."""
        bank = self.bank
        providers = [Provider("flat mv, float32", lambda: product(bank.float(), operand), FLOAT32)]
        if bank.dtype == torch.bfloat16:
            providers.append(Provider("flat mv, bfloat16", lambda: product(bank, operand.bfloat16()), BFLOAT16))
        return providers

    def _tensors(self) -> tuple[list[tuple[Tensor, ...]], tuple[Tensor, ...]]:
        """Rows and vector cut as a model's parameters would cut them."""
        return [row.tensor_split(NUM_TENSORS) for row in self.bank], self.vector.tensor_split(NUM_TENSORS)

    def _true_dot(self, vector: Tensor) -> Tensor:
        """(K,) float64."""
        return torch.stack([torch.dot(row.double(), vector) for row in self.bank])

    def _true_combine(self) -> Tensor:
        """(P,) float64."""
        total = torch.zeros_like(self.vector, dtype=torch.float64)
        for row, weight in zip(self.bank, self.weights.tolist(), strict=True):
            total.add_(row, alpha=weight)
        return total
