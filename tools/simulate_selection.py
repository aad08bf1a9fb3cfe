"""How often each strategy finds a right program, with a judge whose errors are known; no model runs.

    python tools/simulate_selection.py                 # 20,000 trials, fewer in wide tables: ten minutes
    python tools/simulate_selection.py --trials 2000
    python tools/simulate_selection.py --only widths --trials 2000 --tokens 1200    # the last table alone

The judge names the right one of a right and a wrong program with probability `accuracy`, and tosses a coin between
two alike. With `persistence` it repeats its last answer about a pair unlooked, with `bias` it names the first program
whatever it is. Which of the N programs are right is drawn anew in every trial. Judge tokens are comparisons times the
tokens of one, prompt and answer.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from daj_lightning.judge import Adaptive, Knockout, RoundRobin, Strategy, Voting
from daj_lightning.judge.selection import Answer, Pair


@dataclass
class SimulatedJudge:
    """Answers about one problem's programs."""

    right: frozenset[int]
    rng: random.Random
    accuracy: float
    persistence: float = 0.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        self.last: dict[frozenset[int], int] = {}

    def __call__(self, pair: Pair) -> Answer:
        names = frozenset(pair)
        if names not in self.last or self.rng.random() >= self.persistence:
            self.last[names] = self._fresh(pair)
        return pair.index(self.last[names])

    def _fresh(self, pair: Pair) -> int:
        if self.rng.random() < self.bias:
            return pair[0]
        right = [program for program in pair if program in self.right]
        if len(right) != 1:
            return self.rng.choice(pair)
        (wrong,) = set(pair) - set(right)
        return right[0] if self.rng.random() < self.accuracy else wrong


class Outcome(NamedTuple):
    found: float
    """Share of trials whose winner is right."""
    comparisons: float
    """Mean of a trial."""


def simulate(
    strategy: Strategy,
    num_programs: int,
    trials: int,
    accuracy: float = 0.8,
    num_right: int = 1,
    persistence: float = 0.0,
    bias: float = 0.0,
) -> Outcome:
    rng = random.Random(0)
    found = comparisons = 0
    for trial in range(trials):
        right = frozenset(rng.sample(range(num_programs), num_right))
        judge = SimulatedJudge(right, rng, accuracy, persistence, bias)
        play = strategy.play(num_programs, str(trial))
        answers: Sequence[Answer] | None = None
        try:
            while True:
                answers = [judge(pair) for pair in play.send(answers)]  # type: ignore[arg-type]  # None starts it
        except StopIteration as done:
            found += done.value.winner in right
            comparisons += done.value.num_comparisons
    return Outcome(found / trials, comparisons / trials)


def all_pairs(num_programs: int) -> int:
    return num_programs * (num_programs - 1) // 2


def show(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    print(f"\n{title}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |", flush=True)


def percent(outcome: Outcome) -> str:
    return f"{outcome.found:.1%} ({outcome.comparisons:.1f})"


def perfect_judge(trials: int) -> None:
    rows = [[N, *(percent(simulate(s, N, trials, accuracy=1.0)) for s in (Voting(8), Knockout()))] for N in (4, 8)]
    show("A perfect judge, one right program: found (comparisons)", ["N", "voting, R = 8", "knockout"], rows)


def strategies_at_8(trials: int) -> None:
    strategies: dict[str, Strategy] = {
        "voting, R = 8": Voting(8),
        "voting, R = 32": Voting(32),
        "knockout": Knockout(),
        "round robin": RoundRobin(),
        "adaptive, 14 at most": Adaptive(max_comparisons=14),
        "adaptive, all 14": Adaptive(max_comparisons=14, confidence=1.0),
        "adaptive, stops at 0.8": Adaptive(),
        "adaptive, all 28": Adaptive(confidence=1.0),
    }
    rows = [
        [name, *(percent(simulate(s, 8, trials if k == 1 else trials // 4, num_right=k)) for k in (1, 2, 4))]
        for name, s in strategies.items()
    ]
    show("Accuracy 0.8, N = 8: found (comparisons)", ["strategy", "1 right", "2 right", "4 right"], rows)


def repeated_errors(trials: int) -> None:
    rows = []
    for persistence in (0.0, 0.5, 1.0):
        for bias in (0.0, 0.2):
            adaptive = Adaptive(confidence=1.0)
            outcomes = [
                simulate(s, 8, trials // 4, persistence=persistence, bias=bias) for s in (adaptive, RoundRobin())
            ]
            rows.append([persistence, bias, *map(percent, outcomes), f"{adaptive.persistence.value:.2f}"])
    header = ["persistence", "bias", "adaptive, all 28", "round robin", "persistence learned"]
    show("A judge that repeats its errors and prefers the first, N = 8, one right", header, rows)


def widths(trials: int, tokens: int) -> None:
    """Every strategy at every N: what it finds and what it costs."""
    header = ["N", "strategy", "found", "comparisons", "judge tokens"]
    title = f"Accuracy 0.8, one right, {tokens} tokens a comparison, {trials} trials"
    show(title, header, widths_rows(trials, tokens))


def widths_rows(trials: int, tokens: int) -> Iterator[list[object]]:
    for N in (2, 3, 4, 6, 8, 12, 16):
        strategies: dict[str, Strategy] = {
            "voting, R = 8": Voting(8),
            "voting, R = 32": Voting(32),
            "knockout": Knockout(),
            "knockout, both orders": Knockout(both_orders=True),
            "round robin": RoundRobin(),
            f"adaptive, all {N - 1}": Adaptive(N - 1, 1.0),
            f"adaptive, all {2 * N}": Adaptive(2 * N, 1.0),
            "adaptive, stops at 0.8": Adaptive(),
        }
        for name, strategy in strategies.items():
            found, comparisons = simulate(strategy, N, trials)
            yield [N, name, f"{found:.1%}", f"{comparisons:.1f}", f"{comparisons * tokens / 1000:,.0f}k"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulate the selection strategies.")
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--tokens", type=int, default=2_000, help="of prompt and answer of one comparison")
    parser.add_argument("--only", choices=["perfect", "strategies", "errors", "widths"], help="one table")
    args = parser.parse_args()
    tables = {
        "perfect": lambda: perfect_judge(args.trials),
        "strategies": lambda: strategies_at_8(args.trials),
        "errors": lambda: repeated_errors(args.trials),
        # Alone it gets all trials: beside the others it would take most of an hour.
        "widths": lambda: widths(args.trials if args.only else args.trials // 20, args.tokens),
    }
    for name, table in tables.items():
        if args.only in (None, name):
            table()


if __name__ == "__main__":
    main()
