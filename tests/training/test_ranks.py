"""Two processes train as one does: the same judge, weights and losses, under DDP and FSDP2, and few numbers sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from lightning import Trainer
from lightning.pytorch.trainer.states import TrainerFn

import ranks_run
from conftest import Prepared
from daj_lightning.records import DajError
from daj_lightning.training.checks import check_processes, check_shares, check_strategy
from ranks import distance, left, start

REWEIGHTERS = ("none", "domain", "table", "net", "hierarchical")
FEWER = ("trace", "unrolled", "averaged", "jvp", "kto", "dropout", "checkpointed", "packed", "normalized", "shortened")
RUNS = [
    *({"name": case, "case": case, "windows": 20} for case in REWEIGHTERS),
    *({"name": f"{case} in float32", "case": case, "windows": 20, "dtype": "float32"} for case in REWEIGHTERS),
    *({"name": case, "case": case, "windows": 5} for case in FEWER),
    {"name": "reports", "case": "domain", "windows": 4, "dtype": "float32", "reports": True, "every": 2},
]
ENDS = [{"name": case, "case": case, "windows": 20} for case in ("everything", "poisoned")]
"""Runs that end in an error."""


@pytest.fixture(scope="module")
def one(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start(prepared, "single", RUNS, tmp_path_factory.mktemp("single"))


@pytest.fixture(scope="module", params=["ddp", "fsdp2"])
def two(request: pytest.FixtureRequest, prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start(prepared, request.param, RUNS + ENDS, tmp_path_factory.mktemp(request.param))


def assert_alike(got: dict[str, Any], wanted: dict[str, Any], bound: float) -> None:
    assert got["same"], "the adapters of the two processes differ"
    assert got["ids"] == wanted["ids"]
    assert got["num_outer_steps"] == wanted["num_outer_steps"]
    for part in ("adapters", "losses", "weights", "alphas"):
        assert distance(got[part], wanted[part]) <= bound, part


@pytest.mark.slow
def test_the_runs_clip_and_learn(one: Path) -> None:
    """Otherwise the tests below would compare less than they say."""
    for case in REWEIGHTERS:
        found = left(one, case)
        assert min(found["norms"]) > ranks_run.MAX_NORM
        assert found["adapters"].dtype is torch.float64
        learns = case != "none"
        assert found["num_outer_steps"] == (19 if learns else 0)
        assert (float(found["alphas"].std()) > 1e-3) is learns


@pytest.mark.slow
@pytest.mark.parametrize("case", REWEIGHTERS)
def test_two_processes_equal_one_after_twenty_windows(one: Path, two: Path, case: str) -> None:
    """Adam, clipping, every reweighter: 1e-12 in float64, 1e-5 in float32."""
    assert_alike(left(two, case), left(one, case), 1e-12)
    assert_alike(left(two, f"{case} in float32"), left(one, f"{case} in float32"), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("case", FEWER)
def test_two_processes_equal_one_with_every_engine_and_what_else_spans_a_window(
    one: Path, two: Path, case: str
) -> None:
    """KTO's divergence is of the whole window; dropout drops the same units wherever a sample is."""
    assert_alike(left(two, case), left(one, case), 1e-12)


@pytest.mark.slow
def test_under_fsdp2_the_bases_layers_are_split_and_nothing_else(two: Path) -> None:
    """Two layers of eleven frozen tensors: seven projections, four norms. Embedding, norm and head are whole."""
    assert left(two, "domain")["sharded"] == (2 * 11 if two.name.startswith("fsdp2") else 0)


@pytest.mark.slow
def test_a_window_sends_two_gradients_its_losses_and_its_credits(two: Path) -> None:
    """K losses, P, then P + M, then K of d alpha; no gradient of a weight. Halves, where asked for, are P + K more."""
    K, M, P = ranks_run.NUM_INNER, ranks_run.NUM_META, left(two, "none")["adapters"].numel()
    domains = 2
    after_warm_up = {
        "none": [K, P],
        "domain": [K, P, P + M, K],
        "table": [K, P, P + M, K],
        "net": [K, P, P + M, K],
        "hierarchical": [K, P, 2 * P + M, K, K],
        "trace": [K, P, P + M, domains],
        "jvp": [K, P, P + M, K],
    }
    for case, numbers in after_warm_up.items():
        found = left(two, case)["numbers"]
        assert found[0] == [K, P], "warm-up"
        assert all(window == numbers for window in found[1:]), case
    assert left(two, "unrolled")["numbers"][2:] == [[K, P, P + M, 2 * K]] * 3


@pytest.mark.slow
def test_reports_are_written_once_and_say_what_one_process_says(one: Path, two: Path) -> None:
    wanted, got = (directory / "reports" for directory in (one, two))
    files = [sorted(str(p.relative_to(d)) for p in d.rglob("*")) for d in (wanted, got)]
    assert files[0] == files[1]
    rows = [pq.read_table(d / "influence.parquet").to_pylist() for d in (wanted, got)]
    assert len(rows[0]) == 4 * ranks_run.NUM_INNER
    for a, b in zip(*rows, strict=True):
        assert [b[k] for k in ("window", "sample", "domain")] == [a[k] for k in ("window", "sample", "domain")]
        assert numbers_in(b) == pytest.approx(numbers_in(a), rel=1e-4, abs=1e-7)
        assert (a["hypergradient"] is None) == (b["hypergradient"] is None) == (a["window"] == 1)
    for name in ("report.json", "validate_scores.json"):
        a, b = (json.loads((d / name).read_text()) for d in (wanted, got))
        assert numbers_in(a)
        assert numbers_in(b) == pytest.approx(numbers_in(a), rel=1e-4, abs=1e-6)


def numbers_in(tree: Any) -> list[float]:
    """Of a JSON, in order."""
    if isinstance(tree, dict):
        return [number for value in tree.values() for number in numbers_in(value)]
    return [float(tree)] if isinstance(tree, (int, float)) else []


@pytest.mark.slow
def test_a_reference_of_an_odd_number_of_samples_is_whole(one: Path, two: Path) -> None:
    wanted = left(one, "domain")["odd_reference"]
    assert wanted.shape == (5, 2)
    torch.testing.assert_close(left(two, "domain")["odd_reference"], wanted, rtol=1e-6, atol=0)


@pytest.mark.slow
def test_a_bad_gradient_stops_both_processes_which_name_the_sample(two: Path) -> None:
    """Only one of them has its row."""
    said = [(two / f"poisoned.{rank}.txt").read_text() for rank in (0, 1)]
    assert said[0] == said[1]
    assert f"not finite for samples [{ranks_run.POISON}]" in said[0]


@pytest.mark.slow
def test_fsdp2_refuses_a_judge_that_trains_everything_and_ddp_trains_it(two: Path) -> None:
    if two.name.startswith("fsdp2"):
        assert "Train adapters, or use configs/strategy/ddp.yaml" in (two / "everything.0.txt").read_text()
    else:
        assert left(two, "everything")["same"]


def trainer(**more: Any) -> Trainer:
    return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, **more)


def test_what_several_processes_cannot_do_is_refused_with_the_remedy() -> None:
    two_processes = trainer(devices=2, strategy="ddp")
    check_processes(two_processes, answers=False, stage="fit")
    with pytest.raises(DajError, match=r"GRPO trains in one process.*VllmServer"):
        check_processes(two_processes, answers=True, stage="fit")
    with pytest.raises(DajError, match=r"`test` asks in one process.*trainer\.devices to 1"):
        check_processes(two_processes, answers=False, stage=TrainerFn.TESTING)


@pytest.mark.parametrize(("num_inner", "num_meta"), [(15, 8), (16, 7)])
def test_batches_that_do_not_deal_out_evenly_are_refused(num_inner: int, num_meta: int) -> None:
    check_shares(2, 16, 8)
    with pytest.raises(DajError, match=f"data.num_inner={num_inner} and data.num_meta={num_meta} must both be"):
        check_shares(2, num_inner, num_meta)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("deepspeed_stage_2", "one optimizer"),
        ("DeepSpeedStrategy", "one optimizer"),
        ("fsdp", "no sample has a gradient of its own"),
        ("ModelParallelStrategy", "checkpoints"),
    ],
)
def test_strategies_that_cannot_serve_are_refused_with_the_reason_and_another(name: str, reason: str) -> None:
    with pytest.raises(DajError, match=rf"trainer\.strategy is {name}.*{reason}.*configs/strategy/fsdp2\.yaml"):
        check_strategy(name)
