"""The extension, or why a test of it is skipped."""

from __future__ import annotations

import os

import pytest
import torch

from daj_lightning.kernels.dispatch import extension


@pytest.fixture
def ext() -> None:
    """Needs the extension. CI sets DAJ_REQUIRE_EXT=1, so that there it cannot be missing unnoticed."""
    if extension().library is None:
        report = pytest.fail if os.environ.get("DAJ_REQUIRE_EXT") == "1" else pytest.skip
        report(f"no extension: {extension().reason}")


@pytest.fixture
def cuda() -> None:
    """Needs the extension's CUDA half and a GPU."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if not extension().has_cuda:
        report = pytest.fail if os.environ.get("DAJ_REQUIRE_EXT") == "1" else pytest.skip
        report(f"no CUDA half: {extension().reason}")
