"""Runs through the command line, in processes of their own, that meet trouble: start, strike, look, go on."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
import yaml

from conftest import Prepared
from daj_lightning.__main__ import main
from daj_lightning.training import last_checkpoint
from daj_lightning.training.checkpoint import checkpoints
from tiny import toy_config

NUM_WINDOWS = 12
TESTS = Path(__file__).parent
PATHS = os.pathsep.join([str(TESTS.parent), str(TESTS)])
NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


class Drill:
    """A run of twelve windows that saves every fourth, with a table of weights, logs, influence and a report.

    Args:
        directory: of everything that the run writes.
        trouble: callbacks of troubles.py, each (class name, arguments).
    """

    def __init__(self, prepared: Prepared, directory: Path, *trouble: tuple[str, dict[str, Any]]) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        config = toy_config(prepared.root, prepared.base, directory)
        callbacks = config["trainer"]["callbacks"]
        callbacks[0]["init_args"]["every_n_windows"] = 4
        influence = {"path": str(directory / "influence.parquet"), "every_n_windows": 5}
        callbacks += [
            {"class_path": "daj_lightning.training.InfluenceRecorder", "init_args": influence},
            {"class_path": "troubles.Slowly"},
            *({"class_path": f"troubles.{name}", "init_args": arguments} for name, arguments in trouble),
        ]
        logger = {"save_dir": str(directory), "name": "csv"}
        config["trainer"]["logger"] = {
            "class_path": "lightning.pytorch.loggers.CSVLogger",
            "init_args": {**logger, "flush_logs_every_n_steps": 1},
        }
        config["trainer"]["log_every_n_steps"] = 1
        config["model"]["reweighter"] = {"class_path": "daj_lightning.bilevel.InstanceTable"}
        config["data"]["max_windows"] = NUM_WINDOWS
        self.config = config

    def write(self) -> list[str]:
        """The configuration, and the arguments of the command that runs it."""
        path = self.directory.with_name(f"{self.directory.name}.yaml")
        path.write_text(yaml.safe_dump(self.config))
        return ["fit", "--config", str(path)]

    def start(
        self, *options: str, environment: Mapping[str, str] | None = None, under: Sequence[str] = ()
    ) -> subprocess.Popen[str]:
        """`python -m daj_lightning fit` with these options, run by the command `under`."""
        return started([*under, sys.executable, "-m", "daj_lightning", *self.write(), *options], environment or {})

    def run(self, *options: str, **more: Any) -> Ended:
        return finished(self.start(*options, **more))

    def run_on_disk(self, folder: str, size_kib: int, *options: str) -> Ended:
        """The same with a disk of its own mounted over a folder of the run, which keeps what is then on the disk.

        A mount namespace needs no privileges where users may have namespaces of their own.
        """
        disk, kept = self.directory / folder, self.directory.with_name(f"{self.directory.name}-kept")
        disk.mkdir(exist_ok=True)
        kept.mkdir()
        mount = (
            f'mount -t tmpfs -o size={size_kib}k tmpfs {disk} && "$@"; status=$?; cp -a {disk}/. {kept}; exit $status'
        )
        ended = self.run(*options, under=[*NAMESPACE, "sh", "-c", mount, "sh"])
        shutil.copytree(kept, disk, dirs_exist_ok=True)
        return ended

    def here(self, *options: str) -> int:
        """The status of a run in this process, which has torch already."""
        return main([*self.write(), *options])

    def wait_for(self, name: str, process: subprocess.Popen[str]) -> None:
        """Until a file of that name is in the run's directory."""
        until = time.monotonic() + 120
        while not (self.directory / name).exists():
            assert process.poll() is None, f"ended before {name}: {process.stderr.read() if process.stderr else ''}"
            assert time.monotonic() < until, f"no {name} in two minutes"
            time.sleep(0.01)

    @property
    def saved(self) -> list[int]:
        """Windows of its checkpoints, newest first."""
        return [int(path.stem.removeprefix("window-")) for path in checkpoints(self.directory / "checkpoints")]

    @property
    def last(self) -> Path:
        return last_checkpoint(self.directory / "checkpoints")

    def logged(self) -> dict[int, str]:
        """step -> inner loss, of all log files."""
        rows = [row for path in self.directory.glob("csv/*/metrics.csv") for row in csv.DictReader(path.open())]
        return {int(row["step"]): row["inner/loss"] for row in rows if row["inner/loss"]}


def started(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """A process that finds the package and these tests, and no SLURM but its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    return subprocess.Popen(
        command,
        env={**inherited, "PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


class Ended:
    """How a process ended."""

    def __init__(self, status: int, errors: str) -> None:
        self.status = status
        self.errors = errors

    def line(self, start: str) -> str:
        """The one line that starts so, of a run that shows no traceback."""
        assert "Traceback" not in self.errors, self.errors[-3000:]
        lines = [line for line in self.errors.splitlines() if line.startswith(start)]
        assert len(lines) == 1, self.errors[-3000:]
        return lines[0]


def finished(process: subprocess.Popen[str]) -> Ended:
    _, errors = process.communicate(timeout=300)
    return Ended(process.returncode, errors)


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit, all the way down."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def check_same_end(unbroken: Drill, resumed: Drill) -> None:
    """Judge, weights, optimizers, schedules, counters, generators, samples' order, influence and report."""
    assert unbroken.saved[0] == resumed.saved[0] == NUM_WINDOWS
    wanted, got = (torch.load(drill.last, weights_only=True) for drill in (unbroken, resumed))
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "daj", "loops"):
        assert same(wanted[part], got[part]), part
    rows = [pq.read_table(drill.directory / "influence.parquet").to_pylist() for drill in (unbroken, resumed)]
    assert len(rows[0]) == NUM_WINDOWS * 4
    assert rows[0] == rows[1]
    reports = [(drill.directory / "report.json").read_text() for drill in (unbroken, resumed)]
    assert reports[0] == reports[1]
