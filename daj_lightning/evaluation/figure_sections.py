"""The sections that are mostly figures: accuracy against comparisons, number of candidates, weights over training."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from daj_lightning.evaluation.charts import BoxChart, LineChart, Point, Series
from daj_lightning.evaluation.document import (
    Block,
    Cell,
    Column,
    Figure,
    Paragraph,
    Row,
    Section,
    Table,
    counted,
    interval,
    number,
    percent,
    score_cell,
)
from daj_lightning.evaluation.hostile import name
from daj_lightning.evaluation.metrics import Score
from daj_lightning.evaluation.results import CurvePoint, Evaluation, WeightHistory

_T = TypeVar("_T")


def curves(evaluation: Evaluation) -> Section:
    """Accuracy against comparisons: one figure for each judge and number of candidates."""
    blocks: list[Block] = [
        Paragraph(
            "A strategy buys accuracy with comparisons. Higher and further left is better. Lines join one strategy "
            "with different settings."
        )
    ]
    families = {_family(point.strategy) for judge in evaluation.judges for point in judge.curve}
    places = {family: place for place, family in enumerate(sorted(families))}
    for judge in evaluation.judges:
        for num_candidates in sorted({point.num_candidates for point in judge.curve}):
            points = [point for point in judge.curve if point.num_candidates == num_candidates]
            levels = evaluation.by_num_candidates.get(num_candidates, {})
            blocks.append(_curve(name(judge.name), num_candidates, points, levels, places))
    return Section("curves", "Accuracy against comparisons", blocks)


def _curve(
    judge: str,
    num_candidates: int,
    points: Sequence[CurvePoint],
    levels: Mapping[str, Score],
    places: Mapping[str, int],
) -> Figure:
    """places: family -> its style, the same in every figure."""
    families: dict[str, list[CurvePoint]] = {}
    for point in sorted(points, key=lambda p: p.num_comparisons):
        families.setdefault(_family(point.strategy), []).append(point)
    series = [
        Series(
            name(family),
            [
                score_point(p.pass_at_1, p.num_comparisons, 100 * p.pass_at_1.value, name(p.strategy))
                for p in entries
                if p.pass_at_1.num_problems
            ],
            places[family],
        )
        for family, entries in sorted(families.items())
    ]
    bounds = [(rule, 100 * levels[rule].value) for rule in ("random", "oracle") if rule in levels]
    chart = LineChart("comparisons a problem (mean)", "pass@1, percent", series, bounds)
    differ = len({p.pass_at_1.num_problems for p in points}) > 1
    rows = [
        Row(Cell(name(p.strategy)), [Cell(number(p.num_comparisons, 1)), score_cell(p.pass_at_1, with_count=differ)])
        for entries in (families[key] for key in sorted(families))
        for p in entries
    ]
    columns = [Column("strategy", numeric=False), Column("comparisons"), Column("pass@1")]
    title = f"“{judge}”, {num_candidates} candidates: accuracy against comparisons"
    note = "Strategies are replayed on the problems whose pairs were all asked: other problems than of the rest."
    table = Table(f"{title}. pass@1, percent, with 95 % intervals.", columns, rows, note if differ else "")
    best = max(points, key=lambda p: (p.pass_at_1.value if p.pass_at_1.num_problems else -1, -p.num_comparisons))
    alt = (
        f"pass@1 against comparisons for {counted(len(families), 'strategy', 'strategies')}; the highest is "
        f"{name(best.strategy)} with {percent(best.pass_at_1.value)} percent at {number(best.num_comparisons, 1)}."
    )
    return Figure(f"{title}. Bars: 95 % intervals.", alt, chart, table)


def _family(strategy: str) -> str:
    """The strategy without its numbers, which vary along a line."""
    bare = re.sub(r"(\b\w+\s*=\s*)?-?\b\d+(\.\d+)?(e-?\d+)?\b,?\s*", "", strategy)
    return re.sub(r",?\s*\)", ")", bare).replace("()", "").strip() or strategy


def candidates(evaluation: Evaluation) -> Section:
    """The paper's Figure 4."""
    counts = sorted(evaluation.by_num_candidates)
    found = dict.fromkeys(key for count in counts for key in evaluation.by_num_candidates[count])
    names = [key for key in found if key not in ("random", "oracle")]
    bounds = [key for key in ("oracle", "random") if key in found]
    series = []
    for place, key in enumerate([*names, *bounds]):
        scores = [(count, evaluation.by_num_candidates[count].get(key)) for count in counts]
        points = [
            score_point(score, count, 100 * score.value, f"{name(key)}, {count} candidates")
            for count, score in scores
            if score is not None and score.num_problems
        ]
        style = -1 - bounds.index(key) if key in bounds else place
        series.append(Series(name(key), points, style))
    rows = [
        Row(Cell(name(key)), [score_cell(evaluation.by_num_candidates[count].get(key)) for count in counts])
        for key in [*names, *bounds]
    ]
    columns = [Column("", numeric=False), *(Column(str(count)) for count in counts)]
    last = evaluation.by_num_candidates[counts[-1]]
    says = ", ".join(f"{name(key)} {percent(last[key].value)}" for key in [*names, *bounds] if key in last)
    chart = LineChart("candidates a problem", "pass@1, percent", series, x_ticks=counts)
    caption = "Number of candidates (the paper's Figure 4)"
    table = Table(f"{caption}. pass@1, percent, with 95 % intervals; columns: candidates a problem.", columns, rows)
    figure = Figure(
        f"{caption}. Bars: 95 % intervals.",
        f"pass@1 for {counts[0]} to {counts[-1]} candidates. At {counts[-1]}: {says} percent.",
        chart,
        table,
    )
    text = (
        "More candidates raise the oracle, since a right one is among them more often; a judge has to find it. The "
        "paper draws the figure for LiveCodeBench without stating its numbers."
    )
    return Section("candidates", "Number of candidates", [Paragraph(text), figure])


def weights(evaluation: Evaluation) -> Section:
    """The paper's Figures 5 and 6."""
    history = evaluation.weights
    assert history is not None
    text = "What training learned of its data. A weight of 1 is plain training; a sample of weight 0 teaches nothing."
    blocks: list[Block] = [Paragraph(text)]
    if history.by_domain:
        blocks.append(_domains(history))
    if any(math.isfinite(value) for stage in history.quantiles for value in stage):
        blocks.append(_spread(history))
    return Section("weights", "Weights over training", blocks)


def _domains(history: WeightHistory) -> Figure:
    series, rows = [], []
    shown = _spaced(range(len(history.windows)), 9)
    for place, (domain, values) in enumerate(sorted(history.by_domain.items())):
        points = [
            Point(window, value, hint=f"{name(domain)}, window {window}: {number(value, 3)}")
            for window, value in zip(history.windows, values, strict=True)
            if math.isfinite(value)
        ]
        series.append(Series(name(domain), points, place))
        rows.append(Row(Cell(name(domain)), [Cell(number(values[i], 3)) for i in shown]))
    columns = [Column("window", numeric=False), *(Column(str(history.windows[i])) for i in shown)]
    caption = "Mean weight of each domain over training (the paper's Figure 5)"
    last = {name(domain): [v for v in values if math.isfinite(v)] for domain, values in history.by_domain.items()}
    ends = ", ".join(f"{domain} {number(seen[-1], 2)}" for domain, seen in sorted(last.items()) if seen)
    chart = LineChart("window", "mean weight", series, [("plain training", 1.0)], max_markers=6)
    return Figure(
        f"{caption}.",
        f"A line for each domain. At the end: {ends}.",
        chart,
        Table(f"{caption}, at some windows.", columns, rows),
    )


def _spread(history: WeightHistory) -> Figure:
    stages = [f"{25 * stage} %" for stage in range(1, len(history.quantiles) + 1)]
    names = ("5 %", "25 %", "median", "75 %", "95 %")
    caption = "Spread of the samples' weights at four stages of training (the paper's Figure 6)"
    rows = [
        Row(Cell(stage), [Cell(number(value, 3)) for value in values])
        for stage, values in zip(stages, history.quantiles, strict=True)
    ]
    table = Table(caption, [Column("training done", numeric=False), *map(Column, names)], rows)
    medians = ", ".join(f"{number(values[2], 2)} at {s}" for s, values in zip(stages, history.quantiles, strict=True))
    chart = BoxChart("training done", "weight of a sample", stages, history.quantiles, level=1.0)
    explained = f"{caption}. Box: middle half, with the median; whiskers: 5 % to 95 %."
    return Figure(explained, f"A box for each quarter of training. Medians: {medians}.", chart, table)


def score_point(score: Score, x: float, y: float = 0.0, says: str = "") -> Point:
    """A score in percent, wherever it stands; its interval; and a hint of both."""
    hint = f"{says + ': ' if says else ''}{percent(score.value)} {interval(score)}"
    return Point(x, y, 100 * score.low, 100 * score.high, hint)


def _spaced(entries: Sequence[_T], at_most: int) -> Sequence[_T]:
    """First, last and some between, evenly spaced."""
    if len(entries) <= at_most:
        return entries
    return [entries[round(i * (len(entries) - 1) / (at_most - 1))] for i in range(at_most)]
