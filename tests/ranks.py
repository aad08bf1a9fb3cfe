"""Starts ranks_run.py, in this process or in two, and reads what it left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import float64
import ranks_run
from conftest import Prepared

RUN = Path(ranks_run.__file__)


def start(prepared: Prepared, strategy: str, runs: list[dict[str, Any]], out: Path) -> Path:
    """The directory with what the runs left; in this process if one is enough."""
    shutil.rmtree(prepared.root / "reference", ignore_errors=True)  # so that its passes are dealt out too
    plan = {"root": str(prepared.root), "base": str(prepared.base), "out": str(out), "strategy": strategy}
    if strategy == "single":
        with pytest.MonkeyPatch.context() as patch:
            float64.compute_in_float64(patch.setattr)
            for run in runs:
                ranks_run.run(plan, run)
        return out
    path = out / "plan.json"
    path.write_text(json.dumps({**plan, "runs": runs}))
    environment = {**os.environ, "PYTHONPATH": f"{RUN.parents[1]}{os.pathsep}{RUN.parent}"}
    done = subprocess.run(
        [sys.executable, str(RUN), str(path)], env=environment, capture_output=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return out


def left(directory: Path, name: str) -> dict[str, Any]:
    """By the first process."""
    return torch.load(directory / f"{name}.pt", weights_only=True)


def distance(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Relative, in the norm."""
    if not wanted.any():
        return float(got.abs().max())
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())
