"""The auditor: plain training, and beside it what Algorithm 1 would have told the weights."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from lightning import Callback

from conftest import Prepared
from daj_lightning.bilevel import BankEngine, InstanceTable, Uniform
from daj_lightning.data import PairDataset
from daj_lightning.judge import Judge
from daj_lightning.objectives import DPO
from daj_lightning.training import Auditor, DataReweightedJudge, Level, StepReport
from tiny import toy_data, toy_module, toy_trainer

INNER = Level(lr=1e-3)
WARMUP = 2


def audited(prepared: Prepared, tmp_path: Path, unroll_windows: int = 1) -> Auditor:
    torch.manual_seed(0)
    judge = Judge(str(prepared.base), "float32", lora_r=4, lora_alpha=8)
    auditor = Auditor(judge, INNER, DPO(), BankEngine(unroll_windows=unroll_windows), 1.0, WARMUP)
    toy_trainer(tmp_path).fit(auditor, toy_data(prepared.root, prepared.base))
    return auditor


def adapters(module: DataReweightedJudge) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.judge.trained_parameters()])


class Reports(Callback):
    """What every window credits its samples with."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.of_window: list[StepReport] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.of_window.append(pl_module.report)


def test_influence_is_minus_what_moves_the_weights(prepared: Prepared, tmp_path: Path) -> None:
    """A table whose rate is next to 0 weighs every sample 1; its hypergradients are the auditor's means, negated."""
    reports = Reports()
    outer = Level(lr=1e-9, optimizer="lazy_adam")
    module = toy_module(
        prepared.base, inner=INNER, outer=outer, reweighter=InstanceTable(), outer_warmup_windows=WARMUP
    )
    toy_trainer(tmp_path, [reports]).fit(module, toy_data(prepared.root, prepared.base))
    looks = audited(prepared, tmp_path).looks
    assert [look.window for look in looks] == [2, 3, 4, 5]
    for look in looks:
        report = reports.of_window[look.window]
        assert report.hypergradient is not None
        assert report.sample_ids.tolist() == look.sample_ids.tolist()
        assert look.influence.shape == (2, 4)
        assert look.influence.abs().max() > 0
        torch.testing.assert_close(look.influence.mean(dim=0), -report.hypergradient, rtol=1e-3, atol=1e-9)


def test_an_audit_trains_as_if_nobody_watched(prepared: Prepared, tmp_path: Path) -> None:
    module = toy_module(prepared.base, inner=INNER, reweighter=Uniform())
    toy_trainer(tmp_path).fit(module, toy_data(prepared.root, prepared.base))
    torch.testing.assert_close(adapters(audited(prepared, tmp_path)), adapters(module), rtol=1e-4, atol=1e-6)


def test_a_window_is_looked_at_by_the_meta_batches_that_the_engine_remembers_it_for(
    prepared: Prepared, tmp_path: Path
) -> None:
    """Windows 2 to 5 of 6, three remembered: the last two are followed for two windows and for one."""
    auditor = audited(prepared, tmp_path, unroll_windows=3)
    assert Counter(look.window for look in auditor.looks) == {2: 3, 3: 3, 4: 2, 5: 1}
    assert len(auditor.cosines) == 4


def test_margins_are_what_the_loss_sees(prepared: Prepared, tmp_path: Path) -> None:
    auditor = audited(prepared, tmp_path)
    dataset = auditor.data.train_set
    assert isinstance(dataset, PairDataset)
    losses = torch.cat([DPO()(auditor.judge, dataset.batch([i])) for i in range(len(dataset))])
    torch.testing.assert_close(losses, torch.nn.functional.softplus(-auditor.train_margins))
    assert auditor.train_margins.abs().max() > 0
    assert len(auditor.meta_margins) == len(auditor.data.meta_set)
