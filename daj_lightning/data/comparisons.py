"""From verdicts to what the judge is asked.

Pairs of candidates where both or neither pass teach nothing and are left out of training. Every mixed
pair appears in both orders, so that a position never gives the answer away (JudgeLM's swap augmentation,
Zhu et al. 2023); without the swap, one order is drawn for each pair.

Reference support shows a third program, which passed, beside the question; reference drop takes it away
again from some, so that the judge works with and without. Both are of training alone: what is asked in
validation and test is asked as in service, where nothing is known to pass.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from daj_lightning.data.canonical import canonical_program
from daj_lightning.judge import PromptTemplate, Voting
from daj_lightning.records import Candidate, Comparison, DajError, Problem, ReferenceUse


@dataclass(frozen=True, slots=True)
class References:
    """Which comparisons show a program that is known to pass.

    A pair of candidates is drawn for support, and both of its orders get the same program; each order is
    drawn to drop it on its own. JudgeLM trains with a drop of 0.5.

    Raises:
        DajError: a share outside [0, 1], or a drop without support.
    """

    support: float = 0.0
    """Share of the pairs with a reference, where another program passes."""
    drop: float = 0.0
    """Share of their comparisons that stand in the data without it instead."""

    def __post_init__(self) -> None:
        if not (0 <= self.support <= 1 and 0 <= self.drop <= 1):
            raise DajError(
                f"data.reference_support={self.support} and data.reference_drop={self.drop} are shares from 0 to 1."
            )
        if self.drop and not self.support:
            raise DajError(
                f"data.reference_drop={self.drop} has nothing to drop while data.reference_support is 0. "
                f"Raise reference_support, or leave reference_drop out."
            )


def mixed_comparisons(
    problem: Problem,
    candidates: Sequence[Candidate],
    passed: Mapping[str, bool],
    template: PromptTemplate,
    max_pairs: int,
    seed: int,
    swap: bool = True,
    references: References | None = None,
) -> list[Comparison]:
    """Up to `max_pairs` (right, wrong) pairs of a problem, each in both orders, or in one without `swap`."""
    right = [c for c in candidates if passed[c.candidate_id]]
    wrong = [c for c in candidates if not passed[c.candidate_id]]
    pairs = list(itertools.product(right, wrong))
    random.Random(f"{seed}/mixed/{problem.problem_id}").shuffle(pairs)
    comparisons = []
    for pair in pairs[:max_pairs]:
        orders = [pair, pair[::-1]] if swap else [_drawn_order(pair, seed)]
        supported, reference = _support(pair, right, references or References(), seed)
        for order in orders:
            use = ReferenceUse.LACKING if supported else ReferenceUse.NONE
            if reference is not None and references is not None:
                dropped = random.Random(f"{seed}/drop/{_names(order)}").random() < references.drop
                use = ReferenceUse.DROPPED if dropped else ReferenceUse.SHOWN
            shown = reference if use is ReferenceUse.SHOWN else None
            comparisons.append(compare(problem, order, passed, template, "mixed", shown, use))
    return comparisons


def _drawn_order(pair: Sequence[Candidate], seed: int) -> Sequence[Candidate]:
    return random.Random(f"{seed}/order/{_names(pair)}").choice([pair, pair[::-1]])


def _support(
    pair: Sequence[Candidate], right: Sequence[Candidate], references: References, seed: int
) -> tuple[bool, Candidate | None]:
    """Whether the pair is drawn for a reference, and one of the passing programs that copies neither of the pair."""
    rng = random.Random(f"{seed}/reference/{_names(pair)}")
    if rng.random() >= references.support:
        return False, None
    taken = {canonical_program(candidate.code) for candidate in pair}
    free = [candidate for candidate in right if canonical_program(candidate.code) not in taken]
    return True, rng.choice(free) if free else None


def _names(candidates: Sequence[Candidate]) -> str:
    return "/".join(candidate.candidate_id for candidate in candidates)


def voting_comparisons(
    problem: Problem,
    candidates: Sequence[Candidate],
    passed: Mapping[str, bool],
    template: PromptTemplate,
    voting: Voting,
) -> list[Comparison]:
    """The rounds of the paper's voting for one problem, whoever passes."""
    rounds = voting.draw(len(candidates), problem.problem_id)
    return [compare(problem, [candidates[i], candidates[j]], passed, template, "round") for i, j in rounds]


def compare(
    problem: Problem,
    candidates: Sequence[Candidate],
    passed: Mapping[str, bool],
    template: PromptTemplate,
    kind: str,
    reference: Candidate | None = None,
    reference_use: ReferenceUse = ReferenceUse.NONE,
) -> Comparison:
    return Comparison(
        problem_id=problem.problem_id,
        domain=problem.domain,
        difficulty=problem.difficulty,
        policy="+".join(sorted({c.policy for c in candidates})),
        candidate_ids=tuple(c.candidate_id for c in candidates),
        passed=tuple(passed[c.candidate_id] for c in candidates),
        prompt=template.fill(problem, candidates, reference),
        kind=kind,
        reference_id=reference.candidate_id if reference else None,
        reference_use=reference_use,
    )
