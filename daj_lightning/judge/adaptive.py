"""Comparisons where the winner is still open, and none once it is settled.

The belief: one candidate is best, and a comparison with it is won by it with probability `accuracy`; between any two
others the judge tosses a coin. Bayes' rule gives each candidate's probability of being the best, and the next
comparison is the one whose answer is expected to tell most about it (Lindley 1956). With several right candidates the
belief is wrong and the rule still good: they win against the others and share the first place among them.

A judge may repeat its error when it is asked again. `persistence` is the probability that an answer about a pair is the
last one about it, unlooked; the rest are fresh. It discounts repeats, and where it is 1 no pair is asked twice.
Letters: N candidates.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Sequence

from daj_lightning.judge.selection import Answer, Game, Pair, Strategy
from daj_lightning.records import DajError

_GRID = tuple(i / 8 for i in range(9))
_COIN = math.log(2)  # nats that the toss of a coin tells


class Persistence:
    """What answers about pairs asked before say of the judge: a posterior over nine values, uniform before."""

    def __init__(self, known: float | None = None) -> None:
        if known is not None and not 0 <= known <= 1:
            raise DajError(f"persistence is a probability or absent, got {known}.")
        self.known = known
        self._log = [0.0] * len(_GRID)

    @property
    def value(self) -> float:
        """The posterior mean, or what is known."""
        if self.known is not None:
            return self.known
        weights = [math.exp(entry - max(self._log)) for entry in self._log]
        return sum(w * rho for w, rho in zip(weights, _GRID, strict=True)) / sum(weights)

    def learn(self, same: bool, by_chance: float) -> None:
        """A repeat gave the `same` answer, which a fresh one would have done with probability `by_chance`."""
        for k, rho in enumerate(_GRID):
            probability = rho * same + (1 - rho) * (by_chance if same else 1 - by_chance)
            self._log[k] += math.log(max(probability, 1e-12))


class Belief:
    """Each candidate's probability of being the best.

    Args:
        num_candidates: N.
        accuracy: of the judge, where one of the two is the best.
    """

    def __init__(self, num_candidates: int, accuracy: float) -> None:
        self.accuracy = accuracy
        self._noise = _entropy(accuracy)
        self.log_odds = [0.0] * num_candidates
        self.last: dict[Pair, bool] = {}
        """Pair (i < j) -> whether i won when it was last asked about."""

    def probabilities(self) -> list[float]:
        """(N,), sums to 1."""
        top = max(self.log_odds)
        weights = [math.exp(entry - top) for entry in self.log_odds]
        total = sum(weights)
        return [weight / total for weight in weights]

    def outcomes(self, pair: Pair, persistence: float) -> tuple[float, float, float]:
        """Probability that the pair's first wins: if it is the best, if the second is, if neither."""
        fresh = (self.accuracy, 1 - self.accuracy, 0.5)
        if pair not in self.last:
            return fresh
        a, b, c = (persistence * self.last[pair] + (1 - persistence) * probability for probability in fresh)
        return a, b, c

    def information(self, pair: Pair, probabilities: Sequence[float], persistence: float) -> float:
        """Nats that the answer is expected to tell about which candidate is best."""
        first, second = probabilities[pair[0]], probabilities[pair[1]]
        neither = max(1 - first - second, 0.0)
        if pair not in self.last:
            mean = first * self.accuracy + second * (1 - self.accuracy) + neither / 2
            return _entropy(mean) - (first + second) * self._noise - neither * _COIN
        a, b, c = self.outcomes(pair, persistence)
        mean = first * a + second * b + neither * c
        return _entropy(mean) - first * _entropy(a) - second * _entropy(b) - neither * _entropy(c)

    def observe(self, pair: Pair, first_won: bool, persistence: Persistence) -> None:
        """Take an answer in."""
        first, second = (self.probabilities()[i] for i in pair)
        if pair in self.last:
            fresh = self.accuracy * first + (1 - self.accuracy) * second + 0.5 * (1 - first - second)
            last_won = self.last[pair]
            persistence.learn(first_won == last_won, fresh if last_won else 1 - fresh)
        likelihoods = [max(p if first_won else 1 - p, 1e-12) for p in self.outcomes(pair, persistence.value)]
        for i in range(len(self.log_odds)):
            self.log_odds[i] += math.log(likelihoods[pair.index(i) if i in pair else 2])
        self.last[pair] = first_won


class Adaptive(Strategy):
    """Asks, one at a time, what tells most about which candidate is best. Confidence: its probability of being that.

    The questions of many problems go to the judge together (`play_all`), so that one at a time costs no batch.

    Args:
        max_comparisons: of a problem, an answer each; None: as many as a round robin, N (N - 1) / 2.
        confidence: at which a problem is settled; 1 spends all comparisons.
        accuracy: of the judge on a right and a wrong candidate, above 0.5; it need not be exact.
        persistence: that the judge repeats its last answer about a pair without looking; None: learned from the
            repeats, over all problems of this strategy.
        both_orders, seed, min_confidence: see `Strategy`.
    """

    def __init__(
        self,
        max_comparisons: int | None = None,
        confidence: float = 0.8,
        accuracy: float = 0.8,
        persistence: float | None = None,
        both_orders: bool = False,
        seed: int = 0,
        min_confidence: float = 0.0,
    ) -> None:
        super().__init__(both_orders, seed, min_confidence)
        if (max_comparisons is not None and max_comparisons < 1) or not 0.5 < accuracy < 1 or not 0 < confidence <= 1:
            raise DajError(
                f"adaptive selection needs max_comparisons >= 1 or none, 0.5 < accuracy < 1 and 0 < confidence <= 1; "
                f"got {max_comparisons}, {accuracy} and {confidence}."
            )
        self.max_comparisons = max_comparisons
        self.confidence = confidence
        self.accuracy = accuracy
        self.known_persistence = persistence
        self.persistence = Persistence(persistence)

    def lead(self, game: Game) -> Generator[list[Pair], Sequence[Answer], tuple[int, float]]:
        pairs = list(itertools.combinations(range(game.num_candidates), 2))
        budget = self.max_comparisons or len(pairs) * (2 if self.both_orders else 1)
        cost = 2 if self.both_orders else 1
        belief = Belief(game.num_candidates, self.accuracy)
        while True:
            probabilities = belief.probabilities()
            settled = self.confidence < 1 and max(probabilities) >= self.confidence
            if settled or game.num_comparisons + cost > budget:
                break
            known = self.persistence.value
            told = {pair: belief.information(pair, probabilities, known) for pair in pairs}
            most = max(told.values())
            pair = game.rng.choice([pair for pair in pairs if told[pair] >= most - 1e-12])
            results = yield from game.ask([pair if game.rng.random() < 0.5 else pair[::-1]])
            game.tally([pair], results)
            for winner in results[0]:
                if winner is not None:
                    belief.observe(pair, winner == pair[0], self.persistence)
        winner = game.best([round(p, 12) for p in belief.probabilities()])
        return winner, belief.probabilities()[winner]


def _entropy(probability: float) -> float:
    """Nats, of a yes or no."""
    if probability <= 0 or probability >= 1:
        return 0.0
    return -probability * math.log(probability) - (1 - probability) * math.log(1 - probability)
