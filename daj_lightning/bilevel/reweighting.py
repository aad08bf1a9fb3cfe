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

from daj_lightning.kernels import squareplus
from daj_lightning.records import DajError, JudgeBatch


class TrainingSet(NamedTuple):
    """What a reweighter may know of the data before training."""

    domains: tuple[str, ...]
    """Names; a batch's `domains` index them."""
    num_samples: int
    """S; a batch's `sample_ids` are below it."""


class Reweighter(nn.Module, ABC):
    """The seam: a weight for each sample of a batch, knowing no engine.

    The weight of a sample depends on that sample alone, and on windows before, so that it can be had before its window
    is complete.
    """

    needs_halves: bool = False
    """`measure` wants the derivative by both halves of the meta batch, which costs some engines more passes."""

    needs_rewards: bool = False
    """`forward` reads `JudgeBatch.rewards`."""

    def build(self, training_set: TrainingSet) -> None:
        """Create the parameters that depend on the data; called once, before the optimizer is made."""

    @abstractmethod
    def forward(self, batch: JudgeBatch, losses: Tensor) -> Tensor:
        """(B,) non-negative weights, given the samples' detached losses (B,)."""

    def accumulate(self, batch: JudgeBatch, losses: Tensor, derivative: Tensor) -> None:
        """Add sum_i d_i d alpha_i / d parameter to each parameter's `.grad`, for a derivative d (B,) by the weights."""
        self(batch, losses).backward(gradient=derivative)

    def measure(self, batch: JudgeBatch, first: Tensor, second: Tensor) -> None:
        """Told after an outer step: d L_meta / d alpha (B,) of the batch by each half of the meta batch."""

    def observe(self, batch: JudgeBatch, losses: Tensor) -> None:
        """Told at the end of every window what its samples' losses (K,) were, for weights that depend on the past."""

    def description(self) -> str:
        """What must not change between a run and its resumption."""
        return type(self).__name__

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


class HierarchicalWeights(Reweighter):
    """A domain's weight times a residual for every sample, which counts as far as it has proved reliable (ours).

    weight_i = D alpha_k (1 + rho_i (squareplus(raw_i) - 1)). A table of S weights follows noise where a
    meta batch says little of a single sample; domains average it away but are blind within. rho_i is the
    residual's reliability (Spearman-Brown): with r the correlation between d alpha by the two halves of a
    meta batch, within domains, and n_i the looks at sample i, this one among them,

        rho_i = 2 n_i r / (1 + (2 n_i - 1) r),   0 where r <= 0

    r is two standard errors below the pooled correlation, so that noise alone is not trusted; and the residual
    enters only as fast as repeated looks agree about it.

    Args:
        memory: outer steps over which r is pooled.
    """

    needs_halves = True

    def __init__(self, memory: int = 100) -> None:
        super().__init__()
        if memory < 1:
            raise DajError(f"HierarchicalWeights needs memory >= 1, got {memory}.")
        self.memory = memory
        self.domain = DomainWeights()
        self.residual = InstanceTable()
        self.products: Tensor
        """(4,) means over the last outer steps: the halves' product within domains, their squares, and the
        degrees of freedom."""
        self.steps: Tensor
        """Outer steps measured."""
        self.looks: Tensor
        """(S,) of them, how many saw each sample."""
        self.register_buffer("products", torch.zeros(4))
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("looks", torch.zeros(0))

    def build(self, training_set: TrainingSet) -> None:
        self.domain.build(training_set)
        self.residual.build(training_set)
        self.looks = torch.zeros(training_set.num_samples)

    @torch.no_grad()
    def measure(self, batch: JudgeBatch, first: Tensor, second: Tensor) -> None:
        freedom = len(batch) - len(batch.domains.unique())
        if freedom == 0:  # no domain came twice: the window says nothing about samples within domains
            return
        a, b = (half - _domain_means(half, batch.domains) for half in (first, second))
        new = torch.stack([a @ b, a @ a, b @ b, a.new_tensor(freedom)])
        self.steps += 1
        self.products += (new - self.products) / self.steps.clamp(max=self.memory)
        self.looks[batch.sample_ids.unique()] += 1

    def correlation(self) -> Tensor:
        """r: pooled over windows, less two standard errors; not below 0."""
        product, first, second, freedom = self.products
        samples = freedom * self.steps.clamp(max=self.memory)
        r = product / (first.sqrt() * second.sqrt()) - 2 / samples.sqrt()
        return r.nan_to_num().clamp(min=0)  # NaN: nothing measured yet

    def reliability(self, sample_ids: Tensor) -> Tensor:
        """rho (B,), between 0 and 1."""
        r, halves = self.correlation(), 2 * (self.looks[sample_ids] + 1)
        return halves * r / (1 + (halves - 1) * r)

    def forward(self, batch: JudgeBatch, losses: Tensor) -> Tensor:
        residual = self.residual(batch, losses) - 1
        return self.domain(batch, losses) * (1 + self.reliability(batch.sample_ids) * residual)

    def named_weights(self) -> dict[str, float]:
        return self.domain.named_weights()


def _domain_means(values: Tensor, domains: Tensor) -> Tensor:
    """(B,) for each entry the mean over its domain's entries."""
    same = (domains[:, None] == domains).to(values.dtype)
    return same @ values / same.sum(dim=1)


def shares(names: Sequence[str], weights: Sequence[float]) -> dict[str, float]:
    """Weights by name, divided by their mean: 1 is the share that plain training would give."""
    mean = sum(weights) / len(weights)
    return {name: weight / mean for name, weight in zip(names, weights, strict=True)}
