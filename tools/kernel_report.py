"""What bench_kernels.py found, written down: a table, the figures asked for with PASS or FAIL, a CSV, and plots.

The CSV has a line for each provider and metric, in the columns of Liger's benchmarks, so that their scripts read it.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from itertools import groupby
from pathlib import Path

import torch

from kernel_cases import Errors, Spec
from kernel_timing import Timing

COLUMNS = (
    "kernel_name", "kernel_provider", "kernel_operation_mode", "metric_name", "metric_unit", "x_name", "x_label",
    "x_value", "y_value_50", "y_value_20", "y_value_80", "extra_benchmark_config_str", "gpu_name", "timestamp",
    "version",
)  # fmt: skip
HEADER = (
    "op", "provider", "size, dtype", "mode", "ms p50 [p20-p80]", "rate", "% of floor", "peak MiB over inputs",
    "launches", "error against float64", "time / first",
)  # fmt: skip
LETTERS = {
    "N": "tokens", "H": "hidden size", "V": "vocabulary", "K": "rows", "P": "parameters", "R": "sequences",
    "T": "tokens a sequence", "B": "samples", "F": "features",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One provider of one benchmark."""

    spec: Spec
    provider: str
    errors: Errors
    flop: float
    bytes: float
    """Both 0 where a prepared provider does less."""
    wrong: str = ""
    """Why it was not timed."""
    timing: Timing | None = None
    floor_ms: float | None = None
    """The least that any provider needs on this machine; None: not known."""
    peak_mib: float | None = None
    launches: int | None = None


def table_head() -> str:
    return f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}"


def table_line(row: Row, first: Row) -> str:
    """`first`: what its time is divided by."""
    spec, t = row.spec, row.timing
    size = " ".join(f"{letter} {number:,}" for letter, number in spec.sizes) + f", {spec.dtype}"
    cells = [spec.op, row.provider, size, spec.mode]
    errors = ", ".join(f"{name} {error:.1e}" for name, error in row.errors.items())
    if t is None:
        return f"| {' | '.join([*cells, f'not timed: {row.wrong}', '', '', '', '', errors, ''])} |"
    compute = row.flop > 100 * row.bytes  # more than any machine does while it moves a byte
    rate = f"{row.flop / t.p50 / 1e9:.3g} TFLOP/s" if compute else f"{row.bytes / t.p50 / 1e6:.3g} GB/s"
    cells += [
        f"{_ms(t.p50)} [{_ms(t.p20)}-{_ms(t.p80)}]",
        rate if row.bytes else "",
        "" if row.floor_ms is None else f"{row.floor_ms / t.p50:.0%}",
        "" if row.peak_mib is None else f"{row.peak_mib:.1f}",
        str(row.launches or ""),
        errors,
        "" if first.timing is None else f"{t.p50 / first.timing.p50:.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def _ms(ms: float) -> str:
    return f"{ms:.0f}" if ms >= 1000 else f"{ms:.3g}"


def write_csv(path: Path, rows: Sequence[Row], device_name: str) -> None:
    """Providers that were not timed have no line."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in rows:
            (x_name, x_value), *_ = row.spec.sizes
            extra = json.dumps({**dict(row.spec.sizes), "dtype": row.spec.dtype, "errors": row.errors})
            metrics = []
            if row.timing is not None:
                metrics.append(("speed", "ms", (row.timing.p50, row.timing.p20, row.timing.p80)))
            if row.peak_mib is not None:
                metrics.append(("memory", "MB", (row.peak_mib,) * 3))
            for name, unit, values in metrics:
                case = (row.spec.op, row.provider, row.spec.mode, name, unit, x_name, LETTERS[x_name], x_value)
                writer.writerow([*case, *values, extra, device_name, now, torch.__version__])


def write_plots(folder: Path, rows: Sequence[Row], device_name: str) -> None:
    """One PNG an op: time and memory of each mode; lines over the first size where there are several, else bars."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    timed = [row for row in rows if row.timing is not None]
    for op, own in groupby(sorted(timed, key=lambda row: row.spec.op), key=lambda row: row.spec.op):
        panels: dict[str, list[Row]] = {}
        for row in own:
            fixed = " ".join(f"{letter} {size:,}" for letter, size in row.spec.sizes[1:])
            panels.setdefault(f"{row.spec.mode}, {fixed}, {row.spec.dtype}", []).append(row)
        figure, axes = plt.subplots(
            len(panels), 2, figsize=(14, 3.6 * len(panels)), squeeze=False, layout="constrained"
        )
        for (title, panel), (left, right) in zip(panels.items(), axes, strict=True):
            _plot(left, panel, "ms", {id(row): row.timing.p50 for row in panel if row.timing})
            _plot(right, panel, "MiB over inputs", {id(r): r.peak_mib for r in panel if r.peak_mib is not None})
            left.set_title(title, fontsize=10)
        figure.suptitle(f"{op}, {device_name}")
        figure.savefig(folder / f"{op}.png", dpi=110)
        plt.close(figure)


def _plot(axis: object, rows: list[Row], unit: str, values: dict[int, float]) -> None:
    rows = [row for row in rows if id(row) in values]
    if not rows:
        axis.set_visible(False)  # memory of small sizes is not measured
        return
    letter = rows[0].spec.sizes[0][0]
    sizes = sorted({row.spec[letter] for row in rows})
    names = list(dict.fromkeys(row.provider for row in rows))
    if len(sizes) > 1:
        for name in names:
            line = sorted((row.spec[letter], values[id(row)]) for row in rows if row.provider == name)
            axis.plot(*zip(*line, strict=True), marker="o", label=name, linewidth=2.5 if "ours" in name else 1.2)
        axis.set_xlabel(f"{letter} ({LETTERS[letter]})")
        axis.set_ylabel(unit)
        axis.set_xticks(sizes)
        axis.legend(fontsize=7)
        axis.set_yscale("log")
        return
    heights = [values[id(row)] for row in rows]
    bars = axis.barh(
        [row.provider for row in rows], heights, color=["tab:orange" if "ours" in n else "tab:blue" for n in names]
    )
    axis.bar_label(bars, [f"{height:.4g}" for height in heights], padding=3, fontsize=8)
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.set_xlabel(f"{unit}; {letter} {sizes[0]:,}")


class Figures:
    """The rows of a run, asked for what issue 6 wants to see; a line each, OWED where a row is missing."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.lines: list[str] = []

    def row(self, op: str, mode: str, dtype: str, name: str, **sizes: int) -> Row | None:
        """The fastest timed provider whose name matches, with * for anything."""
        found = [
            row
            for row in self.rows
            if (row.spec.op, row.spec.mode, row.spec.dtype) == (op, mode, dtype)
            and fnmatch(row.provider, name)
            and not row.provider.endswith("u kept")
            and row.timing is not None
            and set(sizes.items()) <= set(row.spec.sizes)
        ]
        return min(found, key=lambda row: row.timing.p50 if row.timing else math.inf, default=None)

    def claim(self, text: str, figure: float | None, bound: float, unit: str = "x", at_least: bool = False) -> None:
        wanted = f"{'>=' if at_least else '<='} {bound:g}{unit}"
        if figure is None:
            self.lines.append(f"OWED {text}: wanted {wanted}, not measured here")
            return
        holds = figure >= bound if at_least else figure <= bound
        self.lines.append(f"{'PASS' if holds else 'FAIL'} {text}: {figure:.3g}{unit}, wanted {wanted}")


def time_ratio(ours: Row | None, other: Row | None) -> float | None:
    if ours is None or other is None or ours.timing is None or other.timing is None:
        return None
    return ours.timing.p50 / other.timing.p50


def memory_ratio(ours: Row | None, other: Row | None) -> float | None:
    if ours is None or other is None or ours.peak_mib is None or not other.peak_mib:
        return None
    return ours.peak_mib / other.peak_mib


def cpu_verdict(rows: Sequence[Row]) -> list[str]:
    """The CPU figures of issue 6."""
    figures, op = Figures(rows), "fused_linear_logprob"
    for dtype, bound in (("float32", 0.85), ("bfloat16", 0.35)):
        full = [row.spec for row in rows if (row.spec.op, row.spec.mode, row.spec.dtype) == (op, "full", dtype)]
        for V in sorted({spec["V"] for spec in full}):
            ours, eager = (figures.row(op, "full", dtype, name, V=V) for name in ("ours*", "eager"))
            figures.claim(f"forward and backward, {dtype}, V {V:,}, over eager", time_ratio(ours, eager), bound)
        if not full:
            figures.claim(f"forward and backward, {dtype}, over eager", None, bound)
        mode = "full" if dtype == "float32" else "fwd"  # eager takes no less in its backward
        memory = memory_ratio(*(figures.row(op, mode, dtype, name) for name in ("ours*", "eager")))
        figures.claim(f"peak memory, {dtype}, {mode}, over eager", memory, 0.02)
        times_less = None if memory is None else 1 / max(memory, 1e-9)
        figures.claim(f"eager's memory over ours, {dtype}", times_less, 20, at_least=True)
    for mode, bound in (("jvp", 0.55), ("8 vjps", 0.2)):
        ours, eager = (figures.row(op, mode, "float32", name) for name in ("ours*", "eager"))
        figures.claim(f"{mode}, float32, over eager", time_ratio(ours, eager), bound)
    for name, bound in (("loop over tensors", 0.2), ("flat mv, bfloat16", 0.4)):
        ours, other = (figures.row("grad_bank", "dot", "bfloat16", n) for n in ("ours*", name))
        figures.claim(f"grad_bank_dot, bfloat16, over {name}", time_ratio(ours, other), bound)
    return figures.lines


def gpu_verdict(rows: Sequence[Row], copy_gb_s: float) -> list[str]:
    """The GPU figures of issue 6, which are meant for an H200."""
    figures, op = Figures(rows), "fused_linear_logprob"

    def full(name: str) -> Row | None:
        return figures.row(op, "full", "bfloat16", name, N=8192, H=2048, V=151936)

    ours = full("ours, ext")
    text = "forward and backward, N 8192, H 2048"
    figures.claim(text, ours.timing.p50 if ours and ours.timing else None, 20, " ms")
    figures.claim(f"{text}, over eager", time_ratio(ours, full("eager")), 0.85)
    figures.claim(f"{text}, over torch's chunked op, best chunk", time_ratio(ours, full("torch LCE*")), 0.8)
    figures.claim(f"{text}, peak memory", ours.peak_mib / 1024 if ours and ours.peak_mib else None, 0.6, " GiB")
    for mode in ("dot", "combine", "adam dot"):
        row = figures.row("grad_bank", mode, "bfloat16", "ours, ext")
        share = row.bytes / row.timing.p50 / 1e6 / copy_gb_s if row and row.timing else None
        figures.claim(f"bank {mode}, of a copy's {copy_gb_s:.0f} GB/s", share, 0.8, at_least=True)
    return figures.lines
