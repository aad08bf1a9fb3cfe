"""The seam of the objectives."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from torch import Tensor

from daj_lightning.judge import Judge
from daj_lightning.records import JudgeBatch, Unit


class Objective(ABC):
    """One loss per sample, differentiable in what the judge trains: no mean over samples, no weight."""

    unit: Unit = "pair"
    needs_reference: bool = False
    """`JudgeBatch.reference_logp` has to be there; it is computed once, before training."""

    needs_repeatability: bool = False
    """Compares log-probabilities of several passes, so that dropout would count as a change of the judge."""
    min_samples: int = 1
    """Of a window and of a meta batch."""

    @abstractmethod
    def __call__(self, judge: Judge, batch: JudgeBatch) -> Tensor:
        """(B,) float32 for a batch of B samples."""

    def parts(self, judge: Judge, samples: JudgeBatch) -> Iterator[Tensor]:
        """The losses of a micro-batch as (B,) terms that add up; each graph may be freed before the next is built.

        B is 1 where a sample is a prompt.
        """
        yield self(judge, samples)

    def anchor(self, judge: Judge, batch: JudgeBatch) -> JudgeBatch:
        """The batch with whatever refers to the judge that drew its responses; called before this judge moves."""
        del judge
        return batch

    def prepare(self, judge: Judge, batch: JudgeBatch) -> JudgeBatch:
        """The batch with all that the loss holds constant and that depends on the judge as it is.

        Called once for a window before its first sample, and once for a meta batch at the moved judge.
        """
        del judge
        return batch
