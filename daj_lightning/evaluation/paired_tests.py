"""Are two judges different, on the same questions?

McNemar's test asks it of right and wrong answers, exactly: of the questions that one knows and the other does not, how
likely is so uneven a split by a fair coin? It takes questions for independent. The paired bootstrap draws problems, and
so does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from daj_lightning.evaluation.score import NOTHING, NUM_DRAWS, Score, bootstrap, drawn_ratios


def mcnemar(first_only: int, second_only: int) -> float:
    """Two-sided p-value of the exact test (McNemar 1947); 1 where the judges never differ.

    Args:
        first_only: questions that the first judge alone answers rightly.
        second_only: that the second one alone does.
    """
    total, fewer = first_only + second_only, min(first_only, second_only)
    tail = sum(math.comb(total, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**total)


def paired_bootstrap(differences: Sequence[Sequence[float]], seed: int = 0) -> tuple[Score, float | None]:
    """Mean difference with its interval, and a two-sided p-value; one group of differences a problem.

    The p-value is twice the share of draws on the other side of 0, drawn ones and the observed one counted; None
    without a problem.
    """
    if not differences:
        return NOTHING, None
    score = bootstrap(differences, seed=seed)
    ratios = drawn_ratios([sum(d) for d in differences], [len(d) for d in differences], NUM_DRAWS, seed)
    below, above = int(np.sum(ratios <= 1e-12)), int(np.sum(ratios >= -1e-12))
    return score, min(1.0, 2 * (min(below, above) + 1) / (len(ratios) + 1))
