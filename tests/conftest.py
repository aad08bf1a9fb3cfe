"""Shared by every test: one thread, and a tiny config of the architecture that the paper trains."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from transformers import Qwen3Config

import float64
from daj_lightning.data.prepare import prepare
from daj_lightning.kernels.dispatch import extension
from daj_lightning.training import ColdStart
from tiny import TINY_ARCHITECTURE, toy_data

torch.set_num_threads(1)  # two threads on a loaded 2-core machine run up to ten times slower
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job; whom tests start would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def tiny_config() -> Qwen3Config:
    return Qwen3Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=128,
    )


class Prepared(NamedTuple):
    """Toy data executed and labelled, and a base for it."""

    root: Path
    base: Path


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    directory = tmp_path_factory.mktemp("prepared")
    data = toy_data(directory / "data", directory / "base")
    prepare(data.preparation, data.root)
    cold_start = ColdStart(TINY_ARCHITECTURE, vocab_size=320, steps=20, max_length=256)
    cold_start.run(data.root / "train.jsonl", directory / "base")
    return Prepared(directory / "data", directory / "base")


@pytest.fixture
def true_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """float64 judges whose norms and softmax are float64 too."""
    float64.compute_in_float64(monkeypatch.setattr)


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
