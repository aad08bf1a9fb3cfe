"""What one bi-level step passes between its parts, and what it leaves for callbacks.

Letters: K samples in a window, M meta samples, P adapter parameters.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from daj_lightning.records import DajError


class MetaGradient(NamedTuple):
    """What the meta batch says of the moved judge, in two halves (one if M = 1)."""

    gradients: list[Tensor]
    """Of the mean loss of each half, (P,) each."""
    shares: list[float]
    """Part of the meta batch in each half; q, the gradient of the mean loss, is their weighted sum."""
    sample_ids: Tensor
    """(M,)."""
    losses: Tensor
    """(M,), detached."""


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
    """(K,) d L_meta / d alpha_i; None where no outer step was due."""


class NonFiniteError(DajError):
    """A loss or a gradient is NaN or infinite; raised before it reaches the judge."""
