"""Odds ratio preference optimization, one number per pair; no reference.

Letters: B pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from daj_lightning.judge import Judge
from daj_lightning.kernels import ORPOTerms, segment_offsets, segment_preference_loss
from daj_lightning.objectives.base import Objective
from daj_lightning.records import DajError, JudgeBatch


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
        scored, counted = batch.response_mask, None
        if self.nll_on_prompt:
            is_chosen = torch.zeros_like(scored)
            is_chosen[::2, 1:] = True
            scored = batch.response_mask | (batch.attention_mask & is_chosen)
            counted = batch.response_mask[scored]
        logp = judge.token_logp(batch.input_ids, batch.attention_mask, scored, rows_per_sample=2)
        return segment_preference_loss(logp, segment_offsets(scored), ORPOTerms(self.beta, counted))
