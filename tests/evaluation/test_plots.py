"""The figure of the weights shows the numbers of the recorded windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure

from daj_lightning.evaluation import draw_weights


def record(directory: Path, rows: list[tuple[int, str, float]], part: int) -> None:
    directory.mkdir(exist_ok=True)
    columns = [{"window": w, "sample": i, "domain": d, "weight": x} for i, (w, d, x) in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(columns), directory / f"part-{part:06d}.parquet")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved, still open for questions."""
    figures: list[Figure] = []
    save = Figure.savefig

    def saved(figure: Figure, *args: Any, **kwargs: Any) -> None:
        figures.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", saved)
    return figures


def test_each_domain_is_a_line_of_its_mean_weight_over_windows(tmp_path: Path, drawn: list[Figure]) -> None:
    """Four windows in two part files; easy has two samples in the second."""
    record(tmp_path / "influence", [(1, "easy", 1.0), (1, "hard", 1.0), (2, "easy", 0.5), (2, "easy", 0.7)], part=2)
    record(tmp_path / "influence", [(3, "hard", 1.5), (4, "easy", 0.25), (4, "hard", 1.75)], part=4)
    draw_weights(tmp_path / "influence", tmp_path / "weights.png")

    assert (tmp_path / "weights.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    over_time, spread = drawn[0].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in over_time.lines}
    assert lines["easy"] == [[1, 1.0], [2, pytest.approx(0.6)], [4, 0.25]]
    assert lines["hard"] == [[1, 1.0], [3, 1.5], [4, 1.75]]
    assert [text.get_text() for text in spread.get_xticklabels()] == ["25 %", "50 %", "75 %", "100 %"]


def test_the_four_stages_share_the_windows_equally(tmp_path: Path, drawn: list[Figure]) -> None:
    """Eight windows, weight = window: the medians of the quarters are 1.5, 3.5, 5.5 and 7.5."""
    record(tmp_path / "influence", [(w, "easy", float(w)) for w in range(1, 9)], part=8)
    draw_weights(tmp_path / "influence", tmp_path / "weights.png")
    ends = [line.get_ydata().tolist() for line in drawn[0].axes[1].lines]
    medians = [y[0] for y in ends if len(y) == 2 and y[0] == y[1] and y[0] % 1 == 0.5]
    assert medians == [1.5, 3.5, 5.5, 7.5]


def test_a_run_of_a_single_window_can_be_drawn(tmp_path: Path) -> None:
    record(tmp_path / "influence", [(1, "easy", 0.9), (1, "hard", 1.1)], part=1)
    draw_weights(tmp_path / "influence", tmp_path / "weights.png")
    assert (tmp_path / "weights.png").stat().st_size > 1000


def test_a_long_run_is_averaged_over_bins_that_keep_the_mean(tmp_path: Path, drawn: list[Figure]) -> None:
    """400 windows, weight = window: each of the 40 points is the mean of its own windows, on the diagonal."""
    record(tmp_path / "influence", [(w, "easy", float(w)) for w in range(1, 401)], part=400)
    draw_weights(tmp_path / "influence", tmp_path / "weights.png")
    points = drawn[0].axes[0].lines[0].get_xydata()
    assert len(points) == 40
    assert all(x == pytest.approx(y) for x, y in points)
