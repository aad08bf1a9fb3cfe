"""tools/gpu_check.py reports what its commands did; the commands themselves need a GPU."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "gpu_check.py"


@pytest.fixture(scope="module")
def gpu_check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("script", "limit_s", "outcome"),
    [
        ("echo first; echo last", 60, "passed in"),
        ("echo first; echo last; exit 4", 60, "FAILED with status 4"),
        ("echo first; echo last; sleep 600 & wait", 0.5, "FAILED: not done after 0.5 s"),
    ],
)
def test_a_command_that_fails_or_hangs_fails_its_section(
    gpu_check: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    script: str,
    limit_s: float,
    outcome: str,
):
    log = tmp_path / "log"
    passed = gpu_check.run(gpu_check.Check("Section", ["sh", "-c", script], shown=4), log, limit_s)
    report = capsys.readouterr().out
    assert passed == outcome.startswith("passed")
    assert f"## Section: {outcome}" in report
    assert ("```\nlast\n```" in report) == passed, "a section that passed shows the end of its output only"
    assert "first\nlast" in log.read_text()


def test_a_check_that_cannot_run_is_owed(gpu_check: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert gpu_check.run(gpu_check.Check("Races", None, "compute-sanitizer is not installed"), tmp_path / "log", 1)
    assert "## Races: OWED\n\ncompute-sanitizer is not installed." in capsys.readouterr().out


def test_every_script_that_it_runs_exists(gpu_check: ModuleType, tmp_path: Path):
    words = [word for check in gpu_check.checks(tmp_path).values() for word in check.command or ()]
    scripts = {word for word in words if word.startswith(("tools/", "tests/"))}
    assert {"tools/check_ptxas.py", "tools/bench_kernels.py", "tools/bench_step.py"} <= scripts
    assert [script for script in scripts if not (gpu_check.ROOT / script).exists()] == []
