"""Supervised fine-tuning on chosen responses: the warm start before reinforcement learning."""

from __future__ import annotations

from torch import Tensor

from daj_lightning.judge import Judge
from daj_lightning.objectives.base import Objective
from daj_lightning.records import JudgeBatch


class SFT(Objective):
    """Negative log-likelihood of one response, a mean over its tokens: cross entropy, no reference, no preference.

    J1's warm start (Whitehouse et al. 2025) and the ablation of DuST train with it.
    """

    unit = "chosen"

    def __call__(self, judge: Judge, batch: JudgeBatch) -> Tensor:
        """(B,) float32, nats, differentiable in what the judge trains."""
        return -judge.response_logp(batch) / batch.response_mask.sum(dim=1)
