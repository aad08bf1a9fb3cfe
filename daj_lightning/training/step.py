"""What one bi-level step passes between its parts, and what it leaves for callbacks.

Letters: K samples in a window, M meta samples, P adapter parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from daj_lightning.bilevel import Credit
from daj_lightning.records import JudgeBatch


class MetaGradient(NamedTuple):
    """What the meta batch says of the moved judge, in parts: two halves, mostly (one if M = 1)."""

    gradients: list[Tensor]
    """Of the mean loss of each part, (P,) each."""
    shares: list[float]
    """Of the meta batch in each part; q, the gradient of the mean loss, is their weighted sum."""
    sample_ids: Tensor
    """(M,)."""
    losses: Tensor
    """(M,), detached."""

    @property
    def whole(self) -> Tensor:
        """(P,) q."""
        return reduce(torch.add, (share * own for share, own in zip(self.shares, self.gradients, strict=True)))


class StepReport(NamedTuple):
    """What a bi-level step did, for callbacks."""

    sample_ids: Tensor
    """(K,)."""
    domains: Tensor
    """(K,)."""
    losses: Tensor
    """(K,)."""
    weights: Tensor
    """(K,)."""
    hypergradient: Tensor | None
    """(K,) d L_meta / d alpha_i; None where no credit was due, or where the engine credits whole domains."""

    @classmethod
    def of(cls, inner: JudgeBatch, losses: Tensor, weights: Tensor, credits: Sequence[Credit]) -> StepReport:
        one_by_one = bool(credits) and credits[-1].batch is inner
        return cls(inner.sample_ids, inner.domains, losses, weights, credits[-1].derivative if one_by_one else None)


def num_credits(num_windows: int, meta_every: int, warmup: int, decay: float) -> int:
    """Windows of a run that credit samples, for the settings of `DataReweightedJudge`."""
    num_meta = max(num_windows // meta_every - warmup // meta_every, 0)
    if decay == 0 or num_meta == 0:
        return num_meta
    return num_windows - meta_every * (warmup // meta_every + 1) + 1  # from the first meta batch on
