"""An engine that loads its model itself, as one on another machine does, and notes what it is asked."""

from __future__ import annotations

from collections.abc import Sequence

from daj_lightning.judge.model import load_causal_lm
from daj_lightning.rollout import Policy, Rollout, RolloutEngine, RolloutError, Sampling, TransformersEngine


class Elsewhere(RolloutEngine):
    """Answers as TransformersEngine does with the weights that it read.

    Args:
        fails_at: number of the call of `generate` that fails, from 0 on; None: none does.
        refuses: `sync` fails.
    """

    def __init__(self, fails_at: int | None = None, refuses: bool = False) -> None:
        self.fails_at = fails_at
        self.refuses = refuses
        self.policies: list[Policy] = []
        """One for each `connect`."""
        self.asked: list[tuple[list[list[int]], Sampling]] = []
        self.num_closed = 0

    def connect(self, policy: Policy) -> None:
        self.policies.append(policy)
        dtype = str(policy.model.dtype).removeprefix("torch.")
        self.inner = TransformersEngine()
        self.inner.connect(policy._replace(model=load_causal_lm(policy.base, dtype, "sdpa")))

    def sync(self, version: int) -> None:
        if self.refuses:
            raise RolloutError("no room.")
        self.inner.sync(version)

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Rollout]]:
        if len(self.asked) == self.fails_at:
            raise RolloutError("the server is gone.")
        self.asked.append(([list(prompt) for prompt in prompts], sampling))
        return self.inner.generate(prompts, sampling)

    def health(self) -> bool:
        return True

    def close(self) -> None:
        self.num_closed += 1
