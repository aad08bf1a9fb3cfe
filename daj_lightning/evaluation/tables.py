"""Scores as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from daj_lightning.evaluation.metrics import Score

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
    return f"{score.value:.1%} [{score.low:.0%}, {score.high:.0%}]"
