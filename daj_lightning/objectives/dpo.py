"""Direct preference optimization, one number per pair."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from daj_lightning.judge import Judge
from daj_lightning.objectives.base import Objective
from daj_lightning.records import DajError, JudgeBatch


@dataclass(frozen=True, slots=True)
class PairLogProbs:
    """Summed response log-probabilities of B pairs; each (B,) float32, nats."""

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor


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


class DPO(Objective):
    """The objective of one preference pair; chosen and rejected go through the judge in one forward.

    Args:
        beta: see `dpo_loss`.
    """

    def __init__(self, beta: float = 0.1) -> None:
        if beta <= 0:
            raise DajError(f"DPO needs beta > 0, got {beta}.")
        self.beta = beta

    def __call__(self, judge: Judge, batch: JudgeBatch) -> Tensor:
        """(B,) float32, differentiable in the adapters."""
        chosen, rejected = judge.response_logp(batch).chunk(2)
        reference_chosen, reference_rejected = batch.reference_logp.chunk(2)
        return dpo_loss(PairLogProbs(chosen, rejected, reference_chosen, reference_rejected), beta=self.beta)
