"""What a judge would have picked with fewer comparisons, by another strategy, or among fewer candidates.

All from answers that are there: nothing is asked again. A strategy is replayed where every pair of candidates was
answered; a pair that it repeats gets its next recorded answer, round and round.
Letters: N candidates, n of them drawn.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from daj_lightning.evaluation.field import Field
from daj_lightning.evaluation.judges import Answered, Rater, most_votes, shown
from daj_lightning.evaluation.results import CurvePoint
from daj_lightning.evaluation.score import Score
from daj_lightning.judge.adaptive import Adaptive
from daj_lightning.judge.selection import Answer, Knockout, Pair, RoundRobin, Strategy, play_all
from daj_lightning.judge.voting import Voting

NUM_SEEDS = 8
"""Of a replayed strategy's draws."""
NUM_SUBSETS = 32
"""Of a problem's candidates, at most."""
STRATEGIES: dict[str, Callable[[int], Strategy]] = {
    "Voting(rounds=8)": lambda seed: Voting(8, seed=seed),
    "Knockout": lambda seed: Knockout(seed=seed),
    "Adaptive": lambda seed: Adaptive(seed=seed),
    "RoundRobin": lambda seed: RoundRobin(seed=seed),
}


def curve(judge: Rater) -> list[CurvePoint]:
    """pass@1 after the first 1, 2, ... votes of each problem, then of strategies replayed where all pairs are there.

    Of the problems with the most common number of candidates.
    """
    if not isinstance(judge, Answered):
        return []
    number = judge.field.num_candidates
    same = [name for name, group in judge.field.graded.items() if len(group) == number]
    return [*_votes_so_far(judge, same, number), *_replayed(judge, same, number)]


def _votes_so_far(judge: Answered, names: Sequence[str], number: int) -> Iterator[CurvePoint]:
    votes = {name: [(pair, a.selection) for pair, a in judge.chosen_from(name)] for name in names}
    most = max((len(own) for own in votes.values()), default=0)
    for r in _doubling(most) if most > 16 else range(1, most + 1):
        picks = {name: most_votes(shown(judge.field, name), own[:r]) for name, own in votes.items()}
        values = {name: passing(judge.field, name, pick) for name, pick in picks.items()}
        asked = float(np.mean([min(r, len(own)) for own in votes.values()]))
        yield CurvePoint(f"first {r} votes", number, asked, judge.field.pass_at_1(values)["overall"])


def _replayed(judge: Answered, names: Sequence[str], number: int) -> Iterator[CurvePoint]:
    recorded = {name: Recorded([(pair, a.selection) for pair, a in judge.answers.get(name, [])]) for name in names}
    candidates = {name: shown(judge.field, name) for name in names}
    complete = [name for name in names if len(candidates[name]) > 1 and recorded[name].covers(candidates[name])]
    if not complete:
        return
    for title, made in STRATEGIES.items():
        values, asked = dict.fromkeys(complete, 0.0), 0
        for seed in range(NUM_SEEDS):
            strategy = made(seed)
            plays = {name: strategy.play(len(candidates[name]), name) for name in complete}
            tapes = {name: recorded[name].rewound() for name in complete}

            def ask(questions: list[tuple[str, Pair]], tapes: Mapping[str, Recorded] = tapes) -> list[Answer]:
                return [tapes[k].answer((candidates[k][i], candidates[k][j])) for k, (i, j) in questions]

            for name, selection in play_all(plays, ask).items():
                assert selection.winner is not None, "no strategy here abstains"
                values[name] += judge.field.passed(name)[candidates[name][selection.winner]] / NUM_SEEDS
                asked += selection.num_comparisons
        mean = asked / NUM_SEEDS / len(complete)
        yield CurvePoint(title, number, mean, judge.field.pass_at_1(values)["overall"])


class Recorded:
    """A problem's answers, handed out as if they were given now."""

    def __init__(self, votes: Sequence[tuple[Pair, Answer]]) -> None:
        self.votes = votes
        self.answers: dict[Pair, list[Answer]] = {}
        for pair, selection in votes:
            self.answers.setdefault(pair, []).append(selection)
        self.given: Counter[Pair] = Counter()

    def rewound(self) -> Recorded:
        return Recorded(self.votes)

    def covers(self, candidates: Sequence[int]) -> bool:
        """Whether every pair of them was asked, in one order at least."""
        pairs = itertools.combinations(candidates, 2)
        return all(pair in self.answers or pair[::-1] in self.answers for pair in pairs)

    def answer(self, pair: Pair) -> Answer:
        """The next answer about a pair in that order; from the other order where it was asked in that alone."""
        turned = pair not in self.answers
        key = pair[::-1] if turned else pair
        answers = self.answers[key]
        selection = answers[self.given[key] % len(answers)]
        self.given[key] += 1
        return 1 - selection if turned and selection is not None else selection


def by_num_candidates(field: Field, judges: Sequence[Rater]) -> dict[int, dict[str, Score]]:
    """Figure 4: pass@1 with n = 1, 2, 4, ..., N candidates, over subsets of each problem's candidates.

    Of the problems with the most common number of candidates, N. "random" is the mean over candidates and "oracle" the
    probability that a subset holds a right one. A judge has an entry where its answers say whom it would pick from
    every subset.
    """
    number = field.num_candidates
    names = [name for name, group in field.graded.items() if len(group) == number]
    figure: dict[int, dict[str, Score]] = {}
    for n in _doubling(number):
        bounds = {"random": lambda right, n: right / number, "oracle": _holds_one(number)}
        figure[n] = {
            rule: field.pass_at_1({name: value(sum(field.passed(name)), n) for name in names})["overall"]
            for rule, value in bounds.items()
        }
        for judge in (judge for judge in judges if judge.chooses()):
            values = {name: _among(judge, field, name, n) for name in names}
            told = {name: value for name, value in values.items() if value is not None}
            if len(told) == len(names):
                figure[n][judge.name] = field.pass_at_1(told)["overall"]
    return figure


def _holds_one(number: int) -> Callable[[int, int], float]:
    """(right ones of N, n) -> probability that n of them, drawn at random, hold a right one."""
    return lambda right, n: 1 - math.comb(number - right, n) / math.comb(number, n)


def _among(judge: Rater, field: Field, name: str, n: int) -> float | None:
    """pass@1 of the judge's pick among n of a problem's candidates; None where it does not say for some."""
    number = len(field.graded[name])
    subsets = _subsets(number, n, name) if n < number else [None]
    picks = [judge.pick(name, subset) for subset in subsets]
    told = [passing(field, name, pick) for pick in picks if pick is not None]
    return float(np.mean(told)) if len(told) == len(picks) else None


def _subsets(number: int, n: int, key: str) -> Sequence[tuple[int, ...] | None]:
    if math.comb(number, n) <= NUM_SUBSETS:
        return list(itertools.combinations(range(number), n))
    rng = random.Random(f"subsets/{key}/{n}")
    return [tuple(rng.sample(range(number), n)) for _ in range(NUM_SUBSETS)]


def _doubling(last: int) -> list[int]:
    """1, 2, 4, ... and the last."""
    return [*(2**k for k in range(last.bit_length()) if 2**k < last), last]


def passing(field: Field, name: str, pick: Sequence[int]) -> float:
    """How probably one of the picked candidates passes, drawn at random."""
    passed = field.passed(name)
    return float(np.mean([passed[i] for i in pick]))
