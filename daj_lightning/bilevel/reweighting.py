"""alpha: a weight for every sample, `(batch, losses) -> (B,)`, differentiable in its own parameters.

Every map ends in squareplus: non-negative, 1 at 0, and with a slope that falls only as 1/x^2, so that a
weight that came near zero can return. A clamp has no slope at its bound, and softplus loses it
exponentially: at -40 it is below Adam's eps. Weights are scaled so that 1 means "as in plain training"
(the window gradient is (1/K) sum alpha_i g_i).
Letters: B samples, D domains, S samples in the training set.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from daj_lightning.records import DajError, JudgeBatch


def squareplus(x: Tensor) -> Tensor:
    """(x + sqrt(x^2 + 4)) / 2 (Barron 2021), elementwise; 1 at 0, without cancellation for x < 0."""
    root = (x * x + 4).sqrt()
    return torch.where(x < 0, 2 / (root - x), (x + root) / 2)


class TrainingSet(NamedTuple):
    """What a reweighter may know of the data before training."""

    domains: tuple[str, ...]
    """Names; a batch's `domains` index them."""
    num_samples: int
    """S; a batch's `sample_ids` are below it."""


class Reweighter(nn.Module, ABC):
    """The seam: a weight for each sample of a batch, knowing no engine."""

    def build(self, training_set: TrainingSet) -> None:
        """Create the parameters that depend on the data; called once, before the optimizer is made."""

    @abstractmethod
    def forward(self, batch: JudgeBatch, losses: Tensor) -> Tensor:
        """(B,) non-negative weights, given the samples' detached losses (B,)."""

    def named_weights(self) -> dict[str, float]:
        """Weights worth a line in the log, by name; empty where there are too many."""
        return {}


class Uniform(Reweighter):
    """No reweighting: every weight is 1 and nothing is learned."""

    def forward(self, batch: JudgeBatch, losses: Tensor) -> Tensor:
        return torch.ones_like(losses)


class DomainWeights(Reweighter):
    """One weight per domain (paper, section 4: "domain reweighting").

    alpha_k = squareplus(raw_k) / sum_j squareplus(raw_j): positive, sums to 1 over the D domains, starts at
    1/D. A sample weighs D alpha_k, so that the mean over the domains is 1. Normalised over the domains and
    not over the window, because a window may hold a single domain.
    """

    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.empty(0))
        self.names: tuple[str, ...] = ()

    def build(self, training_set: TrainingSet) -> None:
        self.names = training_set.domains
        self.raw = nn.Parameter(torch.zeros(len(self.names)))

    def alphas(self) -> Tensor:
        """(D,), sums to 1: the paper's alpha."""
        positive = squareplus(self.raw)
        return positive / positive.sum()

    def forward(self, batch: JudgeBatch, losses: Tensor) -> Tensor:
        del losses
        return self.alphas()[batch.domains] * len(self.names)

    def named_weights(self) -> dict[str, float]:
        return dict(zip(self.names, self.alphas().tolist(), strict=True))


class InstanceTable(Reweighter):
    """One weight per training sample (paper, section 4: "instance table").

    alpha_i = squareplus(raw_i), starts at 1, not normalised. Its gradient is sparse: with `LazyAdam` only
    the rows of the window move.
    """

    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Embedding(0, 1, sparse=True)

    def build(self, training_set: TrainingSet) -> None:
        self.raw = nn.Embedding(training_set.num_samples, 1, sparse=True)
        nn.init.zeros_(self.raw.weight)

    def forward(self, batch: JudgeBatch, losses: Tensor) -> Tensor:
        del losses
        return squareplus(self.raw(batch.sample_ids)).squeeze(1)


class InstanceNet(Reweighter):
    """A weight as a function of the sample's loss (paper, Eq. 2: "instance net").

    alpha_i = squareplus(MLP(loss_i)), two hidden layers (App. B: "each containing 10 hidden units"), random
    start near 1, not normalised. The loss enters detached: the weight is data, not a second objective.

    Args:
        hidden: units in each hidden layer.
    """

    def __init__(self, hidden: int = 10) -> None:
        super().__init__()
        if hidden < 1:
            raise DajError(f"the instance net needs hidden >= 1, got {hidden}.")
        self.net = nn.Sequential(
            nn.Linear(1, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1)
        )

    def forward(self, batch: JudgeBatch, losses: Tensor) -> Tensor:
        del batch
        return squareplus(self.net(losses.detach()[:, None])).squeeze(1)


def shares(names: Sequence[str], weights: Sequence[float]) -> dict[str, float]:
    """Weights by name, divided by their mean: 1 is the share that plain training would give."""
    mean = sum(weights) / len(weights)
    return {name: weight / mean for name, weight in zip(names, weights, strict=True)}
