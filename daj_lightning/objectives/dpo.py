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
        nll_weight: adds so much of the chosen response's negative log-likelihood, a mean over its tokens
            (Pang et al. 2024, Eq. 1). DPO only sees differences: where both responses share their words, a high
            learning rate lets these drift, and the judge forgets how to answer. 0 is plain DPO.
    """

    needs_reference = True

    def __init__(self, beta: float = 0.1, nll_weight: float = 0.0) -> None:
        if beta <= 0 or nll_weight < 0:
            raise DajError(f"DPO needs beta > 0 and nll_weight >= 0, got {beta} and {nll_weight}.")
        self.beta = beta
        self.nll_weight = nll_weight

    def __call__(self, judge: Judge, batch: JudgeBatch) -> Tensor:
        """(B,) float32, differentiable in what the judge trains."""
        assert batch.reference_logp is not None
        chosen, rejected = judge.response_logp(batch).view(-1, 2).unbind(dim=1)
        reference_chosen, reference_rejected = batch.reference_logp.view(-1, 2).unbind(dim=1)
        loss = dpo_loss(PairLogProbs(chosen, rejected, reference_chosen, reference_rejected), beta=self.beta)
        if self.nll_weight == 0:
            return loss
        num_tokens = batch.response_mask.sum(dim=1)[::2]
        return loss - self.nll_weight * chosen / num_tokens
