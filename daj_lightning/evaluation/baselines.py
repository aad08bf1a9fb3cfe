"""What rules that read no code would score: the bounds, and the confounds that a judge has to beat.

Research on public judge data found "pick the stronger model" at 88 % and "pick the longer program" at 64 % on pairs
that cross models; so each stands beside every judge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from daj_lightning.data.canonical import without_comments
from daj_lightning.records import Candidate

Graded = Mapping[str, Sequence[tuple[Candidate, bool]]]
"""problem id -> its candidates in order, each with whether it passed every test."""
Rule = Callable[[str], float]
"""problem id -> whether (or how probably) the program that the rule picks passes."""


def baseline_rules(graded: Graded) -> dict[str, Rule]:
    """The rules by name.

    "random" (mean over candidates), "oracle", "first", "longest", "shortest", "more layout" (the largest
    `layout_share`) and "stronger policy" (mean over the candidates of the policy that passes most often on the other
    problems of `graded`; over all of several such policies).
    """
    rate = rates_elsewhere(graded)

    def of_stronger_policy(name: str) -> float:
        rates = {c.policy: rate(c.policy, name) for c, _ in graded[name]}
        best = max((known for known in rates.values() if known is not None), default=None)
        return float(np.mean([passed for c, passed in graded[name] if rates[c.policy] == best]))

    return {
        "random": lambda name: float(np.mean([passed for _, passed in graded[name]])),
        "oracle": lambda name: float(any(passed for _, passed in graded[name])),
        "first": lambda name: float(graded[name][0][1]),
        "longest": lambda name: float(max(graded[name], key=lambda entry: len(entry[0].code))[1]),
        "shortest": lambda name: float(min(graded[name], key=lambda entry: len(entry[0].code))[1]),
        "more layout": lambda name: float(max(graded[name], key=lambda entry: layout_share(entry[0].code))[1]),
        "stronger policy": of_stronger_policy,
    }


def layout_share(code: str) -> float:
    """Share of a program's characters that are white space or stand in a comment."""
    return 1 - len("".join(without_comments(code).split())) / max(len(code), 1)


def rates_elsewhere(graded: Graded) -> Callable[[str, str], float | None]:
    """(policy, problem id) -> how often the policy passes on all other problems; None if it wrote for none."""
    written: Counter[tuple[str, str]] = Counter()
    right: Counter[tuple[str, str]] = Counter()
    for problem, group in graded.items():
        for candidate, passed in group:
            for where in (problem, ""):  # "": everywhere
                written[candidate.policy, where] += 1
                right[candidate.policy, where] += passed

    def rate(policy: str, problem: str) -> float | None:
        others = written[policy, ""] - written[policy, problem]
        return (right[policy, ""] - right[policy, problem]) / others if others else None

    return rate
