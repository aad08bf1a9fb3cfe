"""Every engine and averaging option in a whole run: passes, steps, refusals, and resumption to the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from conftest import Prepared
from daj_lightning.bilevel import (
    BankEngine,
    DomainWeights,
    FiniteDifferenceEngine,
    HierarchicalWeights,
    HypergradientEngine,
    InstanceNet,
    InstanceTable,
    JvpEngine,
    TraceEngine,
    Window,
)
from daj_lightning.judge import Judge
from daj_lightning.records import DajError
from daj_lightning.training import WindowCheckpoint
from runs import Passes, fit
from tiny import toy_data, toy_module, toy_trainer


@pytest.mark.parametrize(
    ("engine", "more"),
    [(JvpEngine(), 16), (FiniteDifferenceEngine(), 32), (TraceEngine(), 0)],
    ids=["jvp", "finite differences", "trace"],
)
def test_what_an_engine_without_a_bank_pays_in_forwards(
    prepared: Prepared, tmp_path: Path, engine: HypergradientEngine, more: int
) -> None:
    """K tangent passes for jvp, 2 K passes for finite differences, none for the trace; no backward for any."""
    passes = Passes()
    fit(prepared, tmp_path, [passes], engine=engine, num_inner=16, num_meta=8, max_windows=3)
    assert passes.windows == [[16, 16], [24 + more, 24], [24 + more, 24]], "the first window is outer warm-up"


@pytest.mark.parametrize("reweighter", [DomainWeights, InstanceTable, InstanceNet])
def test_a_run_by_jvp_ends_where_the_banks_does(prepared: Prepared, tmp_path: Path, reweighter: type) -> None:
    ends = []
    for engine in (JvpEngine(), BankEngine()):
        torch.manual_seed(3)
        module = fit(prepared, tmp_path, engine=engine, reweighter=reweighter(), max_windows=5)
        ends.append(torch.cat([p.detach().flatten() for p in module.reweighter.parameters()]))
    assert ends[0].abs().max() > 1e-3
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-3, atol=1e-5)


def test_derivatives_accumulate_into_fewer_outer_steps(prepared: Prepared, tmp_path: Path) -> None:
    module = fit(prepared, tmp_path, outer_accumulation=3, outer_warmup_windows=1, max_windows=8)
    assert (module.num_outer_steps, module.num_derivatives) == (2, 1), "seven derivatives: two steps and one over"


@pytest.mark.parametrize(("decay", "outer_steps"), [(0.0, 2), (0.5, 5)])
def test_an_averaged_meta_gradient_lets_windows_without_a_meta_batch_step_too(
    prepared: Prepared, tmp_path: Path, decay: float, outer_steps: int
) -> None:
    """Meta batches after windows 3 and 6 of 7: two outer steps, or one for each window from the third on."""
    passes = Passes()
    module = fit(prepared, tmp_path, [passes], meta_every=3, meta_decay=decay, max_windows=7)
    assert module.num_outer_steps == outer_steps
    assert [forwards for forwards, _ in passes.windows] == [4, 4, 6, 4, 4, 6, 4]


def test_the_age_of_an_averaged_meta_gradient_is_logged(prepared: Prepared, tmp_path: Path) -> None:
    """Batches after windows 2 and 4, decay 0.5: when the second comes the first is 2 windows old and weighs 1/3."""
    module = toy_module(prepared.base, meta_every=2, meta_decay=0.5)
    logger = CSVLogger(str(tmp_path), name="csv", version="")
    toy_trainer(tmp_path, logger=logger).fit(module, toy_data(prepared.root, prepared.base, max_windows=5))
    rows = (tmp_path / "csv" / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("meta/staleness")
    ages = [float(row.split(",")[column]) for row in rows[1:] if row.split(",")[column]]
    assert ages == pytest.approx([0.0, 2 / 3])


SETTINGS: dict[str, Callable[[], dict[str, Any]]] = {
    "unrolled bank, hierarchical, accumulated": lambda: {
        "engine": BankEngine(unroll_windows=3),
        "reweighter": HierarchicalWeights(),
        "outer_accumulation": 2,
    },
    "trace, averaged": lambda: {"engine": TraceEngine(), "meta_decay": 0.5, "meta_every": 2},
    "jvp, table, accumulated": lambda: {
        "engine": JvpEngine(),
        "reweighter": InstanceTable(),
        "outer_accumulation": 2,
    },
    "bfloat16 rows, unrolled": lambda: {"engine": BankEngine(dtype="bfloat16", unroll_windows=2)},
    "offloaded rows": lambda: {"engine": BankEngine(offload=True)},
    "offloaded bfloat16 rows, unrolled": lambda: {
        "engine": BankEngine(dtype="bfloat16", unroll_windows=3, offload=True)
    },
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_resumed_run_is_the_unbroken_one_to_the_last_bit(prepared: Prepared, tmp_path: Path, name: str) -> None:
    """Stopped after window 4 of 9, where derivatives, history, tangents and averages are half-way."""

    def run(ckpt: str | None) -> dict[str, Any]:
        torch.manual_seed(0)
        module = toy_module(prepared.base, **SETTINGS[name]())
        directory = tmp_path / ("resumed" if ckpt else "unbroken")
        callbacks = [WindowCheckpoint(str(directory), every_n_windows=4, keep=5)]
        toy_trainer(directory, callbacks).fit(
            module, toy_data(prepared.root, prepared.base, max_windows=9), ckpt_path=ckpt
        )
        assert module.num_outer_steps >= 3
        return {n: p.detach().clone() for n, p in module.state_dict().items() if "lora_" in n or "reweighter" in n}

    unbroken = run(None)
    resumed = run(str(tmp_path / "unbroken" / "window-000004.ckpt"))
    assert unbroken.keys() == resumed.keys()
    assert all(torch.equal(unbroken[n], resumed[n]) for n in unbroken), [
        n for n in unbroken if not torch.equal(unbroken[n], resumed[n])
    ]


@pytest.mark.parametrize(
    ("module", "data", "wanted"),
    [
        ({"engine": TraceEngine(), "reweighter": InstanceTable()}, {}, "Use DomainWeights, or BankEngine"),
        ({"reweighter": HierarchicalWeights()}, {"num_meta": 1}, "num_meta must be >= 2"),
        ({"outer_accumulation": 0}, {}, "outer_accumulation=0 must be >= 1"),
        ({"outer_accumulation": 9, "max_windows": 6}, {}, "no outer step in 6 windows"),
        ({"outer_warmup_windows": 6, "max_windows": 6}, {}, "no outer step in 6 windows"),
        ({"engine": TraceEngine(), "max_sample_norm": 0.1}, {}, "TraceEngine keeps none of them. Use BankEngine"),
        ({"engine": JvpEngine(), "max_sample_norm": 0.1}, {}, "JvpEngine keeps none of them. Use BankEngine"),
        ({"meta_decay": 1.0}, {}, r"meta_decay must be in \[0, 1\), got 1.0"),
    ],
)
def test_parts_that_do_not_fit_are_refused_before_training(
    prepared: Prepared, tmp_path: Path, module: dict[str, Any], data: dict[str, Any], wanted: str
) -> None:
    with pytest.raises(DajError, match=wanted):
        fit(prepared, tmp_path, **module, **data)


def test_the_bases_own_dropout_is_refused_too(prepared: Prepared, tmp_path: Path) -> None:
    judge = Judge(str(prepared.base), "float32", lora_r=4, lora_alpha=8)
    judge.load()
    judge.causal_lm.config.attention_dropout = 0.3
    with pytest.raises(DajError, match="the judge has attention_dropout"):
        fit(prepared, tmp_path, judge=judge, engine=FiniteDifferenceEngine())


def test_the_agreement_of_the_halves_is_logged_with_its_own_window(prepared: Prepared, tmp_path: Path) -> None:
    module = toy_module(prepared.base, reweighter=InstanceTable(), meta_every=2)
    logger = CSVLogger(str(tmp_path), name="csv", version="")
    toy_trainer(tmp_path, logger=logger).fit(module, toy_data(prepared.root, prepared.base, max_windows=7))
    rows = [row.split(",") for row in (tmp_path / "csv" / "metrics.csv").read_text().splitlines()]
    column, step = rows[0].index("meta/split_half"), rows[0].index("step")
    logged = {int(row[step]): float(row[column]) for row in rows[1:] if row[column]}
    assert list(logged) == [1, 3, 5]
    assert list(logged.values()) == pytest.approx(module.agreement.values)


def test_an_engine_never_sees_the_warm_up(prepared: Prepared, tmp_path: Path) -> None:
    """Adam's first steps have Jacobians of another size; a trace or an unrolled bank would carry them on."""

    class Seen(BankEngine):
        windows = 0

        def observe(self, window: Window) -> None:
            self.windows += 1
            super().observe(window)

    engine = Seen(unroll_windows=3)
    fit(prepared, tmp_path, engine=engine, outer_warmup_windows=4, max_windows=6)
    assert engine.windows == 2


def test_a_checkpoint_of_another_engine_is_refused(prepared: Prepared, tmp_path: Path) -> None:
    callbacks = [WindowCheckpoint(str(tmp_path / "checkpoints"), every_n_windows=4)]
    fit(prepared, tmp_path, callbacks, engine=JvpEngine(), max_windows=6)
    with pytest.raises(DajError, match="run with another engine"):
        toy_trainer(tmp_path).fit(
            toy_module(prepared.base),
            toy_data(prepared.root, prepared.base, max_windows=6),
            ckpt_path=str(tmp_path / "checkpoints" / "window-000004.ckpt"),
        )


def test_a_checkpoint_of_another_net_is_refused(prepared: Prepared, tmp_path: Path) -> None:
    """Its tensors have the same shapes, and other meanings."""
    callbacks = [WindowCheckpoint(str(tmp_path / "checkpoints"), every_n_windows=4)]
    fit(prepared, tmp_path, callbacks, reweighter=InstanceNet(features=["loss", "mean_loss"]), max_windows=6)
    with pytest.raises(DajError, match="run with another reweighter"):
        toy_trainer(tmp_path).fit(
            toy_module(prepared.base, reweighter=InstanceNet(features=["mean_loss", "loss"])),
            toy_data(prepared.root, prepared.base, max_windows=6),
            ckpt_path=str(tmp_path / "checkpoints" / "window-000004.ckpt"),
        )


def test_an_engine_that_goes_back_refuses_dropout(prepared: Prepared, tmp_path: Path) -> None:
    judge = Judge(str(prepared.base), "float32", lora_r=4, lora_alpha=8, lora_dropout=0.1)
    with pytest.raises(DajError, match=r"the judge has .*lora_dropout"):
        fit(prepared, tmp_path, judge=judge, engine=JvpEngine())
