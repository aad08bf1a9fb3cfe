"""The loss of a sample at other adapters than the judge's own."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.func import functional_call

from daj_lightning.bilevel.flat import FlatView
from daj_lightning.judge import Judge
from daj_lightning.objectives import Objective
from daj_lightning.records import JudgeBatch

LossAt = Callable[[Tensor, JudgeBatch], Tensor]
"""(adapters (P,), batch) -> losses (B,), differentiable in the adapters; the judge's own stay as they are."""


class RecomputedLoss(nn.Module):
    """The objective with the judge's adapters swapped for a vector's slices.

    Args:
        judge: whose other parameters are used as they are.
        objective: of one sample.
    """

    def __init__(self, judge: Judge, objective: Objective) -> None:
        super().__init__()
        self.judge = judge
        self.objective = objective
        self.flat = FlatView(judge.trained_parameters())
        own = {id(parameter): name for name, parameter in self.named_parameters()}
        self.names = [own[id(parameter)] for parameter in self.flat.parameters]

    def forward(self, batch: JudgeBatch) -> Tensor:
        return self.objective(self.judge, batch)

    def at(self, phi: Tensor, batch: JudgeBatch) -> Tensor:
        """The `LossAt` of this judge."""
        swapped = dict(zip(self.names, self.flat.split(phi), strict=True))
        losses: Tensor = functional_call(self, swapped, (batch,))
        return losses
