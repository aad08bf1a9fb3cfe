"""Who writes the judge responses that become preference pairs.

A source answers one batch of comparisons at a time and keeps nothing of it: data/judged.py writes each
batch to disk before the next is asked for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from daj_lightning.data.frozen import frozen_policy, start
from daj_lightning.judge import decode, encode_prompt, load_tokenizer, selection_tag
from daj_lightning.records import Comparison, DajError
from daj_lightning.rollout import RolloutEngine, Sampling, TransformersEngine


@dataclass(frozen=True, slots=True)
class Response:
    """One answer of a judge, as it was written."""

    text: str
    finish_reason: str = "stop"
    """"stop", or "length": cut off at the limit of new tokens."""


@dataclass(frozen=True, slots=True)
class Responses:
    """All answers to one comparison."""

    responses: tuple[Response, ...]
    too_long: str = ""
    """Why the comparison was not asked: its prompt's length and the limit; empty mostly."""


class ResponseSource(Protocol):
    """Who writes the judge responses that become preference pairs."""

    batch_size: int
    """Comparisons that `respond` is given at once; what it writes may depend on how they are batched."""

    def respond(self, comparisons: Sequence[Comparison]) -> list[Responses]:
        """Several responses to each comparison of one batch."""
        ...

    def description(self) -> dict[str, object]:
        """JSON that changes whenever the responses would; "responses" names the kind."""
        ...

    def close(self) -> None:
        """All is answered: stop and free what `respond` started. A second call does nothing."""
        ...


class NoResponses:
    """No response at all: for GRPO, which asks the comparisons and draws its own."""

    batch_size = 256  # of no consequence

    def respond(self, comparisons: Sequence[Comparison]) -> list[Responses]:
        return [Responses(())] * len(comparisons)

    def description(self) -> dict[str, object]:
        return {"responses": "none"}

    def close(self) -> None:
        pass


WORDINGS = ("I traced both programs.", "Checked each line.", "Edge cases decide here.", "One of them fails.")


class TemplatedResponses:
    """Responses written from templates: one for each possible selection, and now and then a format error.

    For a judge that cannot reason yet (a random-init model). The wording is drawn independently of which
    candidate is right, so that only the selection differs between chosen and rejected.

    Args:
        format_error_rate: share of comparisons whose wrong response breaks the format instead.
        seed: of the wording.
        wordings: what stands before the selection, one drawn for each comparison.
    """

    batch_size = 256  # of no consequence to the responses

    def __init__(self, format_error_rate: float = 0.05, seed: int = 0, wordings: Sequence[str] = WORDINGS) -> None:
        if not wordings:
            raise DajError("TemplatedResponses needs one of wordings or more, got none.")
        if not 0 <= format_error_rate <= 1:
            raise DajError(f"format_error_rate is a share between 0 and 1, got {format_error_rate}.")
        self.format_error_rate = format_error_rate
        self.seed = seed
        self.wordings = list(wordings)

    def respond(self, comparisons: Sequence[Comparison]) -> list[Responses]:
        return [Responses(tuple(Response(text) for text in self._respond(c))) for c in comparisons]

    def _respond(self, comparison: Comparison) -> list[str]:
        rng = random.Random(f"{self.seed}/{'/'.join(comparison.candidate_ids)}")
        wording = rng.choice(self.wordings)
        responses = [f"{wording} {selection_tag(k)}" for k in range(len(comparison.passed))]
        if rng.random() < self.format_error_rate:
            wrong = comparison.passed.index(False)
            responses[wrong] = f"{wording} {wrong + 1}"
        return responses

    def description(self) -> dict[str, object]:
        return {"responses": "templated", **vars(self)}

    def close(self) -> None:
        pass


class SampledResponses:
    """Responses sampled from a judge model itself (the paper's way). The model is loaded at the first batch, once.

    An engine elsewhere, such as VllmServer, loads it there and not here. Where its draws do not repeat, the seed does
    not decide them.

    Args:
        model: directory or hub name of an instruct model.
        num_responses: sampled for each comparison.
        temperature: of the draws.
        max_new_tokens: per response.
        batch_size: prompts generated together.
        seed: of the draws.
        max_prompt_tokens: comparisons with longer prompts are not asked, and counted; None: what the model's
            context leaves beside max_new_tokens.
        engine: who rolls the model out, for one `prepare` or `pairs`; None: TransformersEngine with this batch_size.
    """

    def __init__(
        self,
        model: str,
        num_responses: int = 8,
        temperature: float = 1.0,
        max_new_tokens: int = 2048,
        batch_size: int = 8,
        seed: int = 0,
        max_prompt_tokens: int | None = None,
        engine: RolloutEngine | None = None,
    ) -> None:
        if batch_size < 1 or (max_prompt_tokens is not None and max_prompt_tokens < 1):
            raise DajError(f"batch_size={batch_size} and max_prompt_tokens={max_prompt_tokens} must be >= 1.")
        self.model = model
        self.batch_size = batch_size
        self.max_prompt_tokens = max_prompt_tokens
        self.engine = engine
        self.sampling = Sampling(max_new_tokens, temperature, num_samples=num_responses, seed=seed)

    def respond(self, comparisons: Sequence[Comparison]) -> list[Responses]:
        """The batch's draws are decided by the seed and the batch, wherever it stands in a run."""
        loaded = self._loaded
        prompts = [encode_prompt(loaded.tokenizer, c.prompt) for c in comparisons]
        fits = [prompt for prompt in prompts if len(prompt) <= loaded.max_prompt_tokens]
        rollouts = iter(loaded.engine.generate(fits, self._sampling(comparisons)) if fits else [])
        answers = []
        for prompt in prompts:
            if len(prompt) > loaded.max_prompt_tokens:
                limit = f"prompt of {len(prompt)} tokens, {loaded.max_prompt_tokens:.0f} fit"
                answers.append(Responses((), too_long=limit))
                continue
            texts = [Response(decode(loaded.tokenizer, r.text_ids), r.finish_reason) for r in next(rollouts)]
            answers.append(Responses(tuple(texts)))
        return answers

    def _sampling(self, comparisons: Sequence[Comparison]) -> Sampling:
        # One seed for all batches would give each the same stream of random numbers.
        named = f"{self.sampling.seed}/{[(c.problem_id, c.candidate_ids) for c in comparisons]}"
        seed = int.from_bytes(hashlib.sha256(named.encode()).digest()[:4])
        return dataclasses.replace(self.sampling, seed=seed)

    @cached_property
    def _loaded(self) -> _Loaded:
        engine = self.engine or TransformersEngine(self.batch_size)
        tokenizer = load_tokenizer(self.model)
        policy = frozen_policy(self.model, tokenizer, "bfloat16", engine.needs_weights)
        limit: float | None = self.max_prompt_tokens
        if limit is None:
            context = getattr(policy.model.config, "max_position_embeddings", None)  # some architectures have no limit
            limit = context - self.sampling.max_new_tokens if context else float("inf")
            if limit < 1:
                raise DajError(
                    f"{self.model!r} has a context of {context} tokens, and max_new_tokens="
                    f"{self.sampling.max_new_tokens} leaves no prompt. Lower max_new_tokens."
                )
        start(engine, policy)
        return _Loaded(tokenizer, engine, limit)

    def description(self) -> dict[str, object]:
        return {
            "responses": "sampled",
            "model": self.model,
            "sampling": repr(self.sampling),
            "batch_size": self.batch_size,
            "max_prompt_tokens": self.max_prompt_tokens,
            **({} if self.engine is None else {"engine": type(self.engine).__name__}),
        }

    def close(self) -> None:
        loaded = vars(self).pop("_loaded", None)  # where cached_property keeps it
        if loaded is not None:
            loaded.engine.close()


@dataclass(frozen=True, slots=True)
class _Loaded:
    tokenizer: PreTrainedTokenizerBase
    engine: RolloutEngine
    max_prompt_tokens: float
