"""The gradient bank's ops and what one would write without them.

Modes: dot (every row against one vector), combine (the rows' weighted sum), adam dot (every row against the vector
times Adam's Jacobian).
Letters: K rows, P adapter parameters in NUM_TENSORS tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial

import torch
from torch import Tensor

from daj_lightning.kernels import AdamJacobian, grad_bank_combine, grad_bank_dot, grad_bank_dot_adam
from kernel_cases import Case, Errors, Provider, Spec, ours, relative_error

MODES = ("dot", "combine", "adam dot")
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
        make = {"dot": self._dot, "combine": self._combine, "adam dot": self._adam_dot}[mode]
        providers, truth, num_vectors = make()
        absent = {} if self.spec.compiled else {"torch.compile": "on a CPU with --compile only"}

        def errors(result: Tensor | tuple[Tensor, Tensor]) -> Errors:
            flat = result if isinstance(result, Tensor) else torch.hstack(result)
            return {"result": relative_error(flat, truth())}

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
        if self.spec.compiled:
            compiled = torch.compile(lambda b, v: (b.float() * v).sum(dim=1), dynamic=False)
            providers.append(Provider("torch.compile", lambda: compiled(bank, vector), FLOAT32))
        providers += ours("grad_bank_dot", self.spec.device, lambda: grad_bank_dot(bank, vector), OURS)
        return providers, cache(lambda: self._true_dot(vector.double())), 1

    def _adam_dot(self) -> Parts:
        """Also <gradient, y>: what the hypergradient of a normalised window needs beside the rows' products."""
        bank, vector, jacobian = self.bank, self.vector, self._jacobian
        rows, parts = self._tensors()
        gradients, m0s, v0s = (t.tensor_split(NUM_TENSORS) for t in (jacobian.gradient, jacobian.m0, jacobian.v0))

        def loop() -> tuple[Tensor, Tensor]:
            ys = [v * textbook(jacobian, *g_m_v) for v, *g_m_v in zip(parts, gradients, m0s, v0s, strict=True)]
            terms = [torch.dot(g.float(), y) for row in [*rows, gradients] for g, y in zip(row, ys, strict=True)]
            products = torch.stack(terms).view(len(rows) + 1, -1).sum(dim=1)
            return products[:-1], products[-1]

        def flat(row_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
            y = vector * textbook(jacobian, jacobian.gradient, jacobian.m0, jacobian.v0)
            return torch.mv(bank.to(row_dtype), y.to(row_dtype)).float(), torch.dot(jacobian.gradient, y)

        def truth() -> Tensor:
            gradient, m0, v0 = (t.double() for t in (jacobian.gradient, jacobian.m0, jacobian.v0))
            y = vector.double() * textbook(jacobian, gradient, m0, v0)
            return torch.cat([self._true_dot(y), torch.dot(gradient, y)[None]])

        providers = [
            Provider("loop over tensors", loop, FLOAT32),
            Provider("flat mv, float32", lambda: flat(torch.float32), FLOAT32),
        ]
        if bank.dtype == torch.bfloat16:
            providers.append(Provider("flat mv, bfloat16", lambda: flat(torch.bfloat16), BFLOAT16))
        if self.spec.compiled:
            compiled = torch.compile(flat, dynamic=False)
            providers.append(Provider("torch.compile", lambda: compiled(torch.float32), FLOAT32))
        run = partial(grad_bank_dot_adam, bank, vector, jacobian)
        return [*providers, *ours("grad_bank_dot_adam", self.spec.device, run, OURS)], cache(truth), 4

    @cached_property
    def _jacobian(self) -> AdamJacobian:
        """Of Adam's tenth step, moments as of gradients with mean 0.1 and deviation 1."""
        generator = torch.Generator(self.vector.device).manual_seed(1)
        gradient, m0, v0 = (
            torch.randn(len(self.vector), generator=generator, device=self.vector.device) for _ in range(3)
        )
        m0.mul_(0.2).add_(0.06)
        v0.mul_(0.001).abs_().add_(0.009)
        return AdamJacobian(gradient, m0, v0, lr=1e-6, beta1=0.9, beta2=0.999, eps=1e-8, step=10)

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
        if self.spec.compiled:
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


def textbook(step: AdamJacobian, gradient: Tensor, m0: Tensor, v0: Tensor) -> Tensor:
    """Adam's Jacobian as one derives it from the update, without care for its rounding in the first step."""
    m, v = m0.lerp(gradient, 1 - step.beta1), step.beta2 * v0 + (1 - step.beta2) * gradient.square()
    bc1, bc2 = 1 - step.beta1**step.step, 1 - step.beta2**step.step
    root = (v / bc2).sqrt()
    below = root + step.eps
    own = m * (1 - step.beta2) * gradient / (bc2 * root * below)
    return step.lr / bc1 * ((1 - step.beta1) - own) / below
