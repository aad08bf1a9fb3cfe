"""TRL's trainers, as small as they get, and our batches of the tokens that they train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from daj_lightning.judge import Judge
from daj_lightning.records import JudgeBatch
from daj_lightning.training.cold_start import train_tokenizer

Tokens = Sequence[Sequence[int]]


class Oracle(NamedTuple):
    """A trainer of TRL's, and our judge around the very model that it trains."""

    trainer: Any
    judge: Judge


def oracle(
    trainer_class: type, config_class: type, directory: Path, architecture: Qwen3Config, **arguments: Any
) -> Oracle:
    """`arguments` go to the trainer, but for `rows`, its data, and `config`, arguments of its configuration."""
    tokenizer: PreTrainedTokenizerFast = train_tokenizer(["which one passes? the first, the second"], 300)
    architecture.vocab_size = len(tokenizer)
    architecture.initializer_range = 0.1
    torch.manual_seed(0)
    judge = Judge(base="test", lora_r=4, lora_alpha=8)
    config = config_class(
        str(directory),
        **{"report_to": [], "bf16": False, "use_cpu": True, "gradient_checkpointing": False, **arguments.pop("config")},
    )
    trainer = trainer_class(
        Qwen3ForCausalLM(architecture),  # plain: TRL would take an adapter for the reference
        args=config,
        train_dataset=Dataset.from_list(arguments.pop("rows")),
        processing_class=tokenizer,
        peft_config=judge.lora,
        **arguments,
    )
    judge.model = trainer.model
    return Oracle(trainer, judge)


def rows_of(prompts: Tokens, responses: Tokens, num_samples: int, **fields: Any) -> JudgeBatch:
    """Rows of these tokens, padded on the right with 0."""
    length = max(len(p) + len(r) for p, r in zip(prompts, responses, strict=True))
    ids = torch.zeros(len(prompts), length, dtype=torch.int64)
    attended, scored = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool)
    for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        end = len(prompt) + len(response)
        ids[i, :end] = torch.tensor([*prompt, *response])
        attended[i, :end] = True
        scored[i, len(prompt) : end] = True
    return JudgeBatch(torch.arange(num_samples), torch.arange(num_samples) % 3, ids, attended, scored, **fields)


def with_reference(judge: Judge, batch: JudgeBatch) -> JudgeBatch:
    with judge.reference():
        return replace(batch, reference_logp=judge.response_logp(batch))


def gradient(loss: Tensor, judge: Judge) -> Tensor:
    """(P,)"""
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, judge.trained_parameters())])


class Errors(NamedTuple):
    value: float
    gradient: float


def errors(ours: Tensor, theirs: Tensor, judge: Judge) -> Errors:
    """Largest differences: of the losses, and of their gradients in units of the largest entry."""
    got, wanted = gradient(ours.sum(), judge), gradient(theirs.sum(), judge)
    assert wanted.abs().max() > 1e-4, "a gradient worth comparing"
    found = Errors(
        float((ours - theirs).detach().abs().max()), float((got - wanted).abs().max() / wanted.abs().max().clamp(max=1))
    )
    print("\nerrors", found)
    return found
