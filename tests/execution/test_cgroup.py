"""Control groups: ours are bounded, nobody else's is touched, and no limit is escaped through them."""

import os
import subprocess
from pathlib import Path

import pytest

from daj_lightning.execution import cgroup


@pytest.fixture
def parents():
    found = cgroup.find()
    if found is None:
        pytest.skip("no control group can be made here")
    return found


def test_what_still_runs_in_a_group_ends_with_it(parents):
    group = parents.create(1 << 28, 16)
    sleeper = subprocess.Popen(["sleep", "60"])
    group.add(sleeper.pid)
    group.remove()
    assert sleeper.wait(timeout=5) == -9
    assert not any(directory.exists() for directory in group.directories)


def test_of_what_is_left_over_only_our_own_dead_hosts_groups_are_removed(parents):
    dead = subprocess.Popen(["true"])
    dead.wait()
    names = {
        f"{cgroup.own_prefix()}{dead.pid}-{'0' * 12}": False,  # a host that was killed
        f"{cgroup.own_prefix()}{os.getpid()}-{'0' * 12}": True,  # a host that lives
        f"{cgroup.PREFIX}1-{dead.pid}-{'0' * 12}": True,  # of another PID namespace
        "daj-nightly-eval": True,  # somebody else's
    }
    try:
        for name in names:
            (parents.pids / name).mkdir()
        cgroup.remove_left_over(parents)
        assert {name: (parents.pids / name).exists() for name in names} == names
    finally:
        for name in names:
            if (parents.pids / name).exists():
                (parents.pids / name).rmdir()


@pytest.mark.parametrize(
    ("limits", "reached"),
    [
        ({}, ["a/b/c", "a/b", "a", "."]),
        ({"a/b/c/memory.max": "1000"}, ["a/b/c"]),
        ({"a/b/memory.high": "1000", "a/b/c/cpu.max": "max 100000"}, ["a/b/c", "a/b"]),
        ({"a/pids.max": "7"}, ["a/b/c", "a/b", "a"]),
        ({"a/b/c/cpu.max": "5000 100000"}, ["a/b/c"]),
    ],
)
def test_no_program_is_put_outside_a_group_that_limits_its_host(tmp_path: Path, limits, reached):
    """The files of version 2, in an ordinary directory."""
    own = tmp_path / "a/b/c"
    own.mkdir(parents=True)
    for name, text in limits.items():
        (tmp_path / name).write_text(text + "\n")
    assert cgroup.unlimited_up(own, tmp_path) == [tmp_path / part for part in reached]
