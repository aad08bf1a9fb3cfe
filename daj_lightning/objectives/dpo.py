"""Direct preference optimization, one number per pair."""

from __future__ import annotations

from torch import Tensor

from daj_lightning.judge import Judge
from daj_lightning.kernels import DPOTerms, segment_offsets, segment_preference_loss
from daj_lightning.objectives.base import Objective
from daj_lightning.records import DajError, JudgeBatch


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
        logp = judge.token_logp(batch.input_ids, batch.attention_mask, batch.response_mask, rows_per_sample=2)
        terms = DPOTerms(batch.reference_logp, self.beta, self.nll_weight)
        return segment_preference_loss(logp, segment_offsets(batch.response_mask), terms)
