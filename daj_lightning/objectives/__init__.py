"""Objectives: `(judge, batch) -> (B,)`, a formula of one sample, never a mean and never a weight."""

from daj_lightning.objectives.base import Objective
from daj_lightning.objectives.dpo import DPO, PairLogProbs, dpo_loss

__all__ = ["DPO", "Objective", "PairLogProbs", "dpo_loss"]
