"""Killed at any moment, a run comes back bit for bit; a damaged checkpoint is passed over and named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from conftest import Prepared
from daj_lightning.records import DajError
from daj_lightning.training import AtomicCheckpointIO, UnwrittenError, last_checkpoint
from daj_lightning.training.checkpoint import checkpoint_path, checkpoints, is_whole
from drills import same

RUN = Path(__file__).with_name("resume_run.py")


def start(prepared: Prepared, directory: Path, *more: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": f"{RUN.parents[2]}{os.pathsep}{RUN.parents[1]}"}
    command = [sys.executable, str(RUN), str(prepared.root), str(prepared.base), str(directory), *more]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()[-2000:]


@pytest.fixture(scope="module")
def unbroken(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("unbroken")
    finish(start(prepared, directory))
    return directory


@pytest.mark.parametrize("kill_after_window", [4, 16])
def test_a_killed_run_resumes_to_the_same_bits(
    prepared: Prepared, unbroken: Path, tmp_path: Path, kill_after_window: int
) -> None:
    """kill -9 some windows after a checkpoint: judge, weights, optimizers, counters, RNG, sampler, influence."""
    process = start(prepared, tmp_path)
    while not (tmp_path / "checkpoints" / f"window-{kill_after_window:06d}.ckpt").exists():
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.01)
    time.sleep(0.12)  # into the windows after it
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "checkpoints" / "window-000030.ckpt").exists()
    finish(start(prepared, tmp_path, "last"))
    wanted, got = (
        torch.load(d / "checkpoints" / "window-000030.ckpt", weights_only=True) for d in (unbroken, tmp_path)
    )
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "daj", "loops"):
        assert same(wanted[part], got[part]), part
    rows = [pq.read_table(d / "influence.parquet").to_pylist() for d in (unbroken, tmp_path)]
    assert len(rows[0]) == 30 * 4
    assert rows[0] == rows[1]


def test_the_checkpoint_holds_the_adapters_but_not_the_base(unbroken: Path) -> None:
    state = torch.load(unbroken / "checkpoints" / "window-000030.ckpt", weights_only=True)["state_dict"]
    assert all("lora_" in name or name.startswith("reweighter.") for name in state)


def write_checkpoints(directory: Path) -> list[Path]:
    paths = [directory / f"window-{n:06d}.ckpt" for n in (4, 8)]
    for path in paths:
        AtomicCheckpointIO().save_checkpoint({"weights": torch.randn(1000)}, path)
    return paths


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path: Path, damage: str) -> None:
    older, newer = write_checkpoints(tmp_path)
    data = bytearray(newer.read_bytes())
    if damage == "flipped":
        middle = data.index(b"data/0") + 1000
        data[middle] ^= 0xFF
    newer.write_bytes(bytes(data[: {"cut": len(data) // 2, "empty": 0}.get(damage, len(data))]))
    with pytest.warns(UserWarning, match=r"window-000008\.ckpt is damaged"):
        assert last_checkpoint(tmp_path) == older


def test_a_half_written_checkpoint_is_not_one(tmp_path: Path) -> None:
    older, newer = write_checkpoints(tmp_path)
    newer.rename(newer.with_name(newer.name + ".part"))
    assert checkpoints(tmp_path) == [older]
    assert is_whole(older)


def test_the_newest_checkpoint_has_most_windows_however_long_their_number(tmp_path: Path) -> None:
    for number in (999_999, 1_000_000, 4):
        AtomicCheckpointIO().save_checkpoint({}, checkpoint_path(tmp_path, number))
    assert [path.stem for path in checkpoints(tmp_path)] == ["window-1000000", "window-999999", "window-000004"]


def test_a_directory_that_cannot_be_written_to_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnwrittenError, match=r"cannot write checkpoint .*window-000004.ckpt: Not a directory\. Make"):
        AtomicCheckpointIO().save_checkpoint({}, checkpoint_path(tmp_path / "file" / "checkpoints", 4))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_checkpoint_with_something_that_cannot_be_saved_is_our_bug_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="pickle"):
        AtomicCheckpointIO().save_checkpoint({"x": lambda: 0}, checkpoint_path(tmp_path, 4))
    assert list(tmp_path.iterdir()) == []


def test_last_with_nothing_to_find_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DajError, match="no usable checkpoint"):
        last_checkpoint(tmp_path)
