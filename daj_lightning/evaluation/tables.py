"""Scores as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.markup import escape
from rich.table import Table

from daj_lightning.evaluation.results import ByLevel, Evaluation
from daj_lightning.evaluation.score import LEVELS, Score

_PAPER_LCB = {"overall": "84.7", "easy": "100.0", "medium": "89.7", "hard": "73.8"}
"""Table 4 (b): GRPO with domain reweighting on LiveCodeBench."""


def selection_table(columns: Mapping[str, Mapping[str, Score]], title: str) -> Table:
    """Selection accuracy and its confounds; one column a run."""
    table = Table("one right, one wrong", *columns, title=title)
    for row in next(iter(columns.values())):
        table.add_row(row, *(str(scores[row]) for scores in columns.values()))
    table.add_row("random", *["50.0%"] * len(columns))
    table.add_row("oracle", *["100.0%"] * len(columns))
    return table


def best_of_n_table(scores: Mapping[str, Mapping[str, Score]], title: str, paper: bool = False) -> Table:
    """pass@1 by difficulty: the shape of the paper's Tables 1 to 4, ours beside the bounds."""
    levels = list(next(iter(scores.values())))
    table = Table("pass@1", *levels, title=title)
    for rule, by_level in scores.items():
        table.add_row(rule, *(_short(by_level[level]) for level in levels))
    if paper:
        table.add_row("paper (LiveCodeBench)", *(_PAPER_LCB.get(level, "-") for level in levels))
    return table


def _short(score: Score) -> str:
    if not score.num_problems:
        return "-"
    return f"{score.value:.1%} [{score.low:.0%}, {score.high:.0%}]"


def evaluation_tables(evaluation: Evaluation) -> list[Table]:
    """All of an evaluation that fits a terminal: the headline first."""
    ours = [judge for judge in evaluation.judges if judge.pass_at_1]
    tables = []
    if ours:
        tables.append(
            levels_table(
                {judge.name: judge.gap_recovered for judge in ours},
                "oracle gap recovered: (judge - random) / (oracle - random), problems with mixed candidates",
                "judge",
            )
        )
        rules = {**{judge.name: judge.pass_at_1 for judge in ours}, **evaluation.baselines}
        tables.append(levels_table(rules, "Best-of-N", "pass@1"))
    if evaluation.judges:
        tables.append(pairwise_table(evaluation))
    if evaluation.tests:
        tests = Table("judges", "test", "difference", "p", title="paired tests")
        for test in evaluation.tests:
            p_value = "-" if test.p_value is None else "< 0.0001" if test.p_value < 1e-4 else f"{test.p_value:.4f}"
            tests.add_row(escape(f"{test.first} - {test.second}"), test.test, str(test.difference), p_value)
        tables.append(tests)
    for judge in ours:
        if judge.curve:
            points = Table("strategy", "comparisons", "pass@1", title=f"{escape(judge.name)}: pass@1 by comparisons")
            for point in judge.curve:
                points.add_row(point.strategy, f"{point.num_comparisons:.1f}", str(point.pass_at_1))
            tables.append(points)
    return tables


def levels_table(rows: Mapping[str, ByLevel], title: str, corner: str) -> Table:
    """A row each, overall and by difficulty."""
    levels = [level for level in ("overall", *LEVELS) if any(level in by_level for by_level in rows.values())]
    table = Table(corner, *levels, title=title)
    for name, by_level in rows.items():
        table.add_row(escape(name), *(_short(by_level[level]) if level in by_level else "-" for level in levels))
    return table


def pairwise_table(evaluation: Evaluation) -> Table:
    """A row a metric, a column a judge: what one accuracy hides."""
    table = Table("one right, one wrong", *(escape(judge.name) for judge in evaluation.judges), title="pairwise")
    names = list(dict.fromkeys(name for judge in evaluation.judges for name in judge.pairwise))
    for name in names:
        scores = (judge.pairwise.get(name) for judge in evaluation.judges)
        table.add_row(name, *("-" if score is None else _short(score) for score in scores))
    return table
