"""A handful of what judges got wrong, of every kind: the gallery of the report.

Balanced: judges, difficulties and ways to fail (a wrong selection, a format error) take turns, and so do problems.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from daj_lightning.evaluation.judges import Answered, BothOrders, Rater
from daj_lightning.evaluation.pairwise import Choice
from daj_lightning.evaluation.results import Failure

NUM_FAILURES = 20


def failures(judges: Sequence[Rater], number: int = NUM_FAILURES) -> list[Failure]:
    """At most `number` wrongly answered questions about a right and a wrong program."""
    piles: dict[tuple[str, str, bool], list[Failure]] = {}
    for judge in judges:
        for failure in _all(judge):
            piles.setdefault((failure.judge, failure.difficulty, failure.selection is None), []).append(failure)
    for key, pile in piles.items():
        piles[key] = _one_of_each_problem_first(sorted(pile, key=_order))
    chosen: list[Failure] = []
    while len(chosen) < number and any(piles.values()):
        chosen += [pile.pop(0) for pile in piles.values() if pile]
    return chosen[:number]


def _all(judge: Rater) -> Iterable[Failure]:
    if isinstance(judge, Answered):
        for problem, own in judge.answers.items():
            passed, group = judge.field.passed(problem), judge.field.graded[problem]
            for pair, answer in own:
                right = [passed[i] for i in pair]
                if right[0] != right[1] and (answer.selection is None or not right[answer.selection]):
                    yield Failure(
                        judge=judge.name,
                        problem_id=problem,
                        difficulty=judge.field.difficulty[problem],
                        statement=judge.field.statement(problem),
                        programs=tuple(group[i][0].code for i in pair),
                        passed=tuple(right),
                        selection=answer.selection,
                        response=answer.response,
                    )
    if isinstance(judge, BothOrders):
        for row in judge.pairs:
            for given, text in zip(row.answers, row.texts, strict=True):
                if given.choice != given.right and given.choice is not Choice.TIE:
                    order = (1, 0) if given.swapped else (0, 1)
                    yield Failure(
                        judge=judge.name,
                        problem_id=row.pair_id,
                        difficulty=row.source,
                        statement=row.question,
                        programs=tuple(row.responses[i] for i in order),
                        passed=tuple(given.right == i for i in order),
                        selection=order.index(given.choice) if given.choice <= Choice.B else None,
                        response=text,
                    )


def _order(failure: Failure) -> str:
    """By chance, and by the same chance each time."""
    named = repr((failure.problem_id, failure.programs, failure.selection)).encode("utf-8", "surrogatepass")
    return hashlib.sha256(named).hexdigest()


def _one_of_each_problem_first(pile: Iterable[Failure]) -> list[Failure]:
    seen: dict[str, int] = {}
    numbered = []
    for failure in pile:
        seen[failure.problem_id] = seen.get(failure.problem_id, -1) + 1
        numbered.append((seen[failure.problem_id], failure))
    return [failure for _, failure in sorted(numbered, key=lambda entry: entry[0])]
