"""The seam of the objectives."""

from abc import ABC, abstractmethod

from torch import Tensor

from daj_lightning.judge import Judge
from daj_lightning.records import JudgeBatch


class Objective(ABC):
    """One loss per sample, differentiable in the judge's adapters: no mean, no weight."""

    @abstractmethod
    def __call__(self, judge: Judge, batch: JudgeBatch) -> Tensor:
        """(B,) float32 for a batch of B samples."""
