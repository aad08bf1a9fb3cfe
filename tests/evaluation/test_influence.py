"""From looks to rows: two rows of a file, two windows, every number written out."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conftest import Prepared
from daj_lightning.bilevel import BankEngine
from daj_lightning.data import PairDataset
from daj_lightning.data.preference_data import PreferenceData
from daj_lightning.data.preferences import Preference
from daj_lightning.evaluation.influence import AuditedRow, audited_rows, by_domain, is_harmful, ranked
from daj_lightning.judge import Judge, load_tokenizer
from daj_lightning.objectives import DPO
from daj_lightning.training import Auditor, Level
from daj_lightning.training.auditor import Look

ROWS = [
    Preference(1, "a", "x", "q", "yes", "no"),
    Preference(2, "b", "x", "q", "", "no", problem="the chosen answer is empty"),
    Preference(3, "c", "y", "q", "no", "perhaps"),
]
META = [Preference(number, "", "z", "q", "yes", "no") for number in (5, 7)]
"""Rows 5 and 7 of the meta file."""


@pytest.fixture
def rows(prepared: Prepared, tmp_path: Path) -> list[AuditedRow]:
    """Window 4 holds samples 0 and 1, and meets two meta batches; window 5 holds sample 1 twice, and meets one."""
    auditor = Auditor(Judge(str(prepared.base)), Level(1e-3), DPO(), BankEngine(unroll_windows=2), None, 0)
    auditor.looks = [
        Look(4, torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([[1.0, -2.0], [3.0, -4.0]])),
        Look(4, torch.tensor([0, 1]), torch.tensor([1, 1]), torch.tensor([[6.0, -8.0], [6.0, -8.0]])),
        Look(5, torch.tensor([1, 1]), torch.tensor([0, 1]), torch.tensor([[-1.0, -1.0], [-3.0, -3.0]])),
    ]
    auditor.cosines = [
        (torch.tensor([0, 1]), torch.tensor([0.5, -0.5])),
        (torch.tensor([1, 1]), torch.tensor([-0.2, -0.2])),
    ]
    auditor.train_margins = torch.tensor([0.0, -1.0])
    usable = [row for row in ROWS if not row.problem]
    data = PreferenceData(usable, META, load_tokenizer(str(prepared.base)), 64, tmp_path)
    data.load_samples("pair")
    assert isinstance(data.train_set, PairDataset)
    data.train_set.reference_logp = torch.tensor([[-1.0, -3.0], [-2.0, -1.5]])
    return audited_rows(ROWS, META, auditor, data.train_set)


def test_influence_is_a_mean_over_looks_and_each_look_one_over_its_meta_batches(rows: list[AuditedRow]) -> None:
    first, lost, second = (row.measured for row in rows)
    assert lost is None
    assert first is not None
    assert second is not None
    assert first.influence == 4.0  # window 4: batches say 2 and 6
    assert second.influence == pytest.approx((-5.5 - 2.0) / 2)  # window 4: -3 and -8; window 5: -2 twice
    assert (first.num_looks, first.num_harmful, first.standard_error, first.z) == (1, 0, None, None)
    assert (second.num_looks, second.num_harmful) == (2, 2)
    assert second.standard_error == pytest.approx(3.5 / 2)  # stdev of -5.5 and -2 is 3.5 / sqrt 2
    assert second.z == pytest.approx(-3.75 / 1.75)
    assert second.cosine == pytest.approx(-0.3)
    assert (first.rank, second.rank) == (1, 2)


def test_a_row_names_the_row_of_the_meta_file_that_it_opposes_most(rows: list[AuditedRow]) -> None:
    """Sample 1 on meta sample 0: -2, -1, -1; on meta sample 1, row 7 of its file: -4, -8, -8, -3, -3."""
    second = rows[2].measured
    assert second is not None
    assert (second.opposed, second.opposed_influence) == (7, pytest.approx(-26 / 5))


def test_losses_and_margins(rows: list[AuditedRow]) -> None:
    first, _, second = (row.measured for row in rows)
    assert first is not None
    assert second is not None
    assert first.loss_after == pytest.approx(math.log(2))
    assert second.loss_after == pytest.approx(math.log1p(math.e))
    assert (first.base_margin, second.base_margin) == (2.0, -0.5)


def test_a_row_is_harmful_if_every_look_says_so_and_clearly(rows: list[AuditedRow]) -> None:
    _, _, second = (row.measured for row in rows)
    assert second is not None
    assert is_harmful(second)
    assert not is_harmful(replace(second, num_harmful=1))
    assert not is_harmful(replace(second, standard_error=2.0))
    assert not is_harmful(replace(second, standard_error=None))
    (reason,) = (r for r in rows[2].reasons if r.kind == "the meta set wants the opposite preference")
    assert "influence -3.75e+00, z = -2.1, below 0 in all 2 looks" in reason.text
    assert "it opposes meta row 7 most (-5.20e+00)" in reason.text


def test_rows_by_rank_and_domains_from_the_worst_on(rows: list[AuditedRow]) -> None:
    assert [row.preference.id for row in ranked(rows)] == ["a", "c"]
    assert list(by_domain(rows)) == ["y", "x"]
