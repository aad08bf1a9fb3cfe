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
    edges = np.linspace(window.min(), window.max() + 1, min(41, window.max() - window.min() + 2))
    for name in sorted(set(domain)):
        own = domain == name
        bins = np.digitize(window[own], edges)
        used = np.unique(bins)
        over_time.plot(
            [window[own][bins == b].mean() for b in used], [weight[own][bins == b].mean() for b in used], label=name
        )
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
