"""A tiny base on disk with its judge, and what a rollout of it must be: for tests with vLLM."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from daj_lightning.judge import Judge
from daj_lightning.rollout import Policy, Rollout, Sampling, VllmServer
from daj_lightning.rollout.adapters import Adapter

VARIABLE = "DAJ_VLLM_PYTHON"
needs_vllm = [
    pytest.mark.vllm,
    pytest.mark.skipif(VARIABLE not in os.environ, reason=f"{VARIABLE} is not set: `make vllm-env`, `make test-vllm`"),
]
PAD, EOS, VOCAB = 0, 1, 96
BLOCK = 128
"""Tokens in a block of vLLM's prefix cache on a CPU; a shorter prompt is never cached."""
SAMPLED = Sampling(max_new_tokens=16, temperature=1.0, num_samples=4)
OFFLINE = {"HF_HUB_OFFLINE": "1"}


def make_policy(directory: Path, seed: int = 0, **architecture: int) -> tuple[Judge, Policy]:
    """A random Qwen3 in `directory`, and a judge over it whose adapters are far from 0; float32."""
    torch.manual_seed(seed)
    config = {
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 512,
        "initializer_range": 0.1,
    }
    Qwen3ForCausalLM(Qwen3Config(**{**config, **architecture})).save_pretrained(directory)
    judge = Judge(str(directory), "float32", lora_r=4, lora_alpha=8)
    judge.load()
    move(judge, seed)
    return judge, Policy(judge.policy, str(directory), EOS, PAD)


def move(judge: Judge, seed: int) -> None:
    """Adapters drawn anew, so far from the last ones that log-probabilities change by nats."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in judge.trained_parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))


def prompts(number: int, length: int = BLOCK + 40, seed: int = 5) -> list[list[int]]:
    """With one long beginning, as the prompts of one template have."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randint(2, VOCAB, (length - 4,), generator=generator).tolist()
    return [shared + torch.randint(2, VOCAB, (4,), generator=generator).tolist() for _ in range(number)]


@torch.no_grad()
def error(
    judge: Judge, asked: Sequence[Sequence[int]], answered: Sequence[Sequence[Rollout]], temperature: float = 1.0
) -> float:
    """The largest difference of a rollout's log-probabilities to those of a plain forward pass, nats."""
    worst = 0.0
    for prompt, group in zip(asked, answered, strict=True):
        for rollout in group:
            ids = torch.tensor([[*prompt, *rollout.token_ids]])
            logp = (judge.policy(input_ids=ids).logits[0].float() / temperature).log_softmax(-1)
            expected = logp[len(prompt) - 1 : -1].gather(1, ids[0, len(prompt) :, None]).squeeze(1)
            worst = max(worst, float((expected - torch.tensor(rollout.logps)).abs().max()))
    return worst


class ReusesPath(VllmServer):
    """What must not be done: every version in the same place, under the same name."""

    def sync(self, version: int) -> None:
        assert self.store is not None
        for old in self.loaded:
            self.api.unload(old)
            self.store.delete(old)
        self.loaded.clear()
        only = self.store.directory / "only"
        self.store.place = lambda number: Adapter("only", only, number)  # type: ignore[method-assign]
        super().sync(version)
