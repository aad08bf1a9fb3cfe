"""Do the two halves of a meta batch agree on which samples help? Kept, and said aloud when they do not."""

from __future__ import annotations

import math

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from daj_lightning.bilevel import split_half_correlation

_WANTED = 0.3
_OVER = 20
_WARN_EVERY = 100


class Agreement:
    """Split-half correlations of d alpha over a run, with a warning where their mean is low."""

    def __init__(self) -> None:
        self.values: list[float] = []
        """Every correlation so far; the newest last."""

    def note(self, first: Tensor, second: Tensor) -> float:
        """Take in d alpha (K,) by each half; returns their correlation, NaN where one is constant."""
        correlation = split_half_correlation(first, second)
        if math.isnan(correlation):
            return correlation
        self.values.append(correlation)
        recent = self.values[-_OVER:]
        mean = sum(recent) / len(recent)
        if len(self.values) % _WARN_EVERY == _OVER and mean < _WANTED:
            rank_zero_warn(
                f"the two halves of the meta batch correlate only {mean:.2f} in d alpha (mean of {_OVER} "
                f"outer steps; below {_WANTED} the weights mostly follow noise). Raise data.num_meta, or "
                f"use fewer weights (domains instead of a table).",
                stacklevel=2,
            )
        return correlation
