"""Supervised fine-tuning on chosen responses: the warm start before reinforcement learning."""

from __future__ import annotations

from torch import Tensor

from daj_lightning.judge import Judge
from daj_lightning.kernels import SFTTerms, segment_offsets, segment_preference_loss
from daj_lightning.objectives.base import Objective
from daj_lightning.records import JudgeBatch


class SFT(Objective):
    """Negative log-likelihood of one response, a mean over its tokens: cross entropy, no reference, no preference.

    J1's warm start (Whitehouse et al. 2025) and the ablation of DuST train with it.
    """

    unit = "chosen"

    def __call__(self, judge: Judge, batch: JudgeBatch) -> Tensor:
        """(B,) float32, nats, differentiable in what the judge trains."""
        logp = judge.token_logp(batch.input_ids, batch.attention_mask, batch.response_mask)
        return segment_preference_loss(logp, segment_offsets(batch.response_mask), SFTTerms())
