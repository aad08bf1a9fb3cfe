"""influence.parquet as records: the weights over training, and the samples that help and harm the meta set."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from daj_lightning.data import JudgeData, corrupt
from daj_lightning.data.prompts import PromptDataset
from daj_lightning.data.rows import read_pairs
from daj_lightning.evaluation.results import TrainingSample, WeightHistory
from daj_lightning.judge import selection_tag
from daj_lightning.records import Comparison, DajError, Pair, Unit

NUM_BINS = 40
NUM_SAMPLES = 10
_COLUMNS = {
    "window": pa.int64(),
    "sample": pa.int64(),
    "domain": pa.string(),
    "weight": pa.float64(),
    "hypergradient": pa.float64(),
}
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, slots=True)
class Text:
    """What a training sample says."""

    domain: str
    prompt: str
    chosen: str
    rejected: str


def read_influence(path: str | Path) -> pa.Table:
    """The columns that InfluenceRecorder wrote.

    Raises:
        DajError: nothing is there, or it is no such table.
    """
    if not Path(path).exists() or (Path(path).is_dir() and not any(Path(path).glob("*.parquet"))):
        raise DajError(f"influence: nothing in {str(path)!r}. Give the influence.parquet of a run.")
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise DajError(f"influence: {str(path)!r} is no parquet ({str(error).splitlines()[0]}).") from error
    missing = _COLUMNS.keys() - set(table.column_names)
    if missing or not table.num_rows:
        raise DajError(f"influence: {str(path)!r} has {table.num_rows} rows and lacks the columns {sorted(missing)}.")
    try:
        table = table.select(list(_COLUMNS)).cast(pa.schema(list(_COLUMNS.items())))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DajError(f"influence: {str(path)!r} has other types ({str(error).splitlines()[0]}).") from error
    holes = [name for name in ("window", "sample", "domain", "weight") if table[name].null_count]
    if holes or pc.min(table["sample"]).as_py() < 0:
        raise DajError(f"influence: {str(path)!r} has rows without {holes}, or samples below 0: no run writes these.")
    return table


def weight_history(table: pa.Table) -> WeightHistory:
    """Mean weight of each domain in at most 40 equal stretches of windows; quantiles of the quarters of training."""
    window, weight = (np.array(table[name].to_pylist(), dtype=float) for name in ("window", "weight"))
    domain = np.array(table["domain"].to_pylist())
    first, last = int(window.min()), int(window.max())
    edges = np.linspace(first, last + 1, min(NUM_BINS, last - first + 1) + 1)
    bins = np.digitize(window, edges) - 1
    used = [b for b in range(len(edges) - 1) if (bins == b).any()]
    quarters = np.linspace(first - 1, last, 5)
    stages = [weight[(window > a) & (window <= b)] for a, b in itertools.pairwise(quarters)]
    return WeightHistory(
        windows=[int(window[bins == b].max()) for b in used],
        by_domain={
            name: [_mean(weight[(bins == b) & (domain == name)]) for b in used] for name in sorted(set(domain.tolist()))
        },
        quantiles=[np.quantile(stage, QUANTILES).tolist() if len(stage) else [float("nan")] * 5 for stage in stages],
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def singled_out(
    table: pa.Table, texts: Sequence[Text], number: int = NUM_SAMPLES
) -> tuple[list[TrainingSample], list[TrainingSample]]:
    """The samples that help the meta set most, and those that harm it most; empty where no sample was credited.

    Raises:
        DajError: the table is not of these samples.
    """
    samples = _by_sample(table, texts)
    ranked = sorted(samples, key=lambda sample: (-sample.influence, sample.sample))
    helpful = [sample for sample in ranked if sample.influence > 0][:number]
    harmful = [sample for sample in reversed(ranked) if sample.influence < 0][:number]
    return helpful, harmful


def _by_sample(table: pa.Table, texts: Sequence[Text]) -> list[TrainingSample]:
    looks: dict[int, list[tuple[int, float, float | None]]] = {}
    columns = (table[name].to_pylist() for name in ("window", "sample", "domain", "weight", "hypergradient"))
    for window, sample, domain, weight, hypergradient in zip(*columns, strict=True):
        if sample >= len(texts) or texts[sample].domain != domain:
            there = f"of {texts[sample].domain!r}" if sample < len(texts) else f"missing: there are {len(texts)}"
            raise DajError(
                f"influence: sample {sample} is of {domain!r}, and in the data it is {there}. Name the run's own "
                f"--data, and its --config (for an objective of prompts or single responses)."
            )
        looks.setdefault(sample, []).append((window, weight, hypergradient))
    found = []
    for sample, own in looks.items():
        credits = [-d for _, _, d in own if d is not None and math.isfinite(d)]
        if credits:
            text, weight = texts[sample], max(own, key=lambda look: look[0])[1]
            mean = float(np.mean(credits))
            found.append(
                TrainingSample(sample, text.domain, mean, weight, len(own), text.prompt, text.chosen, text.rejected)
            )
    return found


def texts_of_pairs(root: str | Path) -> list[Text]:
    """Of an objective of pairs whose labels nobody corrupts: the prepared rows as they are."""
    return [_text(pair) for pair in read_pairs(Path(root) / "train.jsonl")]


def texts_of_run(data: JudgeData, unit: Unit, max_new_tokens: int = 0) -> list[Text]:
    """The training samples as a run of this configuration numbers them, and with its corruption.

    Args:
        unit: what the objective calls a sample.
        max_new_tokens: as in `JudgeData.load_samples`; prompts that are too long are no samples.
    """
    path = data.root / ("responses-train.jsonl" if unit == "prompt" else "train.jsonl")
    if unit != "prompt":
        pairs = corrupt(read_pairs(path), data.corrupt, data.seed)
        if unit != "response":
            return [_text(pair) for pair in pairs]
        return [
            text
            for pair in pairs
            for text in (
                Text(pair.domain, pair.prompt, pair.chosen, ""),
                Text(pair.domain, pair.prompt, "", pair.rejected),
            )
        ]
    data.setup("fit")
    data.load_samples(unit, max_new_tokens)
    assert isinstance(data.train_set, PromptDataset)
    return [_question(group[0]) for group in data.train_set.comparisons]


def _text(pair: Pair) -> Text:
    return Text(pair.domain, pair.prompt, pair.chosen, pair.rejected)


def _question(comparison: Comparison) -> Text:
    """A question that the judge answers itself: in place of responses, the selections that earn 1 and less."""
    right = comparison.passed.index(True)
    return Text(comparison.domain, comparison.prompt, selection_tag(right), selection_tag(1 - right))
