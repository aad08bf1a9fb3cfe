"""Failure drills: each ends with one line that says what to do, and a state that goes on bit for bit.

Every run is `python -m daj_lightning fit` in a process of its own. docs/failures.md is what these tests keep true.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from conftest import Prepared
from drills import NUM_WINDOWS, Drill, check_same_end, finished


@pytest.fixture(scope="module")
def unbroken(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Drill:
    drill = Drill(prepared, tmp_path_factory.mktemp("unbroken"))
    ended = drill.run()
    assert ended.status == 0, ended.errors[-3000:]
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
    assert drill.run("--ckpt_path", "last").status == 0
    check_same_end(unbroken, drill)
    assert drill.logged() == unbroken.logged()
