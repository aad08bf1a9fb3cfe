"""Figures as shapes: a chart and a width give paths and texts, which the template writes as SVG.

Colours are the style sheet's, so that a figure follows light and dark. A series is told from others by three things:
colour, dashes and marker. Widths are in CSS pixels: a phone gets a drawing of its own, with letters of the same size.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

NUM_COLOURS = 8
_DASHES = ("", "7 3", "2 3", "9 3 2 3")
_LEVELS = ("1.5 4", "10 5")
_MARKERS: tuple[tuple[tuple[float, float], ...], ...] = (
    tuple((math.cos(t * math.pi / 6), math.sin(t * math.pi / 6)) for t in range(12)),  # a disc, nearly
    ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    ((0, -1.25), (1.15, 0.85), (-1.15, 0.85)),
    ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    ((0, 1.25), (1.15, -0.85), (-1.15, -0.85)),
)
LETTER = 6.7
"""Mean width of a character at 12 px."""
RADIUS = 4.2


@dataclass(frozen=True, slots=True)
class Shape:
    """A path, or a text where `text` is set."""

    style: str
    """Classes of the style sheet."""
    path: str = ""
    dashes: str = ""
    hint: str = ""
    """Shown while the pointer rests on it."""
    text: str = ""
    x: float = 0.0
    y: float = 0.0
    anchor: str = "middle"


@dataclass(frozen=True, slots=True)
class Drawing:
    width: int
    height: int
    shapes: Sequence[Shape]


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of the legend."""

    name: str
    line: Shape
    marker: Shape | None


@dataclass(frozen=True, slots=True)
class Point:
    x: float
    y: float
    low: float = math.nan
    high: float = math.nan
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    name: str
    points: Sequence[Point]
    style: int
    """Which colour, dashes and marker; negative for the bounds, which are grey."""

    @property
    def classes(self) -> str:
        return "grey" if self.style < 0 else f"c{self.style % NUM_COLOURS}"

    @property
    def dashes(self) -> str:
        # By the colour's number too: where colours come round again, the pair is new.
        return _DASHES[(self.style + max(self.style, 0) // NUM_COLOURS) % len(_DASHES)]

    def marker(self, x: float, y: float, hint: str = "") -> Shape:
        corners = _MARKERS[self.style % len(_MARKERS)]
        points = [(x + RADIUS * dx, y + RADIUS * dy) for dx, dy in corners]
        return Shape(f"mark {self.classes}", _polygon(points), hint=hint)

    def key(self) -> Key:
        line = Shape(f"line {self.classes}", "M0 7H34", self.dashes)
        return Key(self.name, line, self.marker(17, 7))


@dataclass(frozen=True, slots=True)
class LineChart:
    """Lines over x with intervals, and level lines to compare with."""

    x_label: str
    y_label: str
    series: Sequence[Series]
    levels: Sequence[tuple[str, float]] = ()
    """Horizontal lines: (name, y)."""
    x_ticks: Sequence[float] = ()
    """Where to write; chosen by the chart unless given."""
    max_markers: int = 40
    """On a line with more points, so many of them carry a marker."""

    def keys(self) -> list[Key]:
        levels = [Key(name, Shape("level", "M0 7H34", _LEVELS[i % 2]), None) for i, (name, _) in enumerate(self.levels)]
        return [series.key() for series in self.series] + levels

    def draw(self, width: int) -> Drawing:
        points = [p for series in self.series for p in series.points if math.isfinite(p.y)]
        ys = [y for p in points for y in (p.y, p.low, p.high) if math.isfinite(y)] + [y for _, y in self.levels] or [
            0.0
        ]
        height = 300 if width < 500 else 340
        plot = _Plot(
            width, height, [p.x for p in points] or [0.0], ys or [0.0], self.x_label, self.y_label, self.x_ticks
        )
        shapes = plot.frame()
        shapes += [
            Shape("level", f"M{plot.left:.1f} {plot.y(y):.1f}H{plot.right:.1f}", _LEVELS[i % 2], name)
            for i, (name, y) in enumerate(self.levels)
        ]
        for place, series in enumerate(self.series):
            with_bars = any(math.isfinite(p.low) for p in series.points)
            # Side by side, so that intervals at one x can be told apart.
            shift = 3.0 * (place - (len(self.series) - 1) / 2) if with_bars else 0.0
            shapes += _line(series, plot, shift, self.max_markers, place)
        return Drawing(width, height, shapes)


@dataclass(frozen=True, slots=True)
class BoxChart:
    """Five quantiles a box: whiskers to the outer two, box to the inner two, a line at the median."""

    x_label: str
    y_label: str
    labels: Sequence[str]
    quantiles: Sequence[Sequence[float]]
    level: float

    def keys(self) -> list[Key]:
        return []

    def draw(self, width: int) -> Drawing:
        height = 300 if width < 500 else 340
        ys = [y for box in self.quantiles for y in box if math.isfinite(y)] + [self.level]
        xs = [0.5, len(self.labels) + 0.5]
        plot = _Plot(width, height, xs, ys, self.x_label, self.y_label, range(1, len(self.labels) + 1), self.labels)
        shapes = plot.frame()
        shapes.append(Shape("level", f"M{plot.left:.1f} {plot.y(self.level):.1f}H{plot.right:.1f}", _LEVELS[0]))
        half = min(34.0, 0.3 * (plot.right - plot.left) / max(len(self.labels), 1))
        for place, (label, box) in enumerate(zip(self.labels, self.quantiles, strict=True), start=1):
            if not all(math.isfinite(value) for value in box):
                continue
            x, (low, lower, median, upper, high) = plot.x(place), [plot.y(value) for value in box]
            hint = f"{label}: median {box[2]:.3g}, half between {box[1]:.3g} and {box[3]:.3g}"
            whiskers = f"M{x:.1f} {low:.1f}V{lower:.1f}M{x:.1f} {upper:.1f}V{high:.1f}"
            caps = "".join(f"M{x - half / 2:.1f} {y:.1f}h{half:.1f}" for y in (low, high))
            shapes += [
                Shape("bar c0", whiskers + caps),
                Shape("box c0", f"M{x - half:.1f} {lower:.1f}H{x + half:.1f}V{upper:.1f}H{x - half:.1f}Z", hint=hint),
                Shape("line c0", f"M{x - half:.1f} {median:.1f}H{x + half:.1f}"),
            ]
        return Drawing(width, height, shapes)


@dataclass(frozen=True, slots=True)
class DotChart:
    """A value and its interval a row, between a floor and a ceiling with names."""

    rows: Sequence[tuple[str, Point]]
    """(label, point); the value is the point's x, low and high are along x."""
    floor: tuple[str, float]
    ceiling: tuple[str, float]
    say: Callable[[float], str] = field(default=lambda x: f"{x:.0f}")

    def keys(self) -> list[Key]:
        return []

    def draw(self, width: int) -> Drawing:
        row_height, top = 34, 30
        height = top + row_height * len(self.rows) + 30
        ends = [x for _, p in self.rows for x in (p.x, p.low, p.high) if math.isfinite(x)]
        ticks = nice_ticks(min(self.floor[1], *ends), max(self.ceiling[1], *ends), 6)
        left = 14 + LETTER * max(len(label) for label, _ in self.rows)
        right = width - 30
        low, high = ticks[0], ticks[-1]

        def at(x: float) -> float:
            return left + (right - left) * (x - low) / (high - low)

        bottom = height - 26
        shapes = [Shape("grid", f"M{at(x):.1f} {top - 6}V{bottom}") for x in ticks]
        shapes += [Shape("tick", text=self.say(x), x=at(x), y=bottom + 17) for x in ticks]
        for name, x in (self.floor, self.ceiling):
            shapes += [
                Shape("bound", f"M{at(x):.1f} {top - 6}V{bottom}"),
                Shape("label", text=name, x=at(x), y=top - 13),
            ]
        series = Series("", (), 0)
        for place, (label, point) in enumerate(self.rows):
            y = top + row_height * (place + 0.5)
            shapes.append(Shape("label", text=label, x=left - 12, y=y + 4, anchor="end"))
            if math.isfinite(point.low) and math.isfinite(point.high):
                caps = "".join(f"M{at(x):.1f} {y - 5:.1f}v10" for x in (point.low, point.high))
                shapes.append(Shape("bar c0", f"M{at(point.low):.1f} {y:.1f}H{at(point.high):.1f}{caps}"))
            shapes.append(series.marker(at(point.x), y, point.hint))
        return Drawing(width, height, shapes)


class _Plot:
    """Axes: from numbers to pixels."""

    def __init__(
        self,
        width: int,
        height: int,
        xs: Sequence[float],
        ys: Sequence[float],
        x_label: str,
        y_label: str,
        x_ticks: Sequence[float] = (),
        x_names: Sequence[str] = (),
    ) -> None:
        self.x_label, self.y_label = x_label, y_label
        self.y_ticks = nice_ticks(min(ys), max(ys), 6)
        names = [tick_name(y, self.y_ticks) for y in self.y_ticks]
        self.left = 12 + LETTER * max(len(name) for name in names)
        self.right, self.top, self.bottom = width - 16.0, 34.0, height - 44.0
        x_ticks = x_ticks or nice_ticks(min(xs), max(xs), 5 if width < 500 else 8, whole=True)
        margin = 0.03 * (max(xs) - min(xs)) or 0.5
        self.low_x, self.high_x = min(xs) - margin, max(xs) + margin
        shown = [(x, i) for i, x in enumerate(x_ticks) if self.low_x <= x <= self.high_x]
        self.x_ticks = [(x, x_names[i] if x_names else tick_name(x, x_ticks)) for x, i in shown]

    def x(self, value: float) -> float:
        return self.left + (self.right - self.left) * (value - self.low_x) / (self.high_x - self.low_x)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return self.bottom - (self.bottom - self.top) * (value - low) / (high - low)

    def frame(self) -> list[Shape]:
        across = [
            shape
            for y in self.y_ticks
            for shape in (
                Shape("grid", f"M{self.left:.1f} {self.y(y):.1f}H{self.right:.1f}"),
                Shape("tick", text=tick_name(y, self.y_ticks), x=self.left - 6, y=self.y(y) + 4, anchor="end"),
            )
        ]
        along, written = [], -math.inf
        for x, name in self.x_ticks:
            along.append(Shape("axis", f"M{self.x(x):.1f} {self.bottom:.1f}v5"))
            half = LETTER * len(name) / 2
            if self.x(x) - half > written + 4:
                along.append(Shape("tick", text=name, x=self.x(x), y=self.bottom + 18))
                written = self.x(x) + half
        return [
            *across,
            Shape("axis", f"M{self.left:.1f} {self.bottom:.1f}H{self.right:.1f}"),
            *along,
            Shape("label", text=self.y_label, x=2, y=16, anchor="start"),
            Shape("label", text=self.x_label, x=(self.left + self.right) / 2, y=self.bottom + 37),
        ]


def _line(series: Series, plot: _Plot, shift: float, max_markers: int, place: int) -> list[Shape]:
    points = [p for p in series.points if math.isfinite(p.y)]
    pixels = [(plot.x(p.x) + shift, plot.y(p.y)) for p in points]
    shapes = []
    bars = [(x, plot.y(p.low), plot.y(p.high)) for (x, _), p in zip(pixels, points, strict=True) if p.low < p.high]
    if bars:
        path = "".join(f"M{x:.1f} {a:.1f}V{b:.1f}M{x - 3:.1f} {a:.1f}h6M{x - 3:.1f} {b:.1f}h6" for x, a, b in bars)
        shapes.append(Shape(f"bar {series.classes}", path))
    if len(pixels) > 1:
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in pixels)
        shapes.append(Shape(f"line {series.classes}", path, series.dashes))
    # Each line's markers begin a little later, or lines that start together would hide each other's.
    every = math.ceil(len(points) / max_markers)
    marked = range(place % every if len(points) > max_markers else 0, len(points), every or 1)
    return shapes + [series.marker(*pixels[i], points[i].hint) for i in marked]


def _polygon(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + "Z"


def nice_ticks(low: float, high: float, at_most: int, whole: bool = False) -> list[float]:
    """Round numbers, 1, 2 or 5 times a power of ten apart, from at or below `low` to at or above `high`."""
    if high <= low:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    exponent = math.floor(math.log10((high - low) / at_most))
    for power, digit in itertools.product(range(exponent, exponent + 3), (1, 2, 5)):
        step = digit * 10.0**power
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first + 1 <= at_most and not (whole and step < 1):
            return [i * step for i in range(first, last + 1)]
    raise AssertionError("three decades hold a step")


def tick_name(value: float, ticks: Sequence[float]) -> str:
    """With as many digits as all of them need."""
    digits = next((d for d in range(6) if all(abs(t - round(t, d)) < 1e-9 * (abs(t) + 1) for t in ticks)), 6)
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "\u2212")
