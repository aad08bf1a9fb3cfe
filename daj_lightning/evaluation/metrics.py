"""From judgments to numbers: selection accuracy, pass@1 of Best-of-N, and what trivial rules would score.

Every number carries a 95 % interval from a bootstrap over problems: comparisons of one problem are not
independent, so they are drawn together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from daj_lightning.data.canonical import without_comments
from daj_lightning.judge import Voting
from daj_lightning.records import Candidate, Judgment

Graded = Mapping[str, Sequence[tuple[Candidate, bool]]]
"""problem id -> its candidates in order, each with whether it passed every test."""


@dataclass(frozen=True, slots=True)
class Score:
    """A mean over problems with its uncertainty."""

    value: float
    """Between 0 and 1."""
    low: float
    """2.5 % quantile of the bootstrap."""
    high: float
    """97.5 % quantile."""
    num_problems: int

    def __str__(self) -> str:
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}] (n={self.num_problems})"


def bootstrap(groups: Sequence[Sequence[float]], num_draws: int = 2000, seed: int = 0) -> Score:
    """Mean over all entries, with an interval from drawing whole groups (one a problem) with replacement."""
    if not groups:
        return Score(float("nan"), float("nan"), float("nan"), 0)
    sums = np.array([sum(group) for group in groups], dtype=float)
    sizes = np.array([len(group) for group in groups], dtype=float)
    draws = np.random.default_rng(seed).integers(len(groups), size=(num_draws, len(groups)))
    means = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Score(float(sums.sum() / sizes.sum()), float(low), float(high), len(groups))


def selection_scores(judgments: Sequence[Judgment], graded: Graded) -> dict[str, Score]:
    """How often the judge picks the right one of a right and a wrong candidate, both orders asked.

    Keys: "judge"; "judge, easy" and so on by difficulty; "reward", the mean of Eq. 1; then what rules would
    score that read no code, on the same comparisons (confounds; 0.5 for a tie):
    "longer code" and "shorter code";
    "more layout", the candidate with the larger `layout_share`;
    "stronger policy", the candidate whose policy passes more often on the other problems of `graded`.
    And what the judge's answers are like:
    "format errors";
    "first position", the share of valid answers that name the first candidate (0.5 is unbiased; a rule that
    always names it scores 0.5, since both orders are asked);
    "consistent", the share of pairs answered alike in both orders.
    """
    mixed = [judgment for judgment in judgments if judgment.comparison.kind == "mixed"]
    candidates = {c.candidate_id: c for group in graded.values() for c, _ in group}
    rate = _rates_elsewhere(graded)

    def by_problem(score: Callable[[Judgment], float | None]) -> Score:
        groups: dict[str, list[float]] = {}
        for judgment in mixed:
            value = score(judgment)
            if value is not None:
                groups.setdefault(judgment.comparison.problem_id, []).append(value)
        return bootstrap(list(groups.values()))

    def picks(most: Callable[[Candidate], float | None]) -> Score:
        """Of the rule that picks the candidate with the most; None says nothing."""

        def score(judgment: Judgment) -> float:
            first, second = (most(candidates[name]) for name in judgment.comparison.candidate_ids)
            if first is None or second is None or first == second:
                return 0.5
            return float(judgment.comparison.passed[0 if first > second else 1])

        return by_problem(score)

    def right_if(level: str) -> Callable[[Judgment], float | None]:
        return lambda j: float(j.reward == 1.0) if j.comparison.difficulty == level else None

    asked = {judgment.comparison.difficulty for judgment in mixed}
    levels = [level for level in ("easy", "medium", "hard") if level in asked]
    return {
        "judge": by_problem(lambda j: float(j.reward == 1.0)),
        "reward": by_problem(lambda j: j.reward),
        **{f"judge, {level}": by_problem(right_if(level)) for level in levels},
        "longer code": picks(lambda c: len(c.code)),
        "shorter code": picks(lambda c: -len(c.code)),
        "more layout": picks(lambda c: layout_share(c.code)),
        "stronger policy": picks(lambda c: rate(c.policy, c.problem_id)),
        "format errors": by_problem(lambda j: float(j.selection is None)),
        "first position": by_problem(lambda j: None if j.selection is None else float(j.selection == 0)),
        "consistent": _consistency(mixed),
    }


def layout_share(code: str) -> float:
    """Share of a program's characters that are white space or stand in a comment."""
    return 1 - len("".join(without_comments(code).split())) / max(len(code), 1)


def _rates_elsewhere(graded: Graded) -> Callable[[str, str], float | None]:
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


def _consistency(mixed: Sequence[Judgment]) -> Score:
    chosen: dict[tuple[str, frozenset[str]], list[str | None]] = {}
    for judgment in mixed:
        ids = judgment.comparison.candidate_ids
        name = None if judgment.selection is None else ids[judgment.selection]
        chosen.setdefault((judgment.comparison.problem_id, frozenset(ids)), []).append(name)
    groups: dict[str, list[float]] = {}
    for (problem, _), names in chosen.items():
        if len(names) == 2:
            groups.setdefault(problem, []).append(float(names[0] is not None and names[0] == names[1]))
    return bootstrap(list(groups.values()))


def best_of_n_scores(
    judgments: Sequence[Judgment], graded: Graded, voting: Voting, problems: Mapping[str, str] | None = None
) -> dict[str, dict[str, Score]]:
    """pass@1 of the voted candidate beside the bounds and the confounds.

    Args:
        judgments: of the rounds; others are left aside.
        graded: candidates and what they passed.
        voting: the rule that drew the rounds.
        problems: problem id -> difficulty of every problem that counts, so that one with a single candidate,
            about which nothing is asked, counts too; the problems asked about if absent.
    Returns:
        rule -> "overall" and each difficulty -> score. Rules: "judge", "random" (mean over candidates),
        "oracle", "first", "longest", "shortest", "more layout" (the largest `layout_share`) and "stronger policy"
        (mean over the candidates of the policy that passes most often on the other problems of `graded`; over all
        of several such policies).
    """
    rate = _rates_elsewhere(graded)

    def of_stronger_policy(name: str) -> float:
        rates = {c.policy: rate(c.policy, name) for c, _ in graded[name]}
        best = max((known for known in rates.values() if known is not None), default=None)
        return float(np.mean([passed for c, passed in graded[name] if rates[c.policy] == best]))

    rounds: dict[str, list[Judgment]] = {}
    difficulty: dict[str, str] = dict(problems or {})
    for judgment in judgments:  # names the problems that were asked about
        comparison = judgment.comparison
        difficulty[comparison.problem_id] = comparison.difficulty
        if comparison.kind == "round":
            rounds.setdefault(comparison.problem_id, []).append(judgment)
    rules: dict[str, Callable[[str], float]] = {
        "judge": lambda name: float(graded[name][_winner(name, graded, rounds.get(name, []), voting)][1]),
        "random": lambda name: float(np.mean([passed for _, passed in graded[name]])),
        "oracle": lambda name: float(any(passed for _, passed in graded[name])),
        "first": lambda name: float(graded[name][0][1]),
        "longest": lambda name: float(max(graded[name], key=lambda entry: len(entry[0].code))[1]),
        "shortest": lambda name: float(min(graded[name], key=lambda entry: len(entry[0].code))[1]),
        "more layout": lambda name: float(max(graded[name], key=lambda entry: layout_share(entry[0].code))[1]),
        "stronger policy": of_stronger_policy,
    }
    levels = [level for level in ("easy", "medium", "hard") if level in difficulty.values()]
    return {
        rule: {
            "overall": bootstrap([[score(name)] for name in difficulty]),
            **{
                level: bootstrap([[score(name)] for name in difficulty if difficulty[name] == level])
                for level in levels
            },
        }
        for rule, score in rules.items()
    }


def _winner(name: str, graded: Graded, rounds: Sequence[Judgment], voting: Voting) -> int:
    index = {candidate.candidate_id: i for i, (candidate, _) in enumerate(graded[name])}
    pairs = [(index[r.comparison.candidate_ids[0]], index[r.comparison.candidate_ids[1]]) for r in rounds]
    winner = voting.count(len(index), name, pairs, [r.selection for r in rounds]).winner
    assert winner is not None, "a count of votes never abstains"
    return winner
