"""From hidden states to the GRPO loss and its gradient, on policy and without KL: the log-probabilities' op and the
policy loss's in a row, beside what others fuse into one.

Letters: N tokens in R rows of T, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

import kernel_logprob
from daj_lightning.kernels import PolicyTerms, fused_linear_logprob, segment_policy_loss
from kernel_cases import Case, Errors, Provider, Spec, missing, ours, relative_error
from kernel_logprob import LogProb

MODES = ("full",)
EPSILON = 0.2
OURS = {dtype: {"loss": 1e-5, "gradient": bounds["gradient"]} for dtype, bounds in kernel_logprob.OURS.items()}
PEERS = {dtype: {"loss": 1e-3, "gradient": bounds["gradient"]} for dtype, bounds in kernel_logprob.PEERS.items()}

Result = tuple[Tensor, Tensor]
"""Loss () and its gradient by the hidden states (N, H)."""


@dataclass(frozen=True)
class Problem:
    """Rows of one length, each a sample."""

    spec: Spec
    tokens: kernel_logprob.Problem
    advantages: Tensor
    """(R,)."""

    @classmethod
    def draw(cls, spec: Spec) -> Problem:
        tokens = kernel_logprob.Problem.draw(spec)
        R = spec["N"] // spec["T"]
        generator = torch.Generator(spec.device).manual_seed(1)
        return cls(spec, tokens, torch.randn(R, generator=generator, device=spec.device))

    def case(self, mode: str) -> Case:
        peers, absent = self.tokens.peers()
        tolerance = PEERS[self.spec.dtype]
        providers = [
            Provider(name, partial(self._with_gradient, partial(self._eager, logprob)), tolerance)
            for name, logprob in peers.items()
        ]
        if reason := missing("triton", "liger_kernel"):
            absent["Liger GRPO"] = reason
        else:
            providers.append(Provider("Liger GRPO", partial(self._with_gradient, self._liger()), tolerance))
        own = partial(self._with_gradient, self._ours())
        providers += ours("fused_linear_logprob", self.spec.device, own, OURS[self.spec.dtype])
        full = self.tokens.case("full")
        spec = replace(self.spec, mode=mode)
        return Case(spec, providers, absent, self._errors, full.flop, full.bytes, full.bare_gemms)

    def _errors(self, result: Result) -> Errors:
        """Where the policy is its own reference for ratios, these are 1 and their derivatives those of logp."""
        loss, gradient = result
        _, u = self.tokens.truth
        each = self.advantages.double().repeat_interleave(self.spec["T"]) / self.spec["N"]
        return {
            "loss": relative_error(loss, -each.sum()),
            "gradient": relative_error(gradient, -each[:, None] * u),
        }

    def _with_gradient(self, loss: Callable[[Tensor], Tensor]) -> Result:
        hidden = self.tokens.hidden.detach().requires_grad_()
        value = loss(hidden)
        (gradient,) = torch.autograd.grad(value, hidden)
        return value.detach(), gradient

    def _eager(self, logprob: LogProb, hidden: Tensor) -> Tensor:
        logp, advantages = logprob(hidden).view(-1, self.spec["T"]), self.advantages[:, None]
        ratio = torch.exp(logp - logp.detach())
        return -torch.minimum(ratio * advantages, ratio.clamp(1 - EPSILON, 1 + EPSILON) * advantages).mean()

    def _ours(self) -> Callable[[Tensor], Tensor]:
        T, weight, targets = self.spec["T"], self.tokens.weight, self.tokens.targets
        lengths = torch.full_like(self.advantages, T, dtype=torch.int64)
        offsets = torch.arange(len(lengths) + 1, device=lengths.device) * T
        terms = PolicyTerms(1, self.advantages, lengths, epsilon=EPSILON)

        def loss(hidden: Tensor) -> Tensor:
            logp = fused_linear_logprob(hidden, weight, targets).logp
            return segment_policy_loss(logp, offsets, terms).mean()

        return loss

    def _liger(self) -> Callable[[Tensor], Tensor]:
        from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss

        T, tokens = self.spec["T"], self.tokens
        fused = LigerFusedLinearGRPOLoss(beta=0.0, use_ref_model=False, loss_type="grpo")
        targets = tokens.targets.view(-1, T)
        mask = torch.ones_like(targets)

        def loss(hidden: Tensor) -> Tensor:
            return fused(hidden.view(len(targets), T, -1), tokens.weight, targets, mask, self.advantages)[0]

        return loss
