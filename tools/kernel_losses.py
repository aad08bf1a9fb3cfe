"""Losses of samples from their tokens' log-probabilities, and what one would write without the fused ops.

Modes: dpo (segment_preference_loss) and grpo (segment_policy_loss), both with instance weights and with the gradient.
Ours take the tokens row after row; eager takes rows padded to one length, as trainers do.
Letters: R rows, T tokens of the longest row, B samples, N tokens over all rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from daj_lightning.kernels import DPOTerms, PolicyTerms, segment_offsets, segment_policy_loss, segment_preference_loss
from kernel_cases import Case, Errors, Provider, Spec, ours, relative_error

MODES = ("dpo", "grpo")
BETA, KL, EPSILON = 0.1, 0.04, 0.2
GROUP = 4  # responses to a prompt
# Relative in the L2 norm. Rows of 400 nats, summed in float32 one after another, are off by some 1e-4 nats.
OURS, PEERS = {"loss": 3e-6, "gradient": 3e-6}, {"loss": 1e-4, "gradient": 1e-4}

Losses = Callable[[Tensor], Tensor]
"""Log-probabilities -> losses (B,)."""
Result = tuple[Tensor, Tensor]
"""Losses (B,) and the gradient of their sum by the tokens' log-probabilities, padded (R, T) or not (N,)."""


@dataclass(frozen=True)
class Problem:
    """Rows between half and the whole of the length; a policy and a reference a little off the judge."""

    spec: Spec
    mask: Tensor
    """(R, T) bool."""
    logp: Tensor
    """(R, T), 0 outside of the mask; so are the next two."""
    old: Tensor
    reference: Tensor
    reference_rows: Tensor
    """(R,) of whole rows."""
    advantages: Tensor
    """(R,)."""
    weights: Tensor
    """(R,), of which a mode takes the first B."""

    @classmethod
    def draw(cls, spec: Spec) -> Problem:
        R, T = spec["R"], spec["T"]
        generator = torch.Generator(spec.device).manual_seed(0)
        draw = partial(torch.randn, generator=generator, device=spec.device)
        lengths = torch.randint(T // 2, T + 1, (R, 1), generator=generator, device=spec.device)
        mask = torch.arange(T, device=spec.device) < lengths
        logp = -draw(R, T).exp() * mask
        old, reference = (logp + 0.1 * draw(R, T) * mask for _ in range(2))
        weights = torch.rand(R, generator=generator, device=spec.device)
        return cls(spec, mask, logp, old, reference, reference.sum(dim=1), draw(R), weights)

    def case(self, mode: str) -> Case:
        losses, own_op, own_losses, num_reads = {
            "dpo": (self._dpo, "segment_preference_loss", self._our_dpo(), 1),
            "grpo": (self._grpo, "segment_policy_loss", self._our_grpo(), 3),
        }[mode]
        rows = self.logp[self.mask]
        providers = [Provider("eager", partial(self._eager, losses), PEERS)]
        absent = {}
        if self.spec.compiled:
            compiled = torch.compile(losses, dynamic=False)
            providers.append(Provider("eager, torch.compile", partial(self._eager, compiled), PEERS))
        else:
            absent["eager, torch.compile"] = "on a CPU with --compile only"
        providers += ours(own_op, self.spec.device, partial(with_gradient, own_losses, rows), OURS)
        tokens = float(self.mask.sum())
        return Case(
            replace(self.spec, mode=mode),
            providers,
            absent,
            partial(self._errors, losses),
            flop=20 * tokens,
            bytes=4 * (num_reads + 1) * tokens,
        )

    def _errors(self, losses: Losses, result: Result) -> Errors:
        truth, true_gradient = self._eager(losses, torch.float64)
        loss, gradient = result
        flat = gradient[self.mask] if gradient.dim() == 2 else gradient
        return {"loss": relative_error(loss, truth), "gradient": relative_error(flat, true_gradient[self.mask])}

    def _eager(self, losses: Losses, dtype: torch.dtype = torch.float32) -> Result:
        return with_gradient(losses, self.logp.to(dtype))

    def _dpo(self, logp: Tensor) -> Tensor:
        margin = ((logp * self.mask).sum(dim=1) - self.reference_rows).view(-1, 2)
        return -self.weights[: len(margin)] * F.logsigmoid(BETA * (margin[:, 0] - margin[:, 1]))

    def _grpo(self, logp: Tensor) -> Tensor:
        ratio, advantages = torch.exp(logp - self.old), self.advantages[:, None]
        gain = torch.minimum(ratio * advantages, ratio.clamp(1 - EPSILON, 1 + EPSILON) * advantages)
        towards = self.reference - logp
        token_losses = KL * (torch.exp(towards) - towards - 1) - gain
        of_group = ((token_losses * self.mask).sum(dim=1) / self.mask.sum(dim=1)).view(-1, GROUP).sum(dim=1)
        return self.weights[: len(of_group)] * of_group

    def _our_dpo(self) -> Losses:
        weights, terms = self.weights[: self.spec["R"] // 2], DPOTerms(self.reference_rows, BETA)
        return lambda logp: segment_preference_loss(logp, self._offsets, terms, weights)

    def _our_grpo(self) -> Losses:
        weights, old, reference = (
            self.weights[: self.spec["R"] // GROUP],
            self.old[self.mask],
            self.reference[self.mask],
        )
        terms = PolicyTerms(
            GROUP, self.advantages, self.mask.sum(dim=1), old, None, reference, epsilon=EPSILON, beta=KL
        )
        return lambda logp: segment_policy_loss(logp, self._offsets, terms, weights)

    @cached_property
    def _offsets(self) -> Tensor:
        return segment_offsets(self.mask)


def with_gradient(losses: Losses, logp: Tensor) -> Result:
    logp = logp.detach().requires_grad_()
    loss = losses(logp)
    (gradient,) = torch.autograd.grad(loss.sum(), logp)
    return loss.detach(), gradient
