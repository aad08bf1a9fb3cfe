"""Best-of-N from comparisons: which pairs to ask about, and who wins.

`Voting` is the paper's rule (section 3). It fixes its pairs before any answer is known, so a whole
evaluation is one long list of prompts that can be generated in large batches.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from daj_lightning.records import DajError


@dataclass(frozen=True, slots=True)
class Selection:
    """The outcome of a selection among N candidates."""

    winner: int
    """0-based index of the selected candidate."""
    votes: tuple[int, ...]
    """Votes of each candidate."""
    num_invalid: int
    """Comparisons that ended in a format error; they gave no vote."""


class Voting:
    """R rounds of two candidates drawn uniformly; most votes win, ties at random (paper, section 3).

    Args:
        rounds: R (paper: 8).
        seed: of the draws and of the tie break; together with `key` it decides them.
    """

    def __init__(self, rounds: int = 8, seed: int = 0) -> None:
        if rounds < 1:
            raise DajError(f"voting needs at least one round, got rounds={rounds}.")
        self.rounds = rounds
        self.seed = seed

    def draw(self, num_candidates: int, key: str) -> list[tuple[int, int]]:
        """The ordered pairs to compare for the problem named `key`; none if there is nothing to choose."""
        if num_candidates < 1:
            raise DajError(f"{key}: nothing to select from, the list of candidates is empty.")
        if num_candidates == 1:
            return []
        rng = random.Random(f"{self.seed}/draw/{key}")
        return [tuple(rng.sample(range(num_candidates), 2)) for _ in range(self.rounds)]  # type: ignore[misc]

    def count(
        self, num_candidates: int, key: str, rounds: Sequence[tuple[int, int]], answers: Sequence[int | None]
    ) -> Selection:
        """Tally `answers`: for each round the position (0 or 1) that the judge chose, None if invalid."""
        votes = [0] * num_candidates
        for pair, answer in zip(rounds, answers, strict=True):
            if answer is not None:
                votes[pair[answer]] += 1
        tied = [i for i, v in enumerate(votes) if v == max(votes)]
        winner = random.Random(f"{self.seed}/tie/{key}").choice(tied)
        return Selection(winner, tuple(votes), sum(answer is None for answer in answers))
