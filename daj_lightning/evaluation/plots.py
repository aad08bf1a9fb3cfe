"""The weights over training: the paper's Figures 5 and 6."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from matplotlib.figure import Figure


def draw_weights(influence: str | Path, path: str | Path) -> None:
    """Draw `influence.parquet` as PNG.

    Left, Figure 5: mean weight of each domain over windows. Right, Figure 6: the distribution of the
    samples' weights at four stages of training, 25 % to 100 %.
    """
    table = pq.read_table(influence).to_pydict()
    window, weight = np.array(table["window"]), np.array(table["weight"])
    domain = np.array(table["domain"])
    figure = Figure(figsize=(11, 4), layout="constrained")
    over_time, spread = figure.subplots(1, 2)
    edges = bin_edges(int(window.min()), int(window.max()))
    for name in sorted(set(domain)):
        own = domain == name
        over_time.plot(*zip(*binned_means(window[own], weight[own], edges), strict=True), label=name)
    over_time.axhline(1.0, color="grey", linewidth=0.5)
    over_time.set(xlabel="window", ylabel="mean weight (1 = plain training)", title="weights by domain")
    over_time.legend(fontsize="small")
    quarters = np.linspace(window.min() - 1, window.max(), 5)
    stages = [weight[(window > a) & (window <= b)] for a, b in itertools.pairwise(quarters)]
    spread.boxplot(
        [stage if len(stage) else [np.nan] for stage in stages], tick_labels=["25 %", "50 %", "75 %", "100 %"]
    )
    spread.set(xlabel="training", ylabel="sample weight", title="weights of samples")
    figure.savefig(path, dpi=150)


def bin_edges(first: int, last: int) -> np.ndarray:
    """40 bins over a run's windows; fewer windows have one each."""
    return np.linspace(first, last + 1, min(41, last - first + 2))


def binned_means(window: np.ndarray, weight: np.ndarray, edges: np.ndarray) -> list[tuple[float, float]]:
    """(mean window, mean weight) of each bin that holds any."""
    bins = np.digitize(window, edges)
    return [(float(window[bins == b].mean()), float(weight[bins == b].mean())) for b in np.unique(bins)]
