"""Odds ratio preference optimization, one number per pair; no reference.

Letters: B pairs, R = 2 B rows of T tokens, N scored tokens over all rows.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from daj_lightning.judge import Judge
from daj_lightning.objectives.base import Objective
from daj_lightning.records import DajError, JudgeBatch


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


class ORPO(Objective):
    """The objective of one preference pair; chosen and rejected go through the judge in one forward.

    Args:
        beta: see `orpo_loss`.
        nll_on_prompt: the likelihood term also covers the prompt's tokens but the first, as in TRL, whose head then
            runs on every token of the chosen row. The paper's covers the response alone.
    """

    unit = "pair"

    def __init__(self, beta: float = 0.1, nll_on_prompt: bool = False) -> None:
        if beta <= 0:
            raise DajError(f"ORPO needs beta > 0, got {beta}.")
        self.beta = beta
        self.nll_on_prompt = nll_on_prompt

    def __call__(self, judge: Judge, batch: JudgeBatch) -> Tensor:
        """(B,) float32, differentiable in what the judge trains."""
        in_response = batch.response_mask
        scored = in_response
        if self.nll_on_prompt:
            is_chosen = torch.zeros_like(in_response)
            is_chosen[::2, 1:] = True
            scored = in_response | (batch.attention_mask & is_chosen)
        logp_N = judge.token_logp(batch.input_ids, batch.attention_mask, scored)
        row_N = scored.nonzero()[:, 0]

        def mean(counted: Tensor) -> Tensor:
            """(R,) over the tokens where `counted` (R, T), all of them scored, is true."""
            total = logp_N.new_zeros(counted.size(0)).index_add(0, row_N, logp_N * counted[scored])
            return total / counted.sum(dim=1)

        chosen, rejected = mean(in_response).view(-1, 2).unbind(dim=1)
        return orpo_loss(chosen, rejected, -mean(scored)[::2], beta=self.beta)
