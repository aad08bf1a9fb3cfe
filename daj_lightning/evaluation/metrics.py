"""From judgments to numbers: selection accuracy, pass@1 of Best-of-N, and what trivial rules would score.

Every number carries a 95 % interval from a bootstrap over problems: comparisons of one problem are not
independent, so they are drawn together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from daj_lightning.evaluation.baselines import (
    Graded as Graded,
    Rule,
    baseline_rules,
    layout_share as layout_share,
    rates_elsewhere,
)
from daj_lightning.evaluation.score import LEVELS, Score as Score, bootstrap as bootstrap
from daj_lightning.judge import Voting
from daj_lightning.records import Candidate, Judgment


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
    rate = rates_elsewhere(graded)

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
    levels = [level for level in LEVELS if level in asked]
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
        rule -> "overall" and each difficulty -> score. Rules: "judge" and those of `baseline_rules`.
    """
    rounds: dict[str, list[Judgment]] = {}
    difficulty: dict[str, str] = dict(problems or {})
    for judgment in judgments:  # names the problems that were asked about
        comparison = judgment.comparison
        difficulty[comparison.problem_id] = comparison.difficulty
        if comparison.kind == "round":
            rounds.setdefault(comparison.problem_id, []).append(judgment)
    rules: dict[str, Rule] = {
        "judge": lambda name: float(graded[name][_winner(name, graded, rounds.get(name, []), voting)][1]),
        **baseline_rules(graded),
    }
    levels = [level for level in LEVELS if level in difficulty.values()]
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
