"""influence.parquet as records: histories, and the samples that helped and harmed, with the text that training saw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import Prepared
from daj_lightning.data.dataset import corrupt
from daj_lightning.data.rows import read_pairs
from daj_lightning.evaluation.influence_records import (
    Text,
    read_influence,
    singled_out,
    texts_of_pairs,
    texts_of_run,
    weight_history,
)
from daj_lightning.records import DajError
from tiny import toy_data

TEXTS = [Text("easy" if i % 2 else "hard", f"prompt {i}", f"chosen {i}", f"rejected {i}") for i in range(4)]


def record(path: Path, rows: Sequence[tuple[int, int, str, float, float | None]]) -> pa.Table:
    """Rows (window, sample, domain, weight, hypergradient) as InfluenceRecorder writes them, in two parts."""
    path.mkdir()
    names = ("window", "sample", "domain", "weight", "hypergradient")
    for part, own in ((1, rows[:1]), (2, rows[1:])):
        table = [dict(zip(names, row, strict=True)) for row in own]
        pq.write_table(pa.Table.from_pylist(table), path / f"part-{part:06d}.parquet")
    return read_influence(path)


@pytest.mark.parametrize(
    ("spoiled", "told"),
    [
        ({"sample": -1}, "samples below 0"),
        ({"sample": None}, r"rows without \['sample'\]"),
        ({"domain": None}, r"rows without \['domain'\]"),
        ({"window": "last"}, "has other types"),
    ],
)
def test_a_table_that_no_run_writes_is_refused(tmp_path: Path, spoiled: dict[str, Any], told: str) -> None:
    row = {"window": 1, "sample": 1, "domain": "easy", "weight": 1.0, "hypergradient": -0.1}
    pq.write_table(pa.Table.from_pylist([{**row, **spoiled}]), tmp_path / "influence.parquet")
    with pytest.raises(DajError, match=told):
        read_influence(tmp_path / "influence.parquet")


def test_a_look_that_diverged_credits_nobody(tmp_path: Path) -> None:
    nan = float("nan")
    table = record(tmp_path / "influence.parquet", [(1, 0, "hard", 1.0, nan), (2, 0, "hard", 1.0, -0.2)])
    (helpful,), harmful = singled_out(table, TEXTS)
    assert (helpful.influence, harmful) == (0.2, [])


def test_influence_is_the_mean_over_looks_and_the_weight_that_of_the_last(tmp_path: Path) -> None:
    """Sample 0: d = -0.4 and -0.2, so 0.3 for the meta set; 1: +0.5; 2: never credited; 3: -0.1."""
    table = record(
        tmp_path / "influence.parquet",
        [
            (3, 0, "hard", 0.9, -0.2),
            (1, 0, "hard", 1.0, -0.4),
            (1, 1, "easy", 1.0, 0.5),
            (2, 2, "hard", 1.0, None),
            (4, 3, "easy", 0.8, -0.1),
            (5, 3, "easy", 0.7, None),
        ],
    )
    helpful, harmful = singled_out(table, TEXTS)
    assert [(s.sample, pytest.approx(s.influence), s.weight, s.num_looks) for s in helpful] == [
        (0, 0.3, 0.9, 2),
        (3, 0.1, 0.7, 2),
    ]
    assert [(s.sample, s.influence, s.prompt, s.chosen) for s in harmful] == [(1, -0.5, "prompt 1", "chosen 1")]
    assert [s.sample for s in singled_out(table, TEXTS, number=1)[0]] == [0]


def test_the_history_has_a_mean_for_each_domain_and_quantiles_of_the_quarters(tmp_path: Path) -> None:
    """Eight windows, weight = window; "easy" is missing in windows 3 and 4."""
    rows = [(w, 0, "hard" if w in (3, 4) else "easy", float(w), None) for w in range(1, 9)]
    history = weight_history(record(tmp_path / "influence.parquet", rows))
    assert history.windows == list(range(1, 9))
    assert [x for x in history.by_domain["easy"] if not math.isnan(x)] == [1, 2, 5, 6, 7, 8]
    assert [i for i, x in enumerate(history.by_domain["easy"]) if math.isnan(x)] == [2, 3]
    assert [quarter[2] for quarter in history.quantiles] == [1.5, 3.5, 5.5, 7.5]


def test_a_long_run_is_told_in_forty_steps(tmp_path: Path) -> None:
    rows = [(w, 0, "easy", float(w), None) for w in range(1, 401)]
    history = weight_history(record(tmp_path / "influence.parquet", rows))
    assert history.windows == list(range(10, 401, 10))
    assert history.by_domain["easy"][0] == pytest.approx(5.5)
    assert singled_out(read_influence(tmp_path / "influence.parquet"), TEXTS[1:2]) == ([], [])


@pytest.mark.parametrize(("sample", "domain"), [(0, "easy"), (9, "hard")])
def test_samples_of_other_data_are_refused(tmp_path: Path, sample: int, domain: str) -> None:
    table = record(tmp_path / "influence.parquet", [(1, sample, domain, 1.0, 0.1)])
    with pytest.raises(DajError, match="Name the run's own --data"):
        singled_out(table, TEXTS)


def test_what_is_no_influence_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in ("nowhere", "empty"):
        with pytest.raises(DajError, match="nothing in"):
            read_influence(tmp_path / path)
    (tmp_path / "text.parquet").write_text("no parquet at all")
    with pytest.raises(DajError, match="is no parquet"):
        read_influence(tmp_path / "text.parquet")
    pq.write_table(pa.table({"window": [1]}), tmp_path / "other.parquet")
    with pytest.raises(DajError, match=r"lacks the columns \['domain', 'hypergradient', 'sample', 'weight'\]"):
        read_influence(tmp_path / "other.parquet")


def test_a_configuration_gives_the_samples_as_the_run_saw_them(prepared: Prepared) -> None:
    """Of the hard domain half of the preferences are swapped when the run loads them."""
    rates: dict[str, Any] = {"atcoder-hard": 0.5}
    data = toy_data(prepared.root, prepared.base, corrupt=rates, seed=3)
    pairs = read_pairs(prepared.root / "train.jsonl")
    swapped = corrupt(pairs, rates, 3)
    assert texts_of_pairs(prepared.root) == [Text(p.domain, p.prompt, p.chosen, p.rejected) for p in pairs]
    assert texts_of_run(data, "pair") == [Text(p.domain, p.prompt, p.chosen, p.rejected) for p in swapped]
    assert texts_of_run(data, "pair") != texts_of_pairs(prepared.root)
    single = texts_of_run(data, "response")
    assert (single[0].chosen, single[1].rejected) == (swapped[0].chosen, swapped[0].rejected)
    assert len(single) == 2 * len(pairs)


def test_samples_of_prompts_are_numbered_as_the_run_numbers_them(prepared: Prepared) -> None:
    data = toy_data(prepared.root, prepared.base)
    texts = texts_of_run(data, "prompt", 16)
    assert len(texts) == len(data.train_set)
    group = data.train_set.comparisons[1][0]  # type: ignore[union-attr]
    assert (texts[1].prompt, texts[1].chosen) == (
        group.prompt,
        f"<selection>{group.passed.index(True) + 1}</selection>",
    )
