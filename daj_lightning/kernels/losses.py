"""The losses' formulas: the specification of csrc/include/daj/losses.h.

Nothing here averages over samples or weights them.
Letters: B samples, R rows of T tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PairLogProbs:
    """Summed response log-probabilities of B pairs; each (B,) float32, nats."""

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor


@dataclass(frozen=True, slots=True)
class ResponseLogProbs:
    """Summed log-probabilities of B responses; each (B,) float32, nats."""

    judge: Tensor
    reference: Tensor


@dataclass(frozen=True, slots=True)
class TokenLogProbs:
    """Log-probabilities of the response tokens of R rows; each (R, T) float32, nats, 0 elsewhere."""

    judge: Tensor
    old: Tensor | None = None
    """Under the policy that ratios refer to; None: under the judge as it is, with ratios of 1."""
    sampled: Tensor | None = None
    """Under the engine that drew the responses; None: that was the policy which ratios refer to."""
    reference: Tensor | None = None


def dpo_loss(logp: PairLogProbs, *, beta: float) -> Tensor:
    """DPO loss of each pair (Rafailov et al. 2023, Eq. 7).

    Args:
        logp: under the judge and under the reference.
        beta: strength of the pull towards the reference, > 0 (DaJ: 0.1).
    Returns:
        (B,) float32; ln 2 while the judge equals its reference.
    """
    margin = (logp.chosen - logp.reference_chosen) - (logp.rejected - logp.reference_rejected)
    return -F.logsigmoid(beta * margin)


def kto_loss(
    logp: ResponseLogProbs,
    kl: Tensor,
    desirable: Tensor,
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """KTO loss of each response (Ethayarajh et al. 2024, Eq. 7; Eq. 8 says which weights balance unequal numbers).

    Args:
        logp: under the judge and under the reference.
        kl: (B,) nats, the reference point z_0: how far the judge is from its reference; no gradient.
        desirable: (B,) bool.
        beta: how fast the value of a gain saturates, > 0 (DaJ: 0.1).
        desirable_weight, undesirable_weight: of a desirable and of an undesirable response, lambda_D and lambda_U.
    Returns:
        (B,) float32; half of its weight for a response that is as likely as under the reference, at kl = 0.
    """
    gain = torch.where(desirable, 1.0, -1.0) * (logp.judge - logp.reference - kl)
    loss = torch.sigmoid(-beta * gain)  # 1 - sigmoid(beta gain), without the cancellation at large gains
    return torch.where(desirable, desirable_weight * loss, undesirable_weight * loss)


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - e^x) for x <= 0, without cancellation on either side of -ln 2; finite at 0, with a derivative of 0."""
    x = x.clamp(max=-torch.finfo(x.dtype).eps)
    return torch.where(x > -math.log(2), torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(x)))


def orpo_loss(chosen: Tensor, rejected: Tensor, nll: Tensor, *, beta: float) -> Tensor:
    """ORPO loss of each pair (Hong et al. 2024, Eq. 6 and 7).

    Args:
        chosen, rejected: (B,) nats, log-probability of each response, a mean over its tokens.
        nll: (B,) nats, negative log-likelihood of the chosen response, a mean over tokens.
        beta: weight of the odds ratio, > 0 (the paper's lambda; DaJ: 0.1).
    Returns:
        (B,) float32.
    """
    log_odds_ratio = (chosen - log1mexp(chosen)) - (rejected - log1mexp(rejected))
    return nll - beta * F.logsigmoid(log_odds_ratio)


def grpo_token_loss(
    logp: TokenLogProbs,
    advantages: Tensor,
    *,
    epsilon: float = 0.2,
    epsilon_high: float | None = None,
    beta: float = 0.0,
    unbiased_kl: bool = False,
    importance_cap: float | None = 3.0,
) -> Tensor:
    """Loss of each response token (Shao et al. 2024, the summand of Eq. 3, negated; its KL estimate is Eq. 4).

    Args:
        logp: the judge's and, as far as they are there, the others'.
        advantages: (R,).
        epsilon: ratios of judge to old policy below 1 - epsilon have no gradient where the advantage is negative.
        epsilon_high: above 1 + this, none where it is positive; None: epsilon (Yu et al. 2025, Eq. 8).
        beta: weight of the KL estimate to the reference.
        unbiased_kl: multiplies the estimate by the ratio, so that its gradient too is that of the divergence
            (DeepSeek-AI 2025, DeepSeek-V3.2; TRL's default). Shao et al. do not.
        importance_cap: the clipped term, not the KL, is weighted by min(old policy / sampling engine, this): truncated
            importance sampling (Yao et al. 2025; "token_truncate" in TRL). None: no correction.
    Returns:
        (R, T) float32; without meaning outside of responses.
    """
    old = logp.judge.detach() if logp.old is None else logp.old
    ratio = torch.exp(logp.judge - old)
    clipped = ratio.clamp(1 - epsilon, 1 + (epsilon if epsilon_high is None else epsilon_high))
    loss = -torch.minimum(ratio * advantages[:, None], clipped * advantages[:, None])
    if logp.sampled is not None and importance_cap is not None:
        loss = loss * torch.exp(old - logp.sampled).clamp(max=importance_cap)
    if beta == 0:
        return loss
    assert logp.reference is not None
    towards = logp.reference - logp.judge
    kl = torch.exp(towards) - towards - 1
    return loss + beta * (kl * ratio if unbiased_kl else kl)
