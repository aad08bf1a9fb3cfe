"""Meta problems that no step sees: measured, the best state kept, a run stopped that overfits the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from conftest import Prepared
from daj_lightning.bilevel import Uniform
from daj_lightning.data import JudgeData, PairDataset
from daj_lightning.evaluation import BeforeAfter
from daj_lightning.records import DajError
from daj_lightning.training import (
    MetaValidation,
    UnwrittenError,
    WindowCheckpoint,
    is_whole,
    mean_loss,
    meta_validation,
)
from daj_lightning.training.checkpoint import checkpoint_path
from tiny import toy_data, toy_module, toy_trainer

HALF = {"meta_validation": 0.5}


def problems(dataset: object) -> set[str]:
    assert isinstance(dataset, PairDataset)
    return {pair.problem_id for pair in dataset.pairs}


def loaded(prepared: Prepared, **overrides: float) -> JudgeData:
    data = toy_data(prepared.root, prepared.base, **overrides)
    data.setup("fit")
    data.load_samples("pair")
    return data


def test_a_problem_is_on_one_side_only_and_none_is_lost(prepared: Prepared) -> None:
    everything, divided = loaded(prepared), loaded(prepared, **HALF)
    kept, held_out = problems(divided.meta_set), problems(divided.held_out)
    assert kept
    assert held_out
    assert kept.isdisjoint(held_out)
    assert kept | held_out == problems(everything.meta_set)
    assert len(divided.meta_set) + len(divided.held_out or ()) == len(everything.meta_set)
    assert everything.held_out is None


def test_a_share_that_leaves_a_side_empty_is_refused(prepared: Prepared) -> None:
    with pytest.raises(DajError, match=r"sets aside 0 of \d+ meta problems.*Use another share"):
        loaded(prepared, meta_validation=0.01)
    with pytest.raises(DajError, match="must be a share"):
        toy_data(prepared.root, prepared.base, meta_validation=1.0)


class Scripted(MetaValidation):
    """Measures as ever, and then takes what the test says for it."""

    def __init__(self, values: list[float], path: Path, patience: int | None) -> None:
        super().__init__(str(path), every_n_windows=1, patience=patience)
        self.values = values

    def judge(self, trainer: Trainer, module: LightningModule, value: float) -> None:
        assert value > 0
        super().judge(trainer, module, self.values[module.num_windows - 1])


def test_what_is_logged_is_the_mean_loss_of_the_held_out_samples(prepared: Prepared, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="csv", version="")
    callback = MetaValidation(str(tmp_path / "best.ckpt"), every_n_windows=3)
    module, data = toy_module(prepared.base), toy_data(prepared.root, prepared.base, **HALF)
    toy_trainer(tmp_path, [callback], logger=logger, enable_checkpointing=True).fit(module, data)
    rows = (tmp_path / "csv" / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("meta/validation")
    logged = [float(row.split(",")[column]) for row in rows[1:] if row.split(",")[column]]
    assert isinstance(data.held_out, PairDataset)
    own = mean_loss(module, data.held_out.batch(range(len(data.held_out))), Uniform())
    assert len(logged) == 2
    assert logged[-1] == pytest.approx(own, rel=1e-6)
    assert logged[0] != logged[1]


def test_a_run_stops_after_its_patience_keeps_the_best_state_and_reports(
    prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = tmp_path / "best.ckpt"
    last = WindowCheckpoint(str(tmp_path / "c"), every_n_windows=1000)
    callbacks = [Scripted([0.5, 0.4, 0.6, 0.7, 0.1, 0.1], best, patience=2), BeforeAfter(str(tmp_path), 2), last]
    module = toy_module(prepared.base)
    toy_trainer(tmp_path, callbacks, enable_checkpointing=True).fit(
        module, toy_data(prepared.root, prepared.base, **HALF)
    )
    assert module.num_windows == 4
    assert is_whole(best)
    assert is_whole(checkpoint_path(tmp_path / "c", 4)), "the end of a run is saved, wherever it is"
    saved = torch.load(best, weights_only=False)
    assert saved["daj"]["num_windows"] == 2
    (state,) = (of for name, of in saved["callbacks"].items() if "Scripted" in name)
    assert state == {"best": 0.4, "best_window": 2, "num_worse": 0}
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["windows"] == 4


def test_patience_survives_an_interruption(prepared: Prepared, tmp_path: Path) -> None:
    """Two bad measurements before the checkpoint and one after it make three."""

    def run(directory: Path, resumed: Path | None = None) -> int:
        values = [0.4, 0.5, 0.6, 0.7, 0.1, 0.1]
        callbacks = [Scripted(values, directory / "best.ckpt", patience=3), WindowCheckpoint(str(directory), 1, keep=6)]
        module, data = toy_module(prepared.base), toy_data(prepared.root, prepared.base, **HALF)
        ckpt = None if resumed is None else str(resumed)
        toy_trainer(directory, callbacks).fit(module, data, ckpt_path=ckpt, weights_only=False)
        return module.num_windows

    assert run(tmp_path / "unbroken") == 4
    assert run(tmp_path / "resumed", checkpoint_path(tmp_path / "unbroken", 3)) == 4
    assert run(tmp_path / "again", checkpoint_path(tmp_path / "unbroken", 4)) == 4, "an ended run goes no further"


def test_a_best_state_that_has_no_room_leaves_the_one_before(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of three improvements cannot be written; the run goes on, and the third is."""
    failing = iter([None, UnwrittenError("no room", no_room=True), None])
    real = meta_validation.write_checkpoint

    def write(trainer: Trainer, path: Path) -> UnwrittenError | None:
        return next(failing) or real(trainer, path)

    monkeypatch.setattr(meta_validation, "write_checkpoint", write)
    callback = Scripted([0.5, 0.4, 0.45, 0.6, 0.6, 0.6], tmp_path / "best.ckpt", patience=None)
    data = toy_data(prepared.root, prepared.base, **HALF)
    with pytest.warns(UserWarning, match=r"no room; the best state so far stays that of window 1"):
        toy_trainer(tmp_path, [callback], enable_checkpointing=True).fit(toy_module(prepared.base), data)
    assert (callback.best, callback.best_window, callback.num_worse) == (0.45, 3, 3)


def test_without_held_out_problems_or_before_the_measurement_it_is_refused(prepared: Prepared, tmp_path: Path) -> None:
    validation, windows = MetaValidation(str(tmp_path / "best.ckpt")), WindowCheckpoint(str(tmp_path / "c"))
    module = toy_module(prepared.base)
    with pytest.raises(DajError, match=r"nothing to measure on. Set data.meta_validation"):
        toy_trainer(tmp_path, [validation], enable_checkpointing=True).fit(
            module, toy_data(prepared.root, prepared.base)
        )
    with pytest.raises(DajError, match="List MetaValidation before it"):
        toy_trainer(tmp_path, [windows, validation]).fit(module, toy_data(prepared.root, prepared.base, **HALF))
    with pytest.raises(DajError, match="patience >= 1 or none, got 0 and None"):
        MetaValidation("best.ckpt", every_n_windows=0)
