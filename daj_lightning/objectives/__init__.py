"""Objectives: `(judge, batch) -> (B,)`, a formula of one sample, never a mean and never a weight."""

from daj_lightning.kernels.losses import (
    PairLogProbs,
    ResponseLogProbs,
    TokenLogProbs,
    dpo_loss,
    grpo_token_loss,
    kto_loss,
    log1mexp,
    orpo_loss,
)
from daj_lightning.objectives.base import Objective
from daj_lightning.objectives.dpo import DPO
from daj_lightning.objectives.grpo import GRPO, group_advantages, row_divisors
from daj_lightning.objectives.kto import KTO, estimate_kl
from daj_lightning.objectives.orpo import ORPO
from daj_lightning.objectives.sft import SFT

__all__ = [
    "DPO",
    "GRPO",
    "KTO",
    "ORPO",
    "SFT",
    "Objective",
    "PairLogProbs",
    "ResponseLogProbs",
    "TokenLogProbs",
    "dpo_loss",
    "estimate_kl",
    "group_advantages",
    "grpo_token_loss",
    "kto_loss",
    "log1mexp",
    "orpo_loss",
    "row_divisors",
]
