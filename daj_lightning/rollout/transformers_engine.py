"""Rollouts by the model that trains, in this process: nothing to copy, so nothing can be stale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from daj_lightning.records import DajError
from daj_lightning.rollout.engine import Policy, Rollout, RolloutEngine, Sampling


class TransformersEngine(RolloutEngine):
    """Rolls out by `model.generate`.

    Args:
        batch_size: prompts generated together; sorted by length first, so that little is padding.
    """

    needs_weights = True

    def __init__(self, batch_size: int = 32) -> None:
        if batch_size < 1:
            raise DajError(f"TransformersEngine needs batch_size >= 1, got {batch_size}.")
        self.batch_size = batch_size
        self.version = 0

    def connect(self, policy: Policy) -> None:
        self.model = policy.model
        self.eos_token_id = policy.eos_token_id
        self.pad_token_id = policy.pad_token_id

    def sync(self, version: int) -> None:
        """Only notes the number: the weights are the trained ones themselves."""
        self.version = version

    def health(self) -> bool:
        return True

    def close(self) -> None:
        pass

    @torch.no_grad()
    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Rollout]]:
        was_training = self.model.training
        self.model.eval()
        by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        rollouts: dict[int, list[Rollout]] = {}
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices):  # training must not depend on how often it was evaluated
                torch.manual_seed(sampling.seed)
                for start in range(0, len(by_length), self.batch_size):
                    chunk = by_length[start : start + self.batch_size]
                    answers = self._generate_chunk([prompts[i] for i in chunk], sampling)
                    rollouts.update(zip(chunk, answers, strict=True))
        finally:
            self.model.train(was_training)
        return [rollouts[i] for i in range(len(prompts))]

    def _generate_chunk(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Rollout]]:
        input_ids, attention_mask = self._pad_left(prompts)
        greedy = sampling.temperature == 0
        config = GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            do_sample=not greedy,
            temperature=None if greedy else sampling.temperature,
            top_p=None if greedy else sampling.top_p,
            top_k=None if greedy else sampling.top_k,
            num_return_sequences=sampling.num_samples,
            eos_token_id=self.eos_token_id,
            pad_token_id=self.pad_token_id,
            return_dict_in_generate=True,
        )
        recorder = _TokenLogps(1.0 if greedy else sampling.temperature)
        processors: list[LogitsProcessor] = [recorder]  # first: before penalties; and temperature only comes after
        if sampling.repetition_penalty != 1:
            processors.append(_RepetitionPenalty(sampling, attention_mask))
        # `generate` fills every gap of its argument from the model's own recommendation; greedy would not be greedy.
        recommended, self.model.generation_config = self.model.generation_config, config
        try:
            output = self.model.generate(  # type: ignore[operator]  # a method; torch types attributes as Tensor
                input_ids=input_ids,
                attention_mask=attention_mask,
                generation_config=config,
                logits_processor=LogitsProcessorList(processors),
            )
        finally:
            self.model.generation_config = recommended
        new_ids = output.sequences[:, input_ids.size(1) :]
        logps = recorder.finish(output.sequences)
        rows = [self._rollout(ids, row_logps) for ids, row_logps in zip(new_ids, logps, strict=True)]
        n = sampling.num_samples
        return [rows[i : i + n] for i in range(0, len(rows), n)]

    def _pad_left(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        length = max(map(len, prompts))
        input_ids = torch.full((len(prompts), length), self.pad_token_id, dtype=torch.int64)
        attention_mask = torch.zeros_like(input_ids)
        for row, prompt in enumerate(prompts):
            input_ids[row, length - len(prompt) :] = torch.tensor(list(prompt))
            attention_mask[row, length - len(prompt) :] = 1
        return input_ids.to(self.model.device), attention_mask.to(self.model.device)

    def _rollout(self, ids: Tensor, logps: Tensor) -> Rollout:
        ended = (ids == self.eos_token_id).nonzero()
        length = int(ended[0]) + 1 if len(ended) else len(ids)
        return Rollout(
            token_ids=tuple(ids[:length].tolist()),
            logps=tuple(logps[:length].tolist()),
            finish_reason="stop" if len(ended) else "length",
            policy_version=self.version,
        )


class _RepetitionPenalty(LogitsProcessor):
    """Makes tokens of the prompt and of the text so far less likely; padding is no part of the prompt."""

    def __init__(self, sampling: Sampling, attention_mask: Tensor) -> None:
        self.penalty = sampling.repetition_penalty
        self.is_prompt = attention_mask.bool().repeat_interleave(sampling.num_samples, dim=0)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        length = self.is_prompt.size(1)
        last = input_ids[:, length - 1 : length]  # of the prompt; padding stands on the left
        prompt = torch.where(self.is_prompt, input_ids[:, :length], last)
        seen = torch.cat([prompt, input_ids[:, length:]], dim=1)
        logits = scores.gather(1, seen)
        return scores.scatter(1, seen, torch.where(logits > 0, logits / self.penalty, logits * self.penalty))


class _TokenLogps(LogitsProcessor):
    """Keeps the log-probability of each token that was drawn, and one step's logits instead of all of them."""

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature
        self._last: Tensor | None = None
        self._logps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._score(input_ids)
        self._last = (scores.float() / self._temperature).log_softmax(dim=-1)
        return scores

    def finish(self, sequences: Tensor) -> Tensor:
        """(R, T) float32, nats."""
        self._score(sequences)
        return torch.stack(self._logps, dim=1)

    def _score(self, input_ids: Tensor) -> None:
        if self._last is not None:
            self._logps.append(self._last.gather(1, input_ids[:, -1:]).squeeze(1))
