"""Tiny judges, batches and runs of the architecture that the paper trains."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from transformers import Qwen3Config, Qwen3ForCausalLM

from daj_lightning.bilevel import DomainWeights
from daj_lightning.data import JudgeData, Source, TemplatedResponses
from daj_lightning.judge import Judge, Reward
from daj_lightning.records import Candidate, JudgeBatch, Judgment, Problem, TestCase
from daj_lightning.rollout import Sampling
from daj_lightning.training import AtomicCheckpointIO, DataReweightedJudge, Level, WindowCheckpoint


def make_judge(
    config: Qwen3Config, *, attention: str = "sdpa", base_dtype: torch.dtype = torch.float32, seed: int = 0
) -> Judge:
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
        for parameter in judge.trained_parameters():
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


class ToySource(Source):
    """Eighteen problems "print n plus k" over the three periods and two domains, four candidates each."""

    def load(self) -> tuple[list[Problem], list[Candidate]]:
        dates = [date(2024, 3, 1)] * 8 + [date(2024, 9, 1)] * 6 + [date(2025, 3, 1)] * 4
        problems = [
            Problem(
                problem_id=f"plus-{k}",
                title=f"Plus {k}",
                statement=f"Read n and print n plus {k}.",
                platform="atcoder",
                difficulty="easy" if k % 2 else "hard",
                release_date=released,
                starter_code="",
                function_name=None,
                public_tests=(TestCase("1", str(1 + k)),),
                hidden_tests=(TestCase("0", str(k)), TestCase("-5", str(k - 5))),
            )
            for k, released in enumerate(dates, start=1)
        ]
        programs = (
            "print(int(input()) + {k})",
            "n = int(input())\nprint(n + {k})",
            "print(int(input()) - {k})",
            "print({k} + 1)",
        )
        candidates = [
            Candidate(f"{p.problem_id}/{i}", p.problem_id, "toy", program.format(k=p.problem_id.split("-")[1]))
            for p in problems
            for i, program in enumerate(programs)
        ]
        return problems, candidates

    def description(self) -> dict[str, object]:
        return {"source": "toy"}


class Vowels(Reward):
    """Share of vowels in the response: the tiny judge, after twenty steps of cold start, earns nothing by selecting."""

    def __call__(self, judgment: Judgment) -> float:
        return sum(letter in "aeiou" for letter in judgment.response) / (1 + len(judgment.response))


TOY_DOMAINS = ("atcoder-easy", "atcoder-hard")
TINY_ARCHITECTURE = {
    "model_type": "qwen3",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}


def toy_data(root: Path, base: Path, **overrides: Any) -> JudgeData:
    arguments: dict[str, Any] = {
        "source": ToySource(),
        "responses": TemplatedResponses(),
        "root": str(root),
        "tokenizer": str(base),
        "template": "compact",
        "domains": TOY_DOMAINS,
        "num_inner": 4,
        "num_meta": 2,
        "max_windows": 6,
        "max_length": 256,
    }
    return JudgeData(**{**arguments, **overrides})


def toy_module(
    base: Path, kind: type[DataReweightedJudge] = DataReweightedJudge, **overrides: Any
) -> DataReweightedJudge:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {
        "judge": Judge(str(base), "float32", lora_r=4, lora_alpha=8),
        "inner": Level(lr=1e-3, schedule="cosine", warmup_steps=2),
        "outer": Level(lr=1e-2, optimizer="lazy_adam"),
        "reweighter": DomainWeights(),
        "outer_warmup_windows": 1,
        "max_norm": 1.0,
        "sampling": Sampling(max_new_tokens=12),
    }
    return kind(**{**arguments, **overrides})


def toy_trainer(directory: Path, callbacks: Sequence[Callback] = (), **overrides: Any) -> Trainer:
    arguments: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "logger": False,
        "enable_progress_bar": False,
        "limit_val_batches": 0,
        "enable_model_summary": False,
        "enable_checkpointing": any(isinstance(c, WindowCheckpoint) for c in callbacks),
        "default_root_dir": str(directory),
        "plugins": [AtomicCheckpointIO()],
        "callbacks": list(callbacks),
    }
    return Trainer(**{**arguments, **overrides})


def toy_config(root: Path, base: Path, directory: Path) -> dict[str, Any]:
    """The same as a configuration file, for the command line: six windows, in seconds."""
    return {
        "trainer": {
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "default_root_dir": str(directory),
            "callbacks": [
                {
                    "class_path": "daj_lightning.training.WindowCheckpoint",
                    "init_args": {"dirpath": str(directory / "checkpoints"), "every_n_windows": 2},
                },
                {
                    "class_path": "daj_lightning.evaluation.Scoreboard",
                    "init_args": {"path": str(directory / "scores.json")},
                },
                {"class_path": "daj_lightning.evaluation.BeforeAfter", "init_args": {"directory": str(directory)}},
            ],
        },
        "model": {
            "judge": {
                "class_path": "daj_lightning.judge.Judge",
                "init_args": {"base": str(base), "base_dtype": "float32", "lora_r": 4, "lora_alpha": 8},
            },
            "reweighter": {"class_path": "daj_lightning.bilevel.DomainWeights"},
            "inner": {"lr": 1e-3},
            "outer": {"lr": 1e-2, "optimizer": "lazy_adam"},
            "outer_warmup_windows": 1,
            "sampling": {"max_new_tokens": 12},
        },
        "data": {
            "source": {"class_path": "tiny.ToySource"},
            "responses": {"class_path": "daj_lightning.data.TemplatedResponses"},
            "root": str(root),
            "template": "compact",
            "domains": list(TOY_DOMAINS),
            "num_inner": 4,
            "num_meta": 2,
            "max_windows": 6,
            "max_length": 256,
        },
    }
