"""Charts put numbers where they belong, and series can be told apart without colour."""

from __future__ import annotations

import itertools
import math
import re

import pytest

from daj_lightning.evaluation.charts import (
    BoxChart,
    DotChart,
    Drawing,
    LineChart,
    Point,
    Series,
    Shape,
    nice_ticks,
    tick_name,
)


def corners(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path)]


def lines(drawing: Drawing, style: str) -> list[Shape]:
    return [shape for shape in drawing.shapes if shape.style == style]


def test_a_line_goes_through_its_points_in_proportion() -> None:
    chart = LineChart("x", "y", [Series("a", [Point(0, 0.0), Point(5, 50.0), Point(10, 100.0)], 0)])
    (line,) = lines(chart.draw(700), "line c0")
    (x0, y0), (x1, y1), (x2, y2) = corners(line.path)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y1 - y0 == pytest.approx(y2 - y1, abs=0.2)
    assert x0 < x1
    assert y0 > y1, "up is up"


def test_a_point_that_was_not_measured_is_left_out_of_its_line() -> None:
    chart = LineChart("x", "y", [Series("a", [Point(0, 1.0), Point(1, math.nan), Point(2, 2.0)], 0)])
    (line,) = lines(chart.draw(340), "line c0")
    assert len(corners(line.path)) == 2


def test_intervals_at_one_x_stand_side_by_side() -> None:
    points = [Point(1, 50.0, 40.0, 60.0)]
    drawing = LineChart("x", "y", [Series("a", points, 0), Series("b", points, 1)]).draw(340)
    (first,), (second,) = lines(drawing, "bar c0"), lines(drawing, "bar c1")
    assert corners(first.path)[0][0] + 3 == pytest.approx(corners(second.path)[0][0])


def test_32_series_differ_in_colour_or_dashes_and_neighbours_in_marker_and_dashes_too() -> None:
    series = [Series(str(i), (), i) for i in range(32)]
    assert len({(s.classes, s.dashes) for s in series}) == 32
    for one, other in itertools.pairwise(series):
        assert one.dashes != other.dashes
        assert one.marker(0, 0).path != other.marker(0, 0).path


def test_a_box_spans_its_quantiles() -> None:
    drawing = BoxChart("x", "y", ["25 %"], [[0.0, 1.0, 2.0, 3.0, 4.0]], level=2.0).draw(340)
    (box,), (level,) = lines(drawing, "box c0"), lines(drawing, "level")
    lower, upper = re.findall(r"(?:M[\d.]+ |V)([\d.]+)", box.path)
    assert float(lower) > float(upper)
    assert corners(level.path)[0][1] == pytest.approx((float(lower) + float(upper)) / 2, abs=0.2)


def test_a_dot_chart_reaches_below_its_floor_where_an_interval_does() -> None:
    chart = DotChart([("easy", Point(20.0, 0.0, -60.0, 90.0))], ("random", 0.0), ("oracle", 100.0))
    drawing = chart.draw(340)
    (bar,) = lines(drawing, "bar c0")
    floor, ceiling = (corners(shape.path)[0][0] for shape in lines(drawing, "bound"))
    assert corners(bar.path)[0][0] < floor < ceiling


@pytest.mark.parametrize("width", [340, 700])
def test_everything_lies_within_the_drawing(width: int) -> None:
    series = [Series(str(i), [Point(x, 1e4 * x * i, 0.0, 2e5) for x in (1, 2, 3, 4, 8, 16)], i) for i in range(4)]
    drawing = LineChart("x", "y", series, [("level", 3.0)], x_ticks=[1, 2, 3, 4, 8, 16]).draw(width)
    for shape in drawing.shapes:
        for x, y in corners(shape.path) or [(shape.x, shape.y)]:
            assert 0 <= x <= drawing.width
            assert 0 <= y <= drawing.height


def test_names_of_ticks_do_not_overlap() -> None:
    ticks = list(range(100, 200, 2))
    series = [Series("a", [Point(x, 1.0) for x in ticks], 0)]
    drawing = LineChart("x", "y", series, x_ticks=ticks).draw(340)
    bottom = max(s.y for s in lines(drawing, "tick"))
    places = [shape.x for shape in lines(drawing, "tick") if shape.y == bottom]
    assert len(places) > 5
    assert min(b - a for a, b in itertools.pairwise(places)) > 20


def test_ticks_are_round_and_enclose_the_numbers() -> None:
    assert nice_ticks(0.13, 0.87, 6) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert nice_ticks(-30, 100, 6) == [-50, 0, 50, 100]
    assert nice_ticks(1, 1, 6)[0] < 1 < nice_ticks(1, 1, 6)[-1]
    assert nice_ticks(1, 3, 8, whole=True) == [1, 2, 3]


def test_a_tick_has_the_digits_that_its_neighbours_need() -> None:
    assert [tick_name(x, [0, 0.5, 1]) for x in (0, 0.5, 1)] == ["0.0", "0.5", "1.0"]
    assert tick_name(-50, [-50, 0]) == "\u221250"
