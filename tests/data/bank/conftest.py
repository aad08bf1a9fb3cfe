"""Programs of the bank, run in another process: mutants of our own code, so no sandbox is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

RunPrograms = Callable[[Sequence[tuple[Mapping[str, str], str]]], list[bool]]
"""[(row, program), ...] -> whether each passes all tests of its row."""


@pytest.fixture(scope="session")
def run_programs() -> RunPrograms:
    return _run_programs


def _run_programs(programs: Sequence[tuple[Mapping[str, str], str]]) -> list[bool]:
    jobs = [[code, json.loads(row["metadata"]).get("func_name"), _tests(row)] for row, code in programs]
    script = Path(__file__).with_name("run_programs.py")
    done = subprocess.run(
        [sys.executable, str(script)],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    passed: list[bool] = json.loads(done.stdout)
    return passed


def _tests(row: Mapping[str, str]) -> list[list[str]]:
    tests = json.loads(row["public_test_cases"]) + json.loads(row["private_test_cases"])
    return [[test["input"], test["output"]] for test in tests]
