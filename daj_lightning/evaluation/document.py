"""The report before it has a form: sections of paragraphs, tables, figures and galleries.

HTML and Markdown are written from the same blocks, so that no number can differ between them. Texts are plain; each
writer escapes them its own way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from daj_lightning.evaluation.charts import BoxChart, DotChart, LineChart
from daj_lightning.evaluation.hostile import Line, Quote, name
from daj_lightning.evaluation.metrics import Score
from daj_lightning.evaluation.results import ByLevel

MINUS = "\u2212"
NBSP = "\u00a0"
LEVELS = ("overall", "easy", "medium", "hard")


@dataclass(frozen=True, slots=True)
class Cell:
    """One entry of a table."""

    text: str = ""
    detail: str = ""
    """Smaller, below the text: an interval, what a row means."""

    def __str__(self) -> str:
        return f"{self.text} {self.detail}".strip()


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    group: str = ""
    """Stands above neighbours that share it: "paper", "ours"."""
    detail: str = ""
    numeric: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    label: Cell
    cells: Sequence[Cell] = ()
    """One for each column but the first; none: a heading over the rows that follow."""
    strong: bool = False
    """The judge that the page is about."""


@dataclass(frozen=True, slots=True)
class Paragraph:
    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True, slots=True)
class Headline:
    """The one number to take away."""

    kind: ClassVar[str] = "headline"
    number: str
    interval: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Facts:
    kind: ClassVar[str] = "facts"
    entries: Mapping[str, Quote]


@dataclass(frozen=True, slots=True)
class Table:
    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[Column]
    """The first is of the rows' labels."""
    rows: Sequence[Row]
    note: str = ""

    @property
    def groups(self) -> list[tuple[str, int]]:
        """(group, how many neighbouring columns it spans); empty where no column has a group."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return spans if any(group for group, _ in spans) else []


@dataclass(frozen=True, slots=True)
class Figure:
    kind: ClassVar[str] = "figure"
    caption: str
    alt: str
    """What the figure shows, for those who do not see it."""
    chart: LineChart | BoxChart | DotChart
    numbers: Table | None = None
    """The figure's numbers; None where a table beside it has them."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Training samples with their texts."""

    kind: ClassVar[str] = "samples"
    title: str
    entries: Sequence[Sample]


@dataclass(frozen=True, slots=True)
class Sample:
    name: str
    summary: str
    prompt: Quote
    chosen: Quote
    rejected: Quote
    chosen_lines: Sequence[Line]
    """The same text, line by line, those that the other lacks marked."""
    rejected_lines: Sequence[Line]
    note: str


@dataclass(frozen=True, slots=True)
class Program:
    name: str
    passed: bool
    selected: bool
    code: Quote


@dataclass(frozen=True, slots=True)
class Failed:
    """A question answered wrongly."""

    name: str
    summary: str
    statement: Quote
    programs: Sequence[Program]
    response: Quote


@dataclass(frozen=True, slots=True)
class Failures:
    kind: ClassVar[str] = "failures"
    entries: Sequence[Failed]


Block = Paragraph | Headline | Facts | Table | Figure | Samples | Failures


@dataclass(frozen=True, slots=True)
class Section:
    name: str
    """Of its address within the page."""
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Document:
    title: str
    sections: Sequence[Section] = field(default_factory=tuple)


def percent(value: float, signed: bool = False) -> str:
    """0.847 -> "84.7"."""
    return number(100 * value, 1, signed)


def number(value: float, digits: int, signed: bool = False) -> str:
    """With a minus sign that is as wide as a plus; a dash where there is no number."""
    if not math.isfinite(value):
        return "\u2013"
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    if float(text) == 0:
        text = text.replace("-", "").replace("+", "")
    return text.replace("-", MINUS)


def interval(score: Score, signed: bool = False) -> str:
    """[2.5 % quantile, 97.5 % quantile] in percent."""
    if not (math.isfinite(score.low) and math.isfinite(score.high)):
        return ""
    return f"[{percent(score.low, signed)},{NBSP}{percent(score.high, signed)}]"


def score_cell(score: Score | None, signed: bool = False, with_count: bool = False) -> Cell:
    """Percent with its interval; empty where nothing was measured."""
    if score is None:
        return Cell()
    if score.num_problems == 0 or not math.isfinite(score.value):
        return Cell("\u2013", "no problems")
    count = f" n={score.num_problems}" if with_count else ""
    return Cell(percent(score.value, signed), interval(score, signed) + count)


def score_table(caption: str, rows: Mapping[str, tuple[ByLevel, str]], strong: str = "") -> Table:
    """A row for each name, a column for each level; the number of problems above where a column shares it."""
    found = {level for scores, _ in rows.values() for level in scores}
    levels = [level for level in LEVELS if level in found] + sorted(found - {*LEVELS})
    counts = {level: {scores[level].num_problems for scores, _ in rows.values() if level in scores} for level in levels}
    columns = [
        Column(name(level), detail=f"n={next(iter(counts[level]))}" if len(counts[level]) == 1 else "")
        for level in levels
    ]
    table_rows = [
        Row(
            Cell(label, detail),
            [score_cell(scores.get(level), with_count=len(counts[level]) > 1) for level in levels],
            strong=label == strong,
        )
        for label, (scores, detail) in rows.items()
    ]
    return Table(caption, [Column("", numeric=False), *columns], table_rows)


def counted(count: int, one: str, many: str = "") -> str:
    """1 problem, 2 problems."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
