"""The check of influence against retraining: what it rests on."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from check_influence import (
    INNER,
    MAX_NORM,
    OBJECTIVE,
    fit,
    loss_without,
    make_rows,
    manner_row,
    meta_loss,
    new_judge,
    spearman,
    turned_round,
    write_base,
)
from daj_lightning.bilevel import Uniform
from daj_lightning.data.preference_data import PreferenceData
from daj_lightning.judge import load_tokenizer
from daj_lightning.training import DataReweightedJudge


def make_data(directory: Path, *, turn_the_first_group: bool) -> PreferenceData:
    """Four groups of four rows in eight windows of four."""
    rng = random.Random(0)
    rows = [replace(row, domain=f"group {row.row % 4}") for row in make_rows(16, rng, [manner_row])]
    if turn_the_first_group:
        rows = [turned_round(row) if row.domain == "group 0" else row for row in rows]
    meta = [replace(row, domain="group 0") for row in make_rows(8, rng, [manner_row])]
    tokenizer = load_tokenizer(str(directory))
    return PreferenceData(rows, meta, tokenizer, 64, directory, num_inner=4, looks=2, warmup_windows=0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("base")
    write_base(directory, seed=0)
    return directory


def test_a_group_of_weight_0_might_as_well_not_be_there(base: Path) -> None:
    """Turn its preferences round: the run without it ends at the same bits, and the run with it elsewhere."""
    plain, turned = (make_data(base, turn_the_first_group=turn) for turn in (False, True))
    assert loss_without(0, plain, seed=1) == loss_without(0, turned, seed=1)
    assert loss_without(None, plain, seed=1) < loss_without(None, turned, seed=1) - 1e-3


def test_a_window_at_once_is_the_window_sample_by_sample(base: Path) -> None:
    data = make_data(base, turn_the_first_group=False)
    module = DataReweightedJudge(new_judge(base), INNER, INNER, OBJECTIVE, Uniform(), max_norm=MAX_NORM)
    fit(module, data, seed=1)
    assert loss_without(None, data, seed=1) == pytest.approx(meta_loss(module, data), abs=1e-5)


def test_spearman_compares_ranks_and_shares_them_among_equals() -> None:
    assert spearman([1, 2, 3, 4], [1, 10, 100, 1000]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(np.corrcoef([1, 2.5, 2.5, 4], [1, 2, 3, 4])[0, 1])
