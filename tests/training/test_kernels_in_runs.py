"""A run computes the same with the extension as with plain torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from compare_kernels import TOLERANCE, Record, Twin, kernels, worst
from conftest import Prepared
from daj_lightning.bilevel import DomainWeights, InstanceNet, InstanceTable
from tiny import toy_data, toy_module, toy_trainer

pytestmark = pytest.mark.usefixtures("ext")


def train(prepared: Prepared, directory: Path, callback: Record, **module: Any) -> None:
    trained = toy_module(prepared.base, **module)
    toy_trainer(directory, [callback]).fit(trained, toy_data(prepared.root, prepared.base, max_windows=10))


def assert_agree(largest: dict[str, float]) -> None:
    """A derivative by a weight is what remains of terms that nearly cancel; with four samples, of few."""
    derivative = largest.pop("hypergradient")
    assert max(largest.values()) <= TOLERANCE, largest
    assert derivative <= 5 * TOLERANCE


@pytest.mark.parametrize("reweighter", [DomainWeights, InstanceTable, InstanceNet])
def test_every_step_from_the_identical_state_agrees(prepared: Prepared, tmp_path: Path, reweighter: Any) -> None:
    torch.manual_seed(1)
    twin = Twin()
    train(prepared, tmp_path, twin, reweighter=reweighter())
    assert len(twin.steps) == 10
    assert_agree(worst(twin.others, twin.steps))


def test_ten_windows_of_two_runs_agree(prepared: Prepared, tmp_path: Path) -> None:
    runs = []
    for mode in ("torch", "auto"):
        record = Record()
        with kernels(mode):
            train(prepared, tmp_path / mode, record)
        runs.append(record.steps)
    assert_agree(worst(*runs))


def test_a_difference_would_be_seen(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two are compared: a window gradient that is wrong in plain torch alone shows."""
    from daj_lightning.kernels import reference

    combine = reference.grad_bank_combine
    monkeypatch.setattr(reference, "grad_bank_combine", lambda *args: -combine(*args))
    twin = Twin()
    train(prepared, tmp_path, twin, max_norm=None)
    assert worst(twin.others, twin.steps)["adapters"] > TOLERANCE


def test_what_is_no_number_differs_from_everything() -> None:
    sound, broken = torch.tensor([1.0, 2.0]), torch.tensor([float("nan"), 2.0])
    for one, other in ((sound, broken), (broken, sound), (broken, broken)):
        assert worst([{"losses": one}, {"losses": sound}], [{"losses": other}, {"losses": sound}])["losses"] > 1
