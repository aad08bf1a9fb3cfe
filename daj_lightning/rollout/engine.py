"""Rollouts: prompts in, text and token log-probabilities out.

An engine is told when the policy changed (`sync`) and stamps every rollout with the version that wrote
it, so that no text can come silently from a stale policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from daj_lightning.records import DajError


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to decode."""

    max_new_tokens: int = 1024
    """Per rollout."""
    temperature: float = 0.0
    """0 decodes greedily."""
    top_p: float = 1.0
    """Keep 1 for training rollouts: log-probabilities are of the full distribution."""
    num_samples: int = 1
    """Rollouts per prompt."""
    seed: int = 0
    """Of the draws; unused when greedy."""
    top_k: int = 0
    """Draw among the likeliest k tokens; 0: among all. Keep 0 for training rollouts."""
    repetition_penalty: float = 1.0
    """Divides the positive and multiplies the negative logits of tokens that the prompt or the text so far has."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.num_samples < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise DajError(
                f"sampling needs max_new_tokens and num_samples >= 1, temperature >= 0 and 0 < top_p <= 1; got {self}."
            )
        if self.top_k < 0 or self.repetition_penalty <= 0:
            raise DajError(f"sampling needs top_k >= 0 (0: all tokens) and repetition_penalty > 0; got {self}.")
        if self.temperature == 0 and self.num_samples > 1:
            raise DajError(f"num_samples={self.num_samples} greedy rollouts would be alike; set temperature > 0.")


@dataclass(frozen=True, slots=True)
class Rollout:
    """One continuation of one prompt."""

    token_ids: tuple[int, ...]
    """Without the end-of-turn token."""
    logps: tuple[float, ...]
    """Of each token at temperature 1, nats."""
    finish_reason: str
    """"stop" (end-of-turn token) or "length"."""
    policy_version: int
    """The version given to the last `sync`."""


class RolloutEngine(Protocol):
    """The seam between a judge and whatever generates its text."""

    def sync(self, version: int) -> None:
        """From here on, roll out version `version` of the policy."""
        ...

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Rollout]]:
        """`sampling.num_samples` rollouts for each prompt of token ids, in the prompts' order."""
        ...

    def health(self) -> bool: ...

    def close(self) -> None: ...
