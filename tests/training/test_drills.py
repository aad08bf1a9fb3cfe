"""Failure drills: each ends with one line that says what to do, and a state that goes on bit for bit.

Every run is `python -m daj_lightning fit` in a process of its own. docs/failures.md is what these tests keep true.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from conftest import Prepared
from drills import NAMESPACE, NUM_WINDOWS, PATHS, Drill, Ended, check_same_end, finished, started

FAILURES = Path(__file__).parents[2] / "docs" / "failures.md"


@pytest.fixture(scope="module")
def unbroken(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Drill:
    drill = Drill(prepared, tmp_path_factory.mktemp("unbroken"))
    assert drill.here() == 0
    return drill


# A signal asks the run to stop --------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_window_end_saves_it_and_exits_with_128_plus_its_number(
    prepared: Prepared, unbroken: Drill, tmp_path: Path, number: signal.Signals
) -> None:
    drill = Drill(prepared, tmp_path)
    process = drill.start()
    drill.wait_for("checkpoints/window-000004.ckpt", process)
    process.send_signal(number)
    stopped = finished(process)
    assert stopped.status == 128 + number
    assert 4 < drill.saved[0] < 8
    assert stopped.line("stopped by") == f"stopped by {number.name}. {drill.last} stands: go on with --ckpt_path last."
    assert max(drill.logged()) == drill.saved[0] - 1, "the last window's row is logged"
    assert drill.here("--ckpt_path", "last") == 0
    check_same_end(unbroken, drill)
    assert drill.logged() == unbroken.logged()


def test_more_signals_while_the_state_is_saved_change_nothing(
    prepared: Prepared, unbroken: Drill, tmp_path: Path
) -> None:
    """A scheduler that repeats itself, from the window's end to the process's."""
    drill = Drill(prepared, tmp_path)
    process = drill.start()
    drill.wait_for("checkpoints/window-000004.ckpt", process)
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.005)
    stopped = finished(process)
    assert stopped.status == 128 + signal.SIGTERM
    assert stopped.line("stopped by SIGTERM").endswith(f"{drill.last} stands: go on with --ckpt_path last.")
    assert drill.saved[0] < NUM_WINDOWS
    assert drill.here("--ckpt_path", "last") == 0
    check_same_end(unbroken, drill)


def test_a_second_ctrl_c_does_not_wait_for_the_window(prepared: Prepared, tmp_path: Path) -> None:
    drill = Drill(
        prepared, tmp_path, ("Waits", {"hook": "on_train_batch_start", "window": 6, "directory": str(tmp_path)})
    )
    process = drill.start()
    drill.wait_for("there", process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None, "the first waits for the end of the window"
    process.send_signal(signal.SIGINT)
    stopped = finished(process)
    assert stopped.status == 128 + signal.SIGINT
    assert stopped.line("stopped by").startswith("stopped by a second SIGINT. ")
    assert stopped.line("stopped by").endswith("window-000004.ckpt stands: go on with --ckpt_path last.")
    assert drill.saved == [4]


@pytest.mark.parametrize(
    ("hook", "window", "saved"),
    [
        ("on_train_start", 0, []),  # before BeforeAfter has measured
        ("on_validation_batch_start", 6, [6, 4]),  # a validation in the middle of the run
        ("on_train_end", 12, [12, 8]),  # while BeforeAfter could measure for hours
    ],
)
def test_where_nothing_trains_a_signal_ends_the_run_at_once(
    prepared: Prepared, unbroken: Drill, tmp_path: Path, hook: str, window: int, saved: list[int]
) -> None:
    drill = Drill(prepared, tmp_path, ("Waits", {"hook": hook, "window": window, "directory": str(tmp_path)}))
    if hook == "on_validation_batch_start":  # which draws from the generators
        unbroken = Drill(prepared, tmp_path / "unbroken")
        unbroken.config["trainer"]["val_check_interval"] = drill.config["trainer"]["val_check_interval"] = 6
        assert unbroken.here() == 0
    process = drill.start()
    drill.wait_for("there", process)
    process.send_signal(signal.SIGTERM)
    stopped = finished(process)
    assert stopped.status == 128 + signal.SIGTERM
    assert drill.saved == saved
    stands = (
        f"{drill.last} stands: go on with --ckpt_path last." if saved else "No checkpoint is written yet: start anew."
    )
    assert stopped.line("stopped by") == f"stopped by SIGTERM. {stands}"
    (tmp_path / "on").touch()
    assert drill.here(*(("--ckpt_path", "last") if saved else ())) == 0
    check_same_end(unbroken, drill)


# A full disk --------------------------------------------------------------------------------------


@pytest.fixture
def small_disks() -> None:
    probe = subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"this host gives tests no small disk: {probe.stderr.strip()}")


@pytest.mark.usefixtures("small_disks")
def test_the_oldest_checkpoint_makes_room_for_a_new_one(prepared: Prepared, unbroken: Drill, tmp_path: Path) -> None:
    """After window 9 nothing is free, and checkpoints 4 and 8 are on the disk: 12 takes the room of 4."""
    full = ("FillsTheDisk", {"directory": str(tmp_path / "checkpoints"), "window": 9})
    drill = Drill(prepared, tmp_path, full)
    ended = drill.run_on_disk("checkpoints", 2048)
    assert ended.status == 0, ended.errors[-3000:]
    assert "no room" not in ended.errors
    assert drill.saved == [12, 8]
    check_same_end(unbroken, drill)


@pytest.mark.usefixtures("small_disks")
def test_a_full_disk_stops_a_run_at_the_second_checkpoint_and_leaves_the_one_before_whole(
    prepared: Prepared, unbroken: Drill, tmp_path: Path
) -> None:
    """From window 5 on nothing is free: 8 is passed over, as the disk may be emptied; 12 is the last chance."""
    folder = tmp_path / "checkpoints"
    drill = Drill(prepared, tmp_path, ("FillsTheDisk", {"directory": str(folder), "window": 5, "but_bytes": 40_000}))
    ended = drill.run_on_disk("checkpoints", 2048)
    assert ended.status == 2
    assert re.fullmatch(
        rf"error: no room for checkpoint {folder}/window-000012.ckpt \(No space left on device\): it needs some 0.\d "
        r"MiB and 0.0 MiB are free. Free some of this disk. "
        rf"{folder}/window-000004.ckpt stands: go on with --ckpt_path last.",
        ended.line("error: "),
    )
    assert len(re.findall(r"window-000008.ckpt .* the run goes on, and stops if the next", ended.errors)) == 1
    assert sorted(path.name for path in folder.iterdir()) == [
        "filler",
        "window-000004.ckpt",
        "window-000004.ckpt.sha256",
    ]
    assert drill.here("--ckpt_path", "last") == 0
    check_same_end(unbroken, drill)


@pytest.mark.usefixtures("small_disks")
def test_influence_that_has_no_room_goes_into_a_later_part(prepared: Prepared, unbroken: Drill, tmp_path: Path) -> None:
    folder = tmp_path / "influence.parquet"
    drill = Drill(prepared, tmp_path, ("FillsTheDisk", {"directory": str(folder), "window": 4, "until": 9}))
    ended = drill.run_on_disk("influence.parquet", 256)
    assert ended.status == 0, ended.errors[-3000:]
    assert f"No space left on device: '{folder}/part-000005.parquet'; its rows go into the next part" in ended.errors
    assert sorted(path.name for path in folder.iterdir()) == ["part-000010.parquet", "part-000012.parquet"]
    check_same_end(unbroken, drill)


@pytest.mark.usefixtures("small_disks")
def test_a_report_that_has_no_room_is_written_by_a_run_that_goes_on(
    prepared: Prepared, unbroken: Drill, tmp_path: Path
) -> None:
    """The training is done and saved; only its report is not there yet."""
    directory = tmp_path / "run"
    drill = Drill(prepared, directory, ("FillsTheDisk", {"directory": str(directory), "window": 11}))
    drill.config["trainer"]["logger"] = False
    ended = drill.run_on_disk(".", 3072)
    assert ended.status == 2
    line = ended.line("error: ")
    assert line.startswith("error: window 12: the disk is full: [Errno 28] No space left on device: ")
    assert line.endswith(f"Free some of it. {drill.last} stands: go on with --ckpt_path last.")
    assert drill.saved == [12, 8]
    (directory / "filler").unlink()
    assert drill.here("--ckpt_path", "last") == 0
    check_same_end(unbroken, drill)


# The machine --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("cuda", "CUDA out of memory. Tried to allocate 2.00 GiB"),
        ("cpu", "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1152921504606846976 bytes"),
    ],
)
def test_too_little_memory_is_one_line_with_the_remedy(
    prepared: Prepared, unbroken: Drill, tmp_path: Path, capsys: pytest.CaptureFixture[str], device: str, said: str
) -> None:
    """On a GPU by the error that torch raises there; on the CPU by a real allocation."""
    drill = Drill(prepared, tmp_path, ("RunsOutOfMemory", {"window": 6, "device": device}))
    assert drill.here() == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: window 6: {said}. To need less, ")
    assert "set model.judge.init_args.gradient_checkpointing=true, with which this run can go on" in line
    assert line.endswith(f"{drill.last} stands: go on with --ckpt_path last.")
    drill.config["trainer"]["callbacks"].pop()
    assert drill.here("--ckpt_path", "last") == 0
    check_same_end(unbroken, drill)


JUMPS = """
import itertools, time
ahead, real = itertools.cycle([-10, 10]), time.time
time.time = lambda: real() + next(ahead) * 365 * 24 * 3600
"""


def test_a_clock_that_jumps_is_not_noticed(prepared: Prepared, unbroken: Drill, tmp_path: Path) -> None:
    """Killed, its files dated in the wrong order, and gone on with under a clock that swings by twenty years."""
    drill = Drill(prepared, tmp_path)
    process = drill.start()
    drill.wait_for("checkpoints/window-000008.ckpt", process)
    process.kill()
    process.communicate()
    os.utime(tmp_path / "checkpoints" / "window-000004.ckpt", (2**32, 2**32))
    os.utime(tmp_path / "checkpoints" / "window-000008.ckpt", (0, 0))
    assert drill.last.name == "window-000008.ckpt"
    clock = tmp_path / "clock"
    clock.mkdir()
    (clock / "sitecustomize.py").write_text(JUMPS)
    ended = drill.run("--ckpt_path", "last", environment={"PYTHONPATH": os.pathsep.join([str(clock), PATHS])})
    assert ended.status == 0, ended.errors[-3000:]
    check_same_end(unbroken, drill)


# Several processes --------------------------------------------------------------------------------


def in_two_processes(prepared: Prepared, directory: Path, *trouble: tuple[str, dict[str, Any]]) -> Drill:
    drill = Drill(prepared, directory, *trouble)
    drill.config["trainer"] |= {"strategy": "ddp", "devices": 2, "limit_val_batches": 0}
    return drill


ONE_PROCESS = ("--trainer.strategy", "auto", "--trainer.devices", "1")


def child_of(process: subprocess.Popen[str]) -> int:
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(child)


def check_like_one_process(unbroken: Drill, resumed: Drill) -> None:
    """Sums of two processes are rounded otherwise."""
    assert resumed.saved[0] == NUM_WINDOWS
    wanted, got = (torch.load(drill.last, weights_only=True)["state_dict"] for drill in (unbroken, resumed))
    for name, value in wanted.items():
        torch.testing.assert_close(got[name], value, rtol=1e-3, atol=1e-5)
    assert len(pq.read_table(resumed.directory / "influence.parquet")) == NUM_WINDOWS * 4


@pytest.mark.slow
@pytest.mark.parametrize("place", ["in a message", "elsewhere"])
def test_a_process_that_is_killed_ends_the_run_in_seconds_and_another_number_of_them_goes_on(
    prepared: Prepared, unbroken: Drill, tmp_path: Path, place: str
) -> None:
    """The other one waits for the dead one's numbers, or is where nobody tells it."""
    waits = ("Waits", {"hook": "on_train_batch_start", "window": 6, "directory": str(tmp_path)})
    drill = in_two_processes(prepared, tmp_path, *([waits] if place == "elsewhere" else []))
    process = drill.start()
    drill.wait_for("there" if place == "elsewhere" else "checkpoints/window-000004.ckpt", process)
    os.kill(child_of(process), signal.SIGKILL)
    killed = time.monotonic()
    ended = finished(process)
    assert time.monotonic() - killed < 45
    assert ended.status == os.EX_TEMPFAIL
    line = ended.line("error: ")
    assert ": a process of this run was lost (" in line
    assert f"{drill.last} stands: go on with --ckpt_path last. Another number of processes may go on with it." in line
    (tmp_path / "on").touch()
    if place == "elsewhere":
        assert drill.here("--ckpt_path", "last", *ONE_PROCESS) == 0
    else:
        assert drill.run("--ckpt_path", "last").status == 0
    check_like_one_process(unbroken, drill)


@pytest.mark.slow
def test_a_signal_to_any_process_stops_all_at_the_same_window(
    prepared: Prepared, unbroken: Drill, tmp_path: Path
) -> None:
    drill = in_two_processes(prepared, tmp_path)
    process = drill.start()
    drill.wait_for("checkpoints/window-000004.ckpt", process)
    os.kill(child_of(process), signal.SIGTERM)
    stopped = finished(process)
    assert stopped.status == 128 + signal.SIGTERM
    assert stopped.line("stopped by") == f"stopped by SIGTERM. {drill.last} stands: go on with --ckpt_path last."
    assert 4 < drill.saved[0] < 8
    assert drill.here("--ckpt_path", "last", *ONE_PROCESS) == 0
    check_like_one_process(unbroken, drill)


@pytest.mark.slow
def test_a_run_whose_first_process_is_killed_leaves_no_other(prepared: Prepared, tmp_path: Path) -> None:
    drill = in_two_processes(prepared, tmp_path)
    process = drill.start()
    drill.wait_for("checkpoints/window-000004.ckpt", process)
    process.kill()
    _, errors = process.communicate(timeout=45)  # the other one has the pipe until it ends
    assert ": a process of this run was lost (" in Ended(process.returncode, errors).line("error: ")
    assert drill.saved[0] >= 4


# SLURM --------------------------------------------------------------------------------------------

JOB = {"JOB_ID": "4711", "JOB_NAME": "judge", "NTASKS": "1", "NTASKS_PER_NODE": "1", "NNODES": "1"}
TASK = {"PROCID": "0", "LOCALID": "0", "NODEID": "0", "NODELIST": "localhost"}


def test_the_documented_job_is_queued_again_and_goes_on(prepared: Prepared, unbroken: Drill, tmp_path: Path) -> None:
    """docs/failures.md's script, started twice: `srun` and `scontrol` are ours, the plugin is Lightning's."""
    drill = Drill(prepared, tmp_path / "run")
    (script,) = re.findall(r"```bash\n(#!.*?)```", FAILURES.read_text(), flags=re.DOTALL)
    assert "#SBATCH --signal=USR1@" in script
    _, _, config = drill.write()
    (tmp_path / "job.sh").write_text(script.replace("configs/lcb.yaml", config))
    for name, text in {
        "srun": f'echo $$ > {tmp_path}/pid; exec "$@"',
        "python": f'exec {sys.executable} "$@"',
        "scontrol": f'echo "$@" >> {tmp_path}/scontrol.log',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {f"SLURM_{name}": value for name, value in {**JOB, **TASK}.items()}
    environment["PATH"] = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"

    job = started(["bash", str(tmp_path / "job.sh")], environment)
    drill.wait_for("checkpoints/window-000004.ckpt", job)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGUSR1)
    stopped = finished(job)
    assert stopped.status == 128 + signal.SIGUSR1
    stands = f"{drill.last} stands: go on with --ckpt_path last."
    assert stopped.line("stopped by") == f"stopped by SIGUSR1. {stands} SLURM has queued job 4711 again."
    assert (tmp_path / "scontrol.log").read_text() == "requeue 4711\n"
    assert 4 < drill.saved[0] < 8
    assert not list(drill.directory.rglob("hpc_ckpt*")), "Lightning writes no second kind of checkpoint"

    ended = finished(started(["bash", str(tmp_path / "job.sh")], environment))
    assert ended.status == 0, ended.errors[-3000:]
    assert (tmp_path / "scontrol.log").read_text() == "requeue 4711\n", "a job that is done is not queued again"
    check_same_end(unbroken, drill)
