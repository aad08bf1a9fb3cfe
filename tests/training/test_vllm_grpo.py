"""GRPO with a real vLLM server: `make vllm-env`, then `make test-vllm`."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback

from conftest import Prepared
from daj_lightning.judge import Judge
from daj_lightning.objectives import GRPO
from daj_lightning.rollout import RolloutError, VllmServer
from daj_lightning.training import ColdStart, DataReweightedJudge, Level, Rollouts
from tiny import TINY_ARCHITECTURE, Vowels, toy_data, toy_module, toy_trainer
from vllm_base import BLOCK, OFFLINE, VARIABLE, ReusesPath, needs_vllm

pytestmark = needs_vllm
WINDOWS = 120


@pytest.fixture(scope="module")
def base(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the toy base, with heads that vLLM's CPU kernels take."""
    directory = tmp_path_factory.mktemp("vllm") / "base"
    architecture = {**TINY_ARCHITECTURE, "hidden_size": 64, "head_dim": 32}
    ColdStart(architecture, vocab_size=320, steps=20, max_length=256).run(prepared.root / "train.jsonl", directory)
    return directory


class Watch(Callback):
    """Every window's log; the server is killed at one of them."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.logs: list[dict[str, float]] = []
        self.kill_at = kill_at

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.logs.append(pl_module.rollouts.log)
        if len(self.logs) == self.kill_at:
            warden = pl_module.rollouts.engine.supervisor.process.pid
            (served,) = Path(f"/proc/{warden}/task/{warden}/children").read_text().split()
            os.kill(int(served), signal.SIGKILL)


class Lengthen(Callback):
    """Prompts beyond a block of the prefix cache: each begins with its own first tokens once more."""

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        for dataset in (pl_module.data.train_set, pl_module.data.meta_set):
            dataset.prompts = [tuple(p[:60] + p for p in prompts) for prompts in dataset.prompts]
            assert min(len(p) for prompts in dataset.prompts for p in prompts) > BLOCK


def train(
    prepared: Prepared,
    base: Path,
    directory: Path,
    engine: VllmServer,
    watch: Watch,
    max_windows: int,
    lr: float = 5e-3,
    **rollouts: Any,
) -> DataReweightedJudge:
    options = {"group_size": 4, "max_new_tokens": 12, "reward": Vowels(), "engine": engine, **rollouts}
    module = toy_module(
        base,
        judge=Judge(str(base), "float32", lora_r=4, lora_alpha=8),
        objective=GRPO(),
        rollouts=Rollouts(**options),
        inner=Level(lr=lr),
    )
    data = toy_data(prepared.root, base, max_windows=max_windows)
    toy_trainer(directory, [Lengthen(), watch]).fit(module, data)
    return module


def server(kind: type[VllmServer] = VllmServer) -> VllmServer:
    return kind(python=os.environ[VARIABLE], max_model_len=256, environment=OFFLINE)


def test_120_steps_with_every_sync_checked_and_a_server_killed_in_between(
    prepared: Prepared, base: Path, tmp_path: Path
) -> None:
    watch = Watch(kill_at=40)
    module = train(prepared, base, tmp_path, server(), watch, WINDOWS)
    assert (module.num_windows, module.num_outer_steps) == (WINDOWS, WINDOWS - 1)
    assert max(log["rollout/mismatch_max"] for log in watch.logs) < 1e-4
    assert {log["rollout/staleness"] for log in watch.logs} == {0}
    assert all(p.isfinite().all() for p in module.judge.trained_parameters())


def test_an_adapter_path_that_is_used_again_trips_the_identity_check(
    prepared: Prepared, base: Path, tmp_path: Path
) -> None:
    """vLLM finds the prompt's blocks in its prefix cache, computed by the adapter of before."""
    watch = Watch()
    with pytest.raises(RolloutError, match="policy identity: the rollouts stamped version"):
        train(prepared, base, tmp_path, server(ReusesPath), watch, 20, lr=5e-2)
    assert len(watch.logs) < 20
    assert train(prepared, base, tmp_path, server(), Watch(), 20, lr=5e-2).num_windows == 20, "the path alone matters"


def test_overlap_trains_on_rollouts_that_are_one_window_old(prepared: Prepared, base: Path, tmp_path: Path) -> None:
    watch = Watch()
    module = train(prepared, base, tmp_path, server(), watch, 8, overlap=True)
    assert [log["rollout/staleness"] for log in watch.logs] == [0] + [1] * 7
    checked = [log["rollout/mismatch_max"] for log in watch.logs[:-1]]  # the last window draws nothing ahead
    assert max(checked) < 1e-4
    assert torch.cat([p.flatten() for p in module.judge.trained_parameters()]).isfinite().all()
