"""The paper's strategy (section 3): random pairs, most votes win.

It fixes its pairs before any answer is known, so a whole evaluation is one long list of prompts that can be
generated in large batches.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence

from daj_lightning.judge.selection import Answer, Game, Pair, Selection, Strategy
from daj_lightning.records import DajError


class Voting(Strategy):
    """R rounds of two candidates drawn uniformly; most votes win, ties at random (paper, section 3).

    A bottleneck: eight rounds rarely cover the field. A perfect judge finds the only right one of eight programs in
    39.8 % of the cases (docs/results.md). Confidence: the winner's share of all votes.

    Args:
        rounds: R (paper: 8).
        both_orders, seed, min_confidence: see `Strategy`.
    """

    def __init__(self, rounds: int = 8, seed: int = 0, both_orders: bool = False, min_confidence: float = 0.0) -> None:
        if rounds < 1:
            raise DajError(f"voting needs at least one round, got rounds={rounds}.")
        super().__init__(both_orders, seed, min_confidence)
        self.rounds = rounds

    def draw(self, num_candidates: int, key: str) -> list[Pair]:
        """The ordered pairs to compare for the problem named `key`; none if there is nothing to choose."""
        if num_candidates < 1:
            raise DajError(f"{key}: nothing to select from, the list of candidates is empty.")
        if num_candidates == 1:
            return []
        return self._draw(num_candidates, random.Random(f"{self.seed}/draw/{key}"))

    def count(self, num_candidates: int, key: str, rounds: Sequence[Pair], answers: Sequence[Answer]) -> Selection:
        """The selection from answers to rounds that were drawn before: one for each, in one order."""
        game = Game(num_candidates, random.Random(f"{self.seed}/tie/{key}"), both_orders=False)
        winners = [[None if answer is None else pair[answer]] for pair, answer in zip(rounds, answers, strict=True)]
        game.tally(rounds, winners)
        game.num_comparisons, game.num_invalid = len(rounds), sum(answer is None for answer in answers)
        return game.selection(*self._decide(game))

    def lead(self, game: Game) -> Generator[list[Pair], Sequence[Answer], tuple[int, float]]:
        drawn = self._draw(game.num_candidates, game.rng)
        game.tally(drawn, (yield from game.ask(drawn)))
        return self._decide(game)

    def _draw(self, num_candidates: int, rng: random.Random) -> list[Pair]:
        return [tuple(rng.sample(range(num_candidates), 2)) for _ in range(self.rounds)]  # type: ignore[misc]

    @staticmethod
    def _decide(game: Game) -> tuple[int, float]:
        winner, votes = game.best(game.wins), sum(game.wins)
        return winner, game.wins[winner] / votes if votes else 0.0
