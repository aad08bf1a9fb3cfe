"""What all answers about a problem say together: do they contradict each other, and what order do they give?

Letters: N candidates of a problem.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torchmetrics.functional.retrieval import retrieval_normalized_dcg

from daj_lightning.evaluation.rows import RowMetric, code
from daj_lightning.evaluation.score import Score, bootstrap

Edge = tuple[int, int]
"""Two candidates, winner first."""


@dataclass(frozen=True, slots=True)
class Vote:
    """One answer about two candidates of a problem."""

    problem: str
    pair: tuple[int, int]
    """In the order shown."""
    winner: int | None
    """One of the pair; None: no answer, or a tie."""


class Transitivity(RowMetric):
    """Share of triples without a cycle (a beats b, b beats c, c beats a), over triples whose pairs are all decided.

    Who beats whom is the majority of the answers about a pair, in both orders; as many votes for either decide nothing.
    """

    num_keys, num_values = 4, 0

    def update(self, votes: Iterable[Vote]) -> None:
        """Answers about any pairs, in any order."""
        self.add(((code(v.problem), *sorted(v.pair), -1 if v.winner is None else v.winner), ()) for v in votes)

    def measure(self) -> dict[str, Score]:
        """ "transitivity"; nothing where no triple is decided."""
        balance: dict[int, dict[tuple[int, int], int]] = {}
        for (problem, low, high, winner), _ in self.rows():
            own = balance.setdefault(problem, {})
            own[low, high] = own.get((low, high), 0) + (winner == low) - (winner == high)
        groups = [[float(not cycle) for cycle in cycles(own)] for own in balance.values()]
        decided = [group for group in groups if group]
        return {"transitivity": bootstrap(decided)} if decided else {}


def cycles(balance: Mapping[tuple[int, int], int]) -> list[bool]:
    """Of each decided triple, whether it is a cycle.

    Args:
        balance: pair (lower index first) -> votes for the first less votes for the second.
    """
    wins = {pair: votes > 0 for pair, votes in balance.items() if votes}
    names = sorted({name for pair in wins for name in pair})
    triples = (t for t in itertools.combinations(names, 3) if all(p in wins for p in itertools.combinations(t, 2)))
    # a -> b, b -> c and not a -> c; or all three the other way round
    return [wins[a, b] == wins[b, c] != wins[a, c] for a, b, c in triples]


class Ndcg(RowMetric):
    """How high the right candidates stand in a judge's order (NDCG); candidates of equal strength share their places.

    Over problems with right and wrong candidates; DuST reports it of rankings, here the order is by votes or scores.
    """

    num_keys, num_values = 3, 1

    def update(
        self, problems: Sequence[str], strengths: Sequence[Sequence[float]], passed: Sequence[Sequence[bool]]
    ) -> None:
        """One entry a problem, of (N,) strengths and verdicts each; a problem comes once."""
        for name, own, right in zip(problems, strengths, passed, strict=True):
            candidates = enumerate(zip(own, right, strict=True))
            self.add(((code(name), i, ok), (strength,)) for i, (strength, ok) in candidates)

    def measure(self) -> dict[str, Score]:
        """ "NDCG"; nothing where no problem is mixed."""
        problems: dict[int, list[tuple[float, bool]]] = {}
        for (problem, _, ok), (strength,) in self.rows():
            problems.setdefault(problem, []).append((strength, bool(ok)))
        found = [[ndcg(entries)] for entries in problems.values() if len({ok for _, ok in entries}) == 2]
        return {"NDCG": bootstrap(found)} if found else {}


def ndcg(entries: Sequence[tuple[float, bool]]) -> float:
    """Of one problem's (strength, passed)."""
    strengths, passed = zip(*entries, strict=True)
    # Ranks instead of strengths: float32 would take scores for equal that differ in their last digits.
    order = {strength: rank for rank, strength in enumerate(sorted(set(strengths)))}
    preds = torch.tensor([float(order[strength]) for strength in strengths])
    return float(retrieval_normalized_dcg(preds, torch.tensor(passed).long()))
