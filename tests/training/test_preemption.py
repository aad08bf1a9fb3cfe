"""Signals that ask a run to stop, and SLURM's queue, one piece at a time; whole runs are in test_drills.py."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning import Callback
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment

from conftest import Prepared
from daj_lightning.objectives import GRPO
from daj_lightning.records import Stopped
from daj_lightning.rollout import TransformersEngine
from daj_lightning.training import AtomicCheckpointIO, Rollouts, WindowCheckpoint, last_checkpoint
from daj_lightning.training.preemption import StopRequests, requeue, requeue_signal
from tiny import Vowels, toy_data, toy_module, toy_trainer


class Signals(Callback):
    """The process sends itself SIGTERM in the third window."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 2:
            os.kill(os.getpid(), signal.SIGTERM)


class Interrupts(Callback):
    """Ctrl-C in the third window; the second one comes while that is saved."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 2:
            os.kill(os.getpid(), signal.SIGINT)


class Closes(TransformersEngine):
    closed = 0

    def close(self) -> None:
        self.closed += 1
        super().close()


def test_a_run_that_is_stopped_closes_the_engine_of_its_rollouts(prepared: Prepared, tmp_path: Path) -> None:
    engine = Closes()
    rollouts = Rollouts(engine, Vowels(), group_size=4, max_new_tokens=12)
    module = toy_module(prepared.base, objective=GRPO(beta=0.05), rollouts=rollouts)
    saves = WindowCheckpoint(str(tmp_path / "checkpoints"), every_n_windows=2)
    try:
        with pytest.raises(Stopped) as stopped:
            toy_trainer(tmp_path, [Signals(), saves]).fit(module, toy_data(prepared.root, prepared.base))
    finally:
        saves.stop_requests.release()
    assert stopped.value.code == 143
    assert last_checkpoint(tmp_path / "checkpoints").name == "window-000003.ckpt"
    assert engine.closed == 1


class SavesUnderSignals(AtomicCheckpointIO):
    """The process is sent a signal while it writes a checkpoint of these windows."""

    def __init__(self, number: signal.Signals, names: tuple[str, ...]) -> None:
        super().__init__()
        self.number, self.names = number, names

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        if Path(path).name in self.names:
            os.kill(os.getpid(), self.number)
        super().save_checkpoint(checkpoint, path, storage_options)


@pytest.mark.parametrize(
    ("callbacks", "number", "window", "status"),
    [
        ([], signal.SIGTERM, "window-000006.ckpt", 143),  # the last: nothing comes after it that would hear
        ([Interrupts()], signal.SIGINT, "window-000003.ckpt", 130),
    ],
    ids=["in the last save", "a second Ctrl-C in the save"],
)
def test_a_signal_while_the_state_is_saved_is_heard_and_breaks_nothing_off(
    prepared: Prepared, tmp_path: Path, callbacks: list[Callback], number: signal.Signals, window: str, status: int
) -> None:
    saves = WindowCheckpoint(str(tmp_path / "checkpoints"), every_n_windows=100)
    trainer = toy_trainer(tmp_path, [*callbacks, saves], plugins=[SavesUnderSignals(number, (window,))])
    try:
        with pytest.raises(Stopped) as stopped:
            trainer.fit(toy_module(prepared.base), toy_data(prepared.root, prepared.base))
    finally:
        saves.stop_requests.release()
    assert stopped.value.code == status
    assert last_checkpoint(tmp_path / "checkpoints").name == window


def test_a_run_that_ends_by_itself_gives_the_signals_back(prepared: Prepared, tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    saves = WindowCheckpoint(str(tmp_path / "checkpoints"))
    toy_trainer(tmp_path, [saves]).fit(toy_module(prepared.base), toy_data(prepared.root, prepared.base, max_windows=2))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before


@pytest.fixture
def ignored_hangup() -> Iterator[signal.Signals]:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield signal.SIGHUP
    signal.signal(signal.SIGHUP, before)


def test_a_signal_that_the_process_was_started_to_ignore_stays_ignored(ignored_hangup: signal.Signals) -> None:
    requests = StopRequests()
    requests.listen([ignored_hangup])
    os.kill(os.getpid(), ignored_hangup)
    assert requests.received is None


def test_while_it_holds_a_signal_is_noted_and_afterwards_those_before_have_it_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    requests = StopRequests()
    with requests:
        requests.holds = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert requests.received is signal.SIGTERM
        requests.holds = False
        os.kill(os.getpid(), signal.SIGTERM)  # the state is being saved: once is enough
    assert signal.getsignal(signal.SIGTERM) is before


def test_while_it_does_not_hold_a_signal_stops_with_the_status_and_what_stands() -> None:
    requests = StopRequests("Nothing stands.")
    requests.listen()
    try:
        with pytest.raises(Stopped) as stopped:
            os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        requests.release()
    assert stopped.value.code == 138
    assert stopped.value.told == "stopped by SIGUSR1. Nothing stands."


def scontrol(directory: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "scontrol").write_text(f"#!/bin/sh\n{text}\n")
    (directory / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(directory))


def test_a_task_of_an_array_is_queued_by_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scontrol(tmp_path, f'echo "$@" > {tmp_path}/log', monkeypatch)
    for name, value in {"JOB_ID": "12", "ARRAY_JOB_ID": "10", "ARRAY_TASK_ID": "2"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert requeue() == "SLURM has queued job 10_2 again."
    assert (tmp_path / "log").read_text() == "requeue 10_2\n"


def test_a_queue_that_refuses_and_one_that_is_not_there_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    scontrol(tmp_path, "echo Job is not requeueable >&2; exit 1", monkeypatch)
    assert requeue() == "`scontrol requeue 12` failed (Job is not requeueable): queue the job again yourself."
    (tmp_path / "scontrol").unlink()
    assert "No such file or directory: 'scontrol'): queue the job again yourself." in requeue()


def test_who_wants_no_requeueing_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert requeue_signal(LightningEnvironment()) is None
    assert requeue_signal(SLURMEnvironment(auto_requeue=False)) is None
    assert requeue_signal(SLURMEnvironment()) is signal.SIGUSR1
    assert requeue_signal(SLURMEnvironment(requeue_signal=signal.SIGUSR2)) is signal.SIGUSR2
