"""Tiny judges and batches of the architecture that the paper trains."""

from __future__ import annotations

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from daj_lightning.judge import Judge
from daj_lightning.records import JudgeBatch


def make_judge(config: Qwen3Config, *, attention: str = "sdpa", base_dtype: torch.dtype = torch.float32, seed: int = 0) -> Judge:
    """A random judge with LoRA; adapters at their own initial values (B = 0)."""
    torch.manual_seed(seed)
    config._attn_implementation = attention
    judge = Judge(base="test", lora_r=4, lora_alpha=8, attention=attention)
    judge.adapt(Qwen3ForCausalLM(config).to(base_dtype))
    return judge


def randomize_adapters(judge: Judge, scale: float = 0.05, seed: int = 1) -> None:
    """Leave LoRA's B = 0, where half of all gradients vanish."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in judge.adapter_parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def make_batch(num_samples: int, *, length: int = 12, response: int = 4, vocab: int = 64, seed: int = 2) -> JudgeBatch:
    """Random pairs: the last `response` tokens of each row are the response."""
    generator = torch.Generator().manual_seed(seed)
    rows = 2 * num_samples
    response_mask = torch.zeros(rows, length, dtype=torch.bool)
    response_mask[:, -response:] = True
    return JudgeBatch(
        sample_ids=torch.arange(num_samples),
        domains=torch.arange(num_samples) % 3,
        input_ids=torch.randint(0, vocab, (rows, length), generator=generator),
        attention_mask=torch.ones(rows, length, dtype=torch.bool),
        response_mask=response_mask,
        reference_logp=-8 + torch.randn(rows, generator=generator),
    )
