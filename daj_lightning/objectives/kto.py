"""Kahneman-Tversky optimization, one number per response; its divergence is estimated over a whole window.

Letters: B samples, one row of tokens each.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch
from torch import Tensor

from daj_lightning.judge import Judge
from daj_lightning.kernels import KTOTerms, segment_offsets, segment_preference_loss
from daj_lightning.objectives.base import Objective
from daj_lightning.records import DajError, JudgeBatch


class KTO(Objective):
    """The objective of one response, which is desirable iff it earned a reward of 1: it selects a right candidate.

    Args:
        beta, desirable_weight, undesirable_weight: see `kto_loss`.
    """

    unit = "response"
    needs_reference = True
    min_samples = 2

    def __init__(self, beta: float = 0.1, desirable_weight: float = 1.0, undesirable_weight: float = 1.0) -> None:
        if beta <= 0 or desirable_weight <= 0 or undesirable_weight <= 0:
            raise DajError(
                f"KTO needs beta, desirable_weight and undesirable_weight > 0, got {beta}, {desirable_weight} and "
                f"{undesirable_weight}."
            )
        self.beta = beta
        self.desirable_weight = desirable_weight
        self.undesirable_weight = undesirable_weight

    def __call__(self, judge: Judge, batch: JudgeBatch) -> Tensor:
        """(B,) float32, differentiable in what the judge trains; `prepare` comes first."""
        assert batch.reference_logp is not None
        assert batch.rewards is not None
        assert batch.kl is not None, "KTO.prepare comes first, with the whole window"
        logp = judge.token_logp(batch.input_ids, batch.attention_mask, batch.response_mask)
        terms = KTOTerms(
            batch.reference_logp,
            batch.kl,
            batch.rewards == 1,
            beta=self.beta,
            desirable_weight=self.desirable_weight,
            undesirable_weight=self.undesirable_weight,
        )
        return segment_preference_loss(logp, segment_offsets(batch.response_mask), terms)

    def prepare(self, judge: Judge, batch: JudgeBatch) -> JudgeBatch:
        """The batch with `kl`: the estimate over all of its samples, or 0 where that is negative.

        Raises:
            DajError: a single sample.
        """
        return replace(batch, kl=estimate_kl(judge, batch).clamp(min=0).repeat(len(batch)))


@torch.no_grad()
def estimate_kl(judge: Judge, batch: JudgeBatch) -> Tensor:
    """How far the judge is from its reference, from responses that belong to other prompts.

    The mean of log judge(y') - log reference(y') over prompts x, where y' is the response of the sample before x,
    and the last sample's for the first (Ethayarajh et al. 2024, section 4.1; rotated as TRL does inside a batch).
    One sample at a time; a response is cut where the model's context ends. Unlike a divergence it can be negative.

    Returns:
        () nats.
    Raises:
        DajError: a single sample, whose own response would make the estimate its own implied reward.
    """
    if len(batch) < 2:
        raise DajError(
            f"KTO estimates its divergence from the responses of other samples of the window, which holds {len(batch)}."
            f" Set num_inner and num_meta of data to 2 or more."
        )
    context = getattr(judge.causal_lm.config, "max_position_embeddings", None) or sys.maxsize
    log_ratios = []
    for i in range(len(batch)):
        prompt = batch.input_ids[i, batch.attention_mask[i] & ~batch.response_mask[i]]
        response = batch.input_ids[i - 1, batch.response_mask[i - 1]][: context - len(prompt)]
        row = torch.cat([prompt, response])[None]
        scored = torch.arange(row.size(1), device=row.device)[None] >= len(prompt)
        arguments = row, torch.ones_like(scored), scored
        logp = judge.token_logp(*arguments).sum()
        with judge.reference():
            log_ratios.append(logp - judge.token_logp(*arguments).sum())
    return torch.stack(log_ratios).mean()
