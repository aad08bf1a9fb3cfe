"""Best-of-N from comparisons: which pairs to ask about, and who wins.

A strategy is a dialogue, so that it may look at answers before it asks on: `play` yields the comparisons that it
wants next, is sent the answers, and returns the selection. `Dialogues` leads many at once, so that a judge sees
the questions of all problems in one batch. Strategies know neither programs nor the judge.
Letters: N candidates.
"""

from __future__ import annotations

import itertools
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field

from daj_lightning.records import DajError

Pair = tuple[int, int]
"""Two candidates in the order in which the judge sees them."""
Answer = int | None
"""Position (0 or 1) of the candidate that the judge selected; None: a format error."""
Play = Generator[list[Pair], Sequence[Answer], "Selection"]


@dataclass(frozen=True, slots=True)
class Selection:
    """The outcome of a selection among N candidates."""

    winner: int | None
    """0-based index of the selected candidate; None: no candidate is credible."""
    votes: tuple[float, ...]
    """Comparisons that each candidate won; where both orders of a pair are one comparison, each counts half."""
    num_invalid: int
    """Answers that were a format error; they gave no vote."""
    num_comparisons: int = 0
    """Answers asked for."""
    confidence: float = 1.0
    """How sure the strategy is of its winner, from 0 to 1; what it means is the strategy's to say."""


class Strategy(ABC):
    """The seam: which comparisons to ask for, and who wins.

    Args:
        both_orders: every comparison is asked in both orders, and costs two. A judge that prefers a position then
            contradicts itself, and gives neither candidate the better of it. Otherwise the order is drawn.
        seed: together with `key` it decides all that is drawn.
        min_confidence: below it the selection abstains.
    """

    def __init__(self, both_orders: bool = False, seed: int = 0, min_confidence: float = 0.0) -> None:
        if not 0 <= min_confidence <= 1:
            raise DajError(f"min_confidence is between 0 and 1, got {min_confidence}.")
        self.both_orders = both_orders
        self.seed = seed
        self.min_confidence = min_confidence

    def __str__(self) -> str:
        """The class and its settings: what made a selection."""
        settings = {
            name: value for name, value in vars(self).items() if value is None or isinstance(value, int | float)
        }
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in settings.items())})"

    def play(self, num_candidates: int, key: str) -> Play:
        """Lead the dialogue about the problem named `key`."""
        if num_candidates < 1:
            raise DajError(f"{key}: nothing to select from, the list of candidates is empty.")
        game = Game(num_candidates, random.Random(f"{self.seed}/draw/{key}"), self.both_orders)
        if num_candidates == 1:
            return game.selection(0, 1.0)
        winner, confidence = yield from self.lead(game)
        return game.selection(winner if confidence >= self.min_confidence else None, confidence)

    @abstractmethod
    def lead(self, game: Game) -> Generator[list[Pair], Sequence[Answer], tuple[int, float]]:
        """Ask through `game.compare`; return the winner and the confidence in it."""


@dataclass
class Game:
    """What has been asked and answered about one problem."""

    num_candidates: int
    rng: random.Random
    both_orders: bool
    wins: list[float] = field(init=False)
    losses: list[float] = field(init=False)
    num_invalid: int = 0
    num_comparisons: int = 0

    def __post_init__(self) -> None:
        self.wins = [0.0] * self.num_candidates
        self.losses = [0.0] * self.num_candidates

    def compare(self, pairs: Sequence[Pair]) -> Generator[list[Pair], Sequence[Answer], list[float | None]]:
        """How much of each comparison its first candidate won: 1, 0, or 0.5; None where no answer was valid."""
        asked = [pair if self.rng.random() < 0.5 else pair[::-1] for pair in pairs]
        return self.tally(pairs, (yield from self.ask(asked)))

    def ask(self, asked: Sequence[Pair]) -> Generator[list[Pair], Sequence[Answer], list[list[int | None]]]:
        """The candidates that won each comparison, one entry for each order it was asked in."""
        orders = [[pair, pair[::-1]] if self.both_orders else [pair] for pair in asked]
        answers = iter((yield list(itertools.chain.from_iterable(orders))))
        results = [[None if (a := next(answers)) is None else order[a] for order in both] for both in orders]
        self.num_comparisons += sum(map(len, orders))
        self.num_invalid += sum(winner is None for winners in results for winner in winners)
        return results

    def tally(self, pairs: Sequence[Pair], results: Sequence[Sequence[int | None]]) -> list[float | None]:
        """Count the votes; the first candidate's share of each comparison."""
        shares: list[float | None] = []
        for (first, second), winners in zip(pairs, results, strict=True):
            valid = [winner for winner in winners if winner is not None]
            for winner in valid:
                self.wins[winner] += 1 / len(winners)
                self.losses[second if winner == first else first] += 1 / len(winners)
            shares.append(sum(winner == first for winner in valid) / len(valid) if valid else None)
        return shares

    def share(self, candidate: int) -> float:
        """Of the comparisons of one candidate, those that it won; 0 where it had none."""
        played = self.wins[candidate] + self.losses[candidate]
        return self.wins[candidate] / played if played else 0.0

    def best(self, scores: Sequence[float]) -> int:
        """The candidate with the highest score, one of several at random."""
        return self.rng.choice([i for i, score in enumerate(scores) if score == max(scores)])

    def selection(self, winner: int | None, confidence: float) -> Selection:
        return Selection(winner, tuple(self.wins), self.num_invalid, self.num_comparisons, confidence)


class RoundRobin(Strategy):
    """Every pair once: N (N - 1) / 2 comparisons; most votes win, ties at random.

    Confidence: the winner's share of its own comparisons.
    """

    def lead(self, game: Game) -> Generator[list[Pair], Sequence[Answer], tuple[int, float]]:
        yield from game.compare(list(itertools.combinations(range(game.num_candidates), 2)))
        winner = game.best(game.wins)
        return winner, game.share(winner)


class Knockout(Strategy):
    """A tournament: N - 1 comparisons, in rounds; an odd candidate waits, and a pair without a winner is drawn.

    A perfect judge finds a right candidate always (PairJudge RM, Liu et al. 2025). Confidence: the winner's share of
    its own comparisons.
    """

    def lead(self, game: Game) -> Generator[list[Pair], Sequence[Answer], tuple[int, float]]:
        left = list(range(game.num_candidates))
        game.rng.shuffle(left)
        while len(left) > 1:
            pairs = list(zip(left[::2], left[1::2], strict=False))
            shares = yield from game.compare(pairs)
            waiting = left[2 * len(pairs) :]
            left = waiting + [self._winner(game, pair, share) for pair, share in zip(pairs, shares, strict=True)]
        return left[0], game.share(left[0])

    @staticmethod
    def _winner(game: Game, pair: Pair, share: float | None) -> int:
        if share in (None, 0.5):
            return game.rng.choice(pair)
        return pair[0] if share == 1 else pair[1]


class Dialogues:
    """Dialogues under way together: what they want to know next, in portions, and who has finished.

    Whoever was started first is answered first, so that a portion holds few problems and nobody waits for ever.
    """

    def __init__(self) -> None:
        self._plays: dict[str, Play] = {}
        self._wanted: dict[str, list[Pair]] = {}
        self._answers: dict[str, list[Answer]] = {}
        """To the first of those wanted, as far as they are known."""

    def __len__(self) -> int:
        return len(self._plays)

    def start(self, key: str, play: Play) -> Selection | None:
        """Join under a key that is not there yet; the selection at once, if there is nothing to ask."""
        self._plays[key] = play
        return self._advance(key, None)

    def drop(self, key: str) -> None:
        """Leave, finished or not; a key that is not there is none."""
        self._plays.pop(key, None)
        self._wanted.pop(key, None)
        self._answers.pop(key, None)

    def next(self, most: int | None = None) -> list[tuple[str, Pair]]:
        """Up to `most` questions (None: all) that wait for an answer, those of one dialogue together."""
        waiting = ((key, pair) for key, pairs in self._wanted.items() for pair in pairs[len(self._answers[key]) :])
        return list(itertools.islice(waiting, most))

    def tell(self, questions: Sequence[tuple[str, Pair]], answers: Sequence[Answer]) -> dict[str, Selection]:
        """The answers to what `next` gave, in its order; returns who has finished."""
        finished: dict[str, Selection] = {}
        for (key, _), answer in zip(questions, answers, strict=True):
            self._answers[key].append(answer)
        for key in dict(questions):
            if len(self._answers[key]) == len(self._wanted[key]):
                selection = self._advance(key, self._answers[key])
                if selection is not None:
                    finished[key] = selection
        return finished

    def _advance(self, key: str, answers: Sequence[Answer] | None) -> Selection | None:
        try:
            pairs = self._plays[key].send(answers)  # type: ignore[arg-type]  # None starts a generator
            while not pairs:
                pairs = self._plays[key].send([])
            self._wanted[key], self._answers[key] = pairs, []
        except StopIteration as done:
            self.drop(key)
            return done.value  # type: ignore[no-any-return]  # a Play returns a Selection
        return None


def play_all(plays: Mapping[str, Play], ask: Callable[[list[tuple[str, Pair]]], list[Answer]]) -> dict[str, Selection]:
    """Lead dialogues together: the questions of all go to the judge in one list, round by round.

    Args:
        plays: by the problem's key.
        ask: (key, pair) -> answers, in order.
    Returns:
        The selections, in the order of `plays`.
    """
    dialogues = Dialogues()
    finished = {key: done for key, play in plays.items() if (done := dialogues.start(key, play)) is not None}
    while dialogues:
        questions = dialogues.next()
        finished |= dialogues.tell(questions, ask(questions))
    return {key: finished[key] for key in plays}
