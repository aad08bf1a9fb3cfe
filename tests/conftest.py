"""Shared by every test: one thread, and a tiny config of the architecture that the paper trains."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen3Config

torch.set_num_threads(1)  # two threads on a loaded 2-core machine run up to ten times slower


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
