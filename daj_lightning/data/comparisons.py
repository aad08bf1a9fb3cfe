"""From verdicts to what the judge is asked.

Pairs of candidates where both or neither pass teach nothing and are left out of training. Every mixed
pair appears in both orders, so that a position never gives the answer away.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence

from daj_lightning.judge import PromptTemplate, Voting
from daj_lightning.records import Candidate, Comparison, Problem


def mixed_comparisons(
    problem: Problem,
    candidates: Sequence[Candidate],
    passed: Mapping[str, bool],
    template: PromptTemplate,
    max_pairs: int,
    seed: int,
) -> list[Comparison]:
    """Up to `max_pairs` (right, wrong) pairs of a problem, each in both orders."""
    right = [c for c in candidates if passed[c.candidate_id]]
    wrong = [c for c in candidates if not passed[c.candidate_id]]
    pairs = list(itertools.product(right, wrong))
    random.Random(f"{seed}/mixed/{problem.problem_id}").shuffle(pairs)
    orders = [order for pair in pairs[:max_pairs] for order in (pair, pair[::-1])]
    return [compare(problem, order, passed, template, "mixed") for order in orders]


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
) -> Comparison:
    return Comparison(
        problem_id=problem.problem_id,
        domain=problem.domain,
        difficulty=problem.difficulty,
        policy="+".join(sorted({c.policy for c in candidates})),
        candidate_ids=tuple(c.candidate_id for c in candidates),
        passed=tuple(passed[c.candidate_id] for c in candidates),
        prompt=template.fill(problem, candidates),
        kind=kind,
    )
