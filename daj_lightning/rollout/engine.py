"""Rollouts: prompts in, text and token log-probabilities out.

An engine is told when the policy changed (`sync`) and stamps every rollout with the version that wrote
it, so that no text can come silently from a stale policy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from daj_lightning.records import DajError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


class RolloutError(DajError):
    """No rollouts, or none that can be trusted; a run saves itself before it stops."""


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
    """As they were drawn, the end-of-turn token included."""
    logps: tuple[float, ...]
    """Of each token under softmax(logits / temperature), nats: before top-p, top-k and penalties; greedy: at 1.
    NaN where the engine cannot know them."""
    finish_reason: str
    """"stop" (end-of-turn token) or "length"."""
    policy_version: int
    """The version given to the last `sync`."""

    @property
    def text_ids(self) -> tuple[int, ...]:
        """Without the end-of-turn token."""
        return self.token_ids[:-1] if self.finish_reason == "stop" else self.token_ids


class Policy(NamedTuple):
    """What an engine rolls out."""

    model: PreTrainedModel | PeftModel
    """In this process; an engine elsewhere reads its adapters at every `sync`."""
    base: str
    """Directory or hub name of the base."""
    eos_token_id: int
    """The tokenizer's end of turn; ends a rollout, and nothing else does."""
    pad_token_id: int


class RolloutEngine(ABC):
    """The seam between a judge and whatever generates its text.

    Rollouts for training have top_p = 1, top_k = 0 and no penalty, so that `Rollout.logps` are of the distribution that
    they were drawn from.
    """

    overlaps: bool = False
    """`generate` may run in a thread of its own while the judge trains."""
    needs_weights: bool = False
    """`generate` runs `Policy.model`. Of any other engine's only shapes, dtype and adapters are read: a base that does
    not train may come to it without weights, on the meta device."""

    needs_adapters: bool = False
    """A new version reaches it as adapters, so that a judge which trains everything cannot use it."""

    @abstractmethod
    def connect(self, policy: Policy) -> None:
        """Once, before all else. Rollouts are of the policy as it is at the first `sync`.

        Raises:
            RolloutError: the engine cannot start, or serves another model.
        """

    @abstractmethod
    def sync(self, version: int) -> None:
        """From here on, roll out the policy as it is now, as version `version`.

        Raises:
            RolloutError: the engine did not take it within its time limit.
        """

    @abstractmethod
    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Rollout]]:
        """`sampling.num_samples` rollouts for each prompt of token ids, in the prompts' order.

        Raises:
            RolloutError: no answer within the time limit, or one that is no rollout of this policy.
        """

    @abstractmethod
    def health(self) -> bool:
        """Whether `generate` can be expected to answer; asks, and repairs nothing."""

    @abstractmethod
    def close(self) -> None:
        """Stop whatever `connect` started; a second call does nothing."""
