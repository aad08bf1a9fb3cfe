"""Who writes the judge responses that become preference pairs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

import torch

from daj_lightning.judge import decode, encode_prompt, load_tokenizer, selection_tag
from daj_lightning.judge.model import load_causal_lm
from daj_lightning.records import Comparison, DajError
from daj_lightning.rollout import Sampling, TransformersEngine


class ResponseSource(Protocol):
    """Who writes the judge responses that become preference pairs."""

    def respond(self, comparisons: Sequence[Comparison]) -> list[list[str]]:
        """Several responses to each comparison."""
        ...

    def description(self) -> dict[str, object]: ...


class TemplatedResponses:
    """Responses written from templates: one for each possible selection, and now and then a format error.

    For a judge that cannot reason yet (a random-init model). The wording is drawn independently of which
    candidate is right, so that only the selection differs between chosen and rejected.

    Args:
        format_error_rate: share of comparisons whose wrong response breaks the format instead.
        seed: of the wording.
    """

    WORDINGS = ("I traced both programs.", "Checked each line.", "Edge cases decide here.", "One of them fails.")

    def __init__(self, format_error_rate: float = 0.05, seed: int = 0) -> None:
        if not 0 <= format_error_rate <= 1:
            raise DajError(f"format_error_rate is a share between 0 and 1, got {format_error_rate}.")
        self.format_error_rate = format_error_rate
        self.seed = seed

    def respond(self, comparisons: Sequence[Comparison]) -> list[list[str]]:
        return [self._respond(c) for c in comparisons]

    def _respond(self, comparison: Comparison) -> list[str]:
        rng = random.Random(f"{self.seed}/{'/'.join(comparison.candidate_ids)}")
        wording = rng.choice(self.WORDINGS)
        responses = [f"{wording} {selection_tag(k)}" for k in range(len(comparison.passed))]
        if rng.random() < self.format_error_rate:
            wrong = comparison.passed.index(False)
            responses[wrong] = f"{wording} {wrong + 1}"
        return responses

    def description(self) -> dict[str, object]:
        return {"responses": "templated", **vars(self)}


class SampledResponses:
    """Responses sampled from a judge model itself (the paper's way).

    Args:
        model: directory or hub name of an instruct model.
        num_responses: sampled for each comparison.
        temperature: of the draws.
        max_new_tokens: per response.
        batch_size: prompts generated together.
        seed: of the draws.
    """

    def __init__(
        self,
        model: str,
        num_responses: int = 8,
        temperature: float = 1.0,
        max_new_tokens: int = 2048,
        batch_size: int = 8,
        seed: int = 0,
    ) -> None:
        self.model = model
        self.batch_size = batch_size
        self.sampling = Sampling(max_new_tokens, temperature, num_samples=num_responses, seed=seed)

    def respond(self, comparisons: Sequence[Comparison]) -> list[list[str]]:
        tokenizer = load_tokenizer(self.model)
        model = load_causal_lm(self.model, "bfloat16", "sdpa")
        if torch.cuda.is_available():
            model.to("cuda")  # type: ignore[arg-type]  # transformers wraps the method
        engine = TransformersEngine(model, tokenizer.eos_token_id, tokenizer.pad_token_id, self.batch_size)
        prompts = [encode_prompt(tokenizer, c.prompt) for c in comparisons]
        rollouts = engine.generate(prompts, self.sampling)
        return [[decode(tokenizer, rollout.token_ids) for rollout in group] for group in rollouts]

    def description(self) -> dict[str, object]:
        return {
            "responses": "sampled",
            "model": self.model,
            "sampling": repr(self.sampling),
            "batch_size": self.batch_size,
        }
