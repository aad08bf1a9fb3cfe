"""Losses of samples from the log-probabilities of their tokens, in plain torch: the specification of segment_loss.

`DPOTerms` and its like hold what a loss needs beside the judge's log-probabilities: it says what the kernel gets, and
computes the loss in every mode of differentiation.
Letters: B samples, R = n B rows, N scored tokens over all rows.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from daj_lightning.kernels.losses import (
    PairLogProbs,
    ResponseLogProbs,
    TokenLogProbs,
    dpo_loss,
    grpo_token_loss,
    kto_loss,
    orpo_loss,
)


def segment_offsets(scored: Tensor) -> Tensor:
    """Where each row's tokens start among all scored tokens, and the end; the host does not wait for it.

    Args:
        scored: (R, T) bool.
    Returns:
        (R + 1,) int64, from 0 to N.
    """
    return F.pad(scored.sum(dim=1).cumsum(dim=0), (1, 0))


@dataclass(frozen=True, slots=True)
class Segments:
    """N tokens of R rows, row after row."""

    logp: Tensor
    """(N,) nats, under the judge."""
    offsets: Tensor
    """(R + 1,) int64."""

    def of_token(self, values: Tensor, rows_per_value: int = 1) -> Tensor:
        """(N,) for each token its row's entry of `values` (R,), or its sample's: one entry for so many rows."""
        if len(values) == 1:  # a micro-batch of one sample needs no index
            return values.expand(len(self.logp))
        starts = self.offsets[::rows_per_value]
        return values.repeat_interleave(starts.diff(), output_size=len(self.logp))

    def sums(self, values: Tensor) -> Tensor:
        """(R,) of each row's entries of `values` (N,)."""
        num_rows = len(self.offsets) - 1
        row = self.of_token(torch.arange(num_rows, device=values.device))
        # In float64: index_add takes one token after the other, and float32 would lose a digit over a long response.
        return values.new_zeros(num_rows, dtype=torch.float64).index_add(0, row, values.double()).to(values.dtype)

    def means(self, counted: Tensor | None = None) -> Tensor:
        """(R,) log-probability of a row's tokens, or of those where `counted` (N,) is true; 0 where there is none."""
        if counted is None:
            return self.sums(self.logp) / self.offsets.diff().clamp(min=1)
        return self.sums(self.logp * counted) / self.sums(counted.to(self.logp.dtype)).clamp(min=1)


class PreferenceOperands(NamedTuple):
    """What torch.ops.daj.segment_preference_loss takes after logp and offsets, but for the weights."""

    kind: int
    reference: Tensor | None = None
    kl: Tensor | None = None
    desirable: Tensor | None = None
    counted: Tensor | None = None
    beta: float = 0.0
    nll_weight: float = 0.0
    desirable_weight: float = 0.0
    undesirable_weight: float = 0.0


class PreferenceTerms(ABC):
    """A loss of one or two rows a sample, and what it holds constant."""

    kind: ClassVar[int]
    """Number of the loss in csrc/include/daj/segment_loss.h."""
    rows_per_sample: ClassVar[int]

    @abstractmethod
    def losses(self, tokens: Segments) -> Tensor:
        """(B,) differentiable in every mode."""

    @abstractmethod
    def operands(self) -> PreferenceOperands:
        """The same for the kernel."""


@dataclass(frozen=True, slots=True)
class DPOTerms(PreferenceTerms):
    """See `dpo_loss`; a sample's rows are its chosen and its rejected response."""

    reference: Tensor
    """(R,) nats, the responses under the reference."""
    beta: float
    nll_weight: float = 0.0
    """Of the chosen response's negative log-likelihood, a mean over its tokens, which is added."""

    kind = 0
    rows_per_sample = 2

    def losses(self, tokens: Segments) -> Tensor:
        chosen, rejected = tokens.sums(tokens.logp).view(-1, 2).unbind(dim=1)
        loss = dpo_loss(PairLogProbs(chosen, rejected, *self.reference.view(-1, 2).unbind(dim=1)), beta=self.beta)
        return loss if self.nll_weight == 0 else loss - self.nll_weight * tokens.means()[::2]

    def operands(self) -> PreferenceOperands:
        return PreferenceOperands(self.kind, reference=self.reference, beta=self.beta, nll_weight=self.nll_weight)


@dataclass(frozen=True, slots=True)
class KTOTerms(PreferenceTerms):
    """See `kto_loss`; a sample is one response."""

    reference: Tensor
    """(R,) nats, the responses under the reference."""
    kl: Tensor
    """(B,) nats."""
    desirable: Tensor
    """(B,) bool."""
    beta: float
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    kind = 1
    rows_per_sample = 1

    def losses(self, tokens: Segments) -> Tensor:
        return kto_loss(
            ResponseLogProbs(tokens.sums(tokens.logp), self.reference),
            self.kl,
            self.desirable,
            beta=self.beta,
            desirable_weight=self.desirable_weight,
            undesirable_weight=self.undesirable_weight,
        )

    def operands(self) -> PreferenceOperands:
        return PreferenceOperands(
            self.kind,
            reference=self.reference,
            kl=self.kl,
            desirable=self.desirable,
            beta=self.beta,
            desirable_weight=self.desirable_weight,
            undesirable_weight=self.undesirable_weight,
        )


@dataclass(frozen=True, slots=True)
class ORPOTerms(PreferenceTerms):
    """See `orpo_loss`; a sample's rows are its chosen and its rejected response."""

    beta: float
    counted: Tensor | None = None
    """(N,) bool, the tokens of the responses; None: all. The likelihood is a mean over all of the chosen row's."""

    kind = 2
    rows_per_sample = 2

    def losses(self, tokens: Segments) -> Tensor:
        chosen, rejected = tokens.means(self.counted).view(-1, 2).unbind(dim=1)
        return orpo_loss(chosen, rejected, -tokens.means()[::2], beta=self.beta)

    def operands(self) -> PreferenceOperands:
        return PreferenceOperands(self.kind, counted=self.counted, beta=self.beta)


@dataclass(frozen=True, slots=True)
class SFTTerms(PreferenceTerms):
    """Negative log-likelihood, a mean over tokens; a sample is one response."""

    kind = 3
    rows_per_sample = 1

    def losses(self, tokens: Segments) -> Tensor:
        return -tokens.means()

    def operands(self) -> PreferenceOperands:
        return PreferenceOperands(self.kind)


class PolicyOperands(NamedTuple):
    """What torch.ops.daj.segment_policy_loss takes after logp and offsets, but for the weights."""

    advantages: Tensor
    divisors: Tensor
    rows_per_sample: int
    old: Tensor | None
    sampled: Tensor | None
    reference: Tensor | None
    epsilon: float
    epsilon_high: float
    beta: float
    unbiased_kl: bool
    importance_cap: float


@dataclass(frozen=True, slots=True)
class PolicyTerms:
    """See `grpo_token_loss`; a sample is a group of rows, and its loss a sum of quotients.

    Raises:
        ValueError: beta > 0 without reference.
    """

    rows_per_sample: int
    advantages: Tensor
    """(R,)"""
    divisors: Tensor
    """(R,) int64, > 0: of the sum of a row's token losses."""
    old: Tensor | None = None
    """(N,) nats, and so the next two: see `TokenLogProbs`."""
    sampled: Tensor | None = None
    reference: Tensor | None = None
    epsilon: float = 0.2
    epsilon_high: float | None = None
    beta: float = 0.0
    unbiased_kl: bool = False
    importance_cap: float | None = 3.0

    def __post_init__(self) -> None:
        if self.beta > 0 and self.reference is None:
            raise ValueError(f"beta = {self.beta} needs reference, (N,): the tokens under the reference; got None.")

    def losses(self, tokens: Segments) -> Tensor:
        """(B,) differentiable in every mode."""
        judge, old, sampled, reference = (
            None if logp is None else logp[:, None] for logp in (tokens.logp, self.old, self.sampled, self.reference)
        )
        assert judge is not None
        loss = grpo_token_loss(
            TokenLogProbs(judge, old, sampled, reference),
            tokens.of_token(self.advantages),
            epsilon=self.epsilon,
            epsilon_high=self.epsilon_high,
            beta=self.beta,
            unbiased_kl=self.unbiased_kl,
            importance_cap=self.importance_cap,
        )
        return (tokens.sums(loss[:, 0]) / self.divisors).view(-1, self.rows_per_sample).sum(dim=1)

    def operands(self) -> PolicyOperands:
        """The same for the kernel."""
        return PolicyOperands(
            self.advantages,
            self.divisors,
            self.rows_per_sample,
            self.old,
            None if self.importance_cap is None else self.sampled,
            self.reference if self.beta > 0 else None,
            self.epsilon,
            self.epsilon if self.epsilon_high is None else self.epsilon_high,
            self.beta,
            self.unbiased_kl,
            math.inf if self.importance_cap is None else self.importance_cap,
        )
