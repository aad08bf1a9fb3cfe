"""A weight as a function of what is seen of a sample (paper, section 4: "instance net").

Letters: B samples, S samples in the training set, F features, H hidden units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from daj_lightning.bilevel.reweighting import Reweighter, TrainingSet
from daj_lightning.kernels import instance_net, instance_net_hypergrad
from daj_lightning.records import DajError, JudgeBatch

_MIN_SPREAD = 1e-3
"""Of a feature over samples, beside its mean: less is rounding, as where no judge has moved and every loss is ln 2."""

Feature = Literal["loss", "mean_loss", "reward_mean", "reward_spread", "response_length"]


class InstanceNet(Reweighter):
    """A weight as a function of the sample's loss (paper, Eq. 2: "instance net").

    alpha_i = squareplus(MLP(features_i)), two hidden layers (App. B: "each containing 10 hidden units"), random
    start near 1, not normalised. The loss enters detached: the weight is data, not a second objective.

    Args:
        hidden: H, units in each hidden layer.
        features: of a sample. The paper has the loss alone; under GRPO that is about 0 whatever the sample, while
            the mean reward of its group says how hard it is, and the spread how much it can teach (ours).
            "mean_loss": the mean of the sample's losses in all windows so far, this one among them: what is learned
            by heart in the end has had larger losses on the way. Credit that comes windows later (`unroll_windows`,
            `meta_decay`) is taken at the memory, as at the parameters, of that time. "response_length": ln(1 + mean
            tokens of its responses) / 10.
        normalize: standardise the features, and divide the weights by their mean, both over the samples seen so far
            (as Meta-Weight-Net, Shu et al. 2019, does over a batch). The net then learns who weighs more and not,
            first of all, how much all weigh. Weights are 1 until two different samples have been seen. Every call
            passes all samples seen through the net: 0.1 ms for a thousand of them, 10 ms for a hundred thousand.
    """

    def __init__(self, hidden: int = 10, features: Sequence[Feature] = ("loss",), normalize: bool = False) -> None:
        super().__init__()
        if hidden < 1 or not features or len(set(features)) < len(features) or set(features) - set(get_args(Feature)):
            raise DajError(
                f"the instance net needs hidden >= 1 and different features of {get_args(Feature)}; got {hidden} and "
                f"{list(features)}."
            )
        self.hidden, self.features, self.normalize = hidden, tuple(features), normalize
        self.needs_rewards = bool({"reward_mean", "reward_spread"} & set(features))
        self.net = nn.Sequential(
            nn.Linear(len(features), hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1)
        )
        self.remembers = normalize or "mean_loss" in features
        self.seen: Tensor
        """(S, F) features of each sample when it was last in a window; not there where nothing asks for it."""
        self.looks: Tensor
        """(S,) windows that it was in; beside it."""
        if self.remembers:
            self.register_buffer("seen", torch.zeros(0, len(features)))
            self.register_buffer("looks", torch.zeros(0))

    def build(self, training_set: TrainingSet) -> None:
        if self.remembers:
            self.seen = torch.zeros(training_set.num_samples, len(self.features))
            self.looks = torch.zeros(training_set.num_samples)

    def description(self) -> str:
        return f"{super().description()} of {', '.join(self.features)}{', normalized' if self.normalize else ''}"

    @torch.no_grad()
    def observe(self, batch: JudgeBatch, losses: Tensor) -> None:
        if not self.remembers:
            return
        ids, place = batch.sample_ids.unique(return_inverse=True)  # a window may hold the end of one epoch and the next
        features = self._features(batch, losses).to(self.seen.dtype)
        sums = features.new_zeros(len(ids), features.size(1)).index_add_(0, place, features)
        self.seen[ids] = sums / place.bincount(minlength=len(ids))[:, None]
        self.looks[ids] += 1

    def forward(self, batch: JudgeBatch, losses: Tensor) -> Tensor:
        features, of_seen = self._inputs(batch, losses)
        if not self.normalize:
            return instance_net(features, self._flat(), self.hidden)
        if of_seen is None:
            return torch.ones_like(losses)
        raw = instance_net(torch.cat([features, of_seen]), self._flat(), self.hidden)
        return raw[: len(features)] / raw[len(features) :].mean()

    @torch.no_grad()
    def accumulate(self, batch: JudgeBatch, losses: Tensor, derivative: Tensor) -> None:
        """In one launch where the extension serves: the net is so small that autograd's launches are all its time.

        Gradient hooks do not run. With weights a_i / m, m the mean of the a_j of n samples seen, a net that is not
        normalised owes d_i / m to the a_i and -(sum_i d_i a_i) / (n m^2) to every a_j.
        """
        features, of_seen = self._inputs(batch, losses)
        derivative = derivative.to(features.dtype)
        if self.normalize and of_seen is not None:
            n = len(of_seen)
            raw = instance_net(torch.cat([features, of_seen]), self._flat(), self.hidden)
            own, mean = raw[: len(features)], raw[len(features) :].mean()
            shared = -(derivative @ own) / (n * mean**2)
            derivative = torch.cat([derivative / mean, shared.expand(n)])
            features = torch.cat([features, of_seen])
        elif self.normalize:
            derivative = torch.zeros_like(derivative)  # the weights are 1, whatever the net
        parameters = list(self.net.parameters())
        _, gradient = instance_net_hypergrad(features, self._flat(), derivative, self.hidden)
        for parameter, part in zip(parameters, gradient.split([p.numel() for p in parameters]), strict=True):
            if not parameter.requires_grad:
                continue
            part = part.view_as(parameter)
            parameter.grad = part if parameter.grad is None else parameter.grad + part

    def _flat(self) -> Tensor:
        """The net's parameters, one after the other."""
        return torch.cat([parameter.flatten() for parameter in self.net.parameters()])

    def _inputs(self, batch: JudgeBatch, losses: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the net reads of the samples, (B, F), and of those seen; None: too few to tell a mean and a spread."""
        features = self._features(batch, losses)
        if not self.normalize:
            return features, None
        seen = self.seen[self.looks > 0].to(features.dtype)
        if len(seen) < 2:
            return features, None
        spread, center = torch.std_mean(seen, dim=0)
        differs = spread > _MIN_SPREAD * (center.abs() + _MIN_SPREAD)
        if not differs.any():
            return features, None
        scale = torch.where(differs, spread, torch.inf)
        return (features - center) / scale, (seen - center) / scale

    def _features(self, batch: JudgeBatch, losses: Tensor) -> Tensor:
        """(B, F)."""
        losses = losses.detach()
        return torch.stack([self._feature(name, batch, losses) for name in self.features], dim=1)

    def _feature(self, name: Feature, batch: JudgeBatch, losses: Tensor) -> Tensor:
        """(B,) in the losses' dtype."""
        if name == "loss":
            return losses
        if name == "mean_loss":
            looks = self.looks[batch.sample_ids].to(losses.dtype)
            before = self.seen[batch.sample_ids, self.features.index(name)].to(losses.dtype)
            return (looks * before + losses) / (looks + 1)
        if name == "response_length":
            tokens = batch.response_mask.sum(dim=1).view(len(batch), -1).to(losses.dtype)
            return torch.log1p(tokens.mean(dim=1)) / 10
        assert batch.rewards is not None
        rewards = batch.rewards.view(len(batch), -1).to(losses.dtype)
        return rewards.mean(dim=1) if name == "reward_mean" else rewards.std(dim=1, correction=0)
