"""Group relative policy optimization: one number per prompt with its group of responses.

A group's forwards may be cut into chunks: all that a row shares with its group, the advantage and what its
tokens are divided by, is known before any forward.
Letters: B samples, G rows of a group (the n of `JudgeBatch`), R = G B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from daj_lightning.judge import Judge
from daj_lightning.kernels import PolicyTerms, segment_offsets, segment_policy_loss
from daj_lightning.objectives.base import Objective
from daj_lightning.records import DajError, JudgeBatch

Normalization = Literal["grpo", "dr_grpo", "dapo"]
"""What a token's loss is divided by: see `row_divisors`."""
RewardScale = Literal["group", "none"]
"""Whether advantages are divided by the spread of their group's rewards."""


def group_advantages(rewards: Tensor, scale: RewardScale = "group") -> Tensor:
    """How much better each response is than its group (Shao et al. 2024, section 4.1.2).

    Args:
        rewards: (G,) of one group, G >= 2.
        scale: "group" divides by the unbiased standard deviation + 1e-4, as TRL does; "none" does not, so that
            prompts which are nearly solved or nearly hopeless do not weigh more (Liu et al. 2025).
    Returns:
        (G,); all 0 where the rewards are equal.
    """
    assert rewards.dim() == 1
    assert len(rewards) > 1, "a group needs two responses or more"
    advantages = rewards - rewards.mean()
    return advantages if scale == "none" else advantages / (rewards.std() + 1e-4)


def row_divisors(
    response_mask: Tensor, normalization: Normalization = "grpo", max_response_tokens: int | None = None
) -> Tensor:
    """What each row's sum of token losses is divided by, so that the sum over rows is the loss of the group.

    Args:
        response_mask: (G, T) bool, of one group. A row without any token counts in G and adds nothing.
        normalization: "grpo": a mean over the tokens of each response, then over the group (Shao et al. 2024, Eq. 3);
            "dr_grpo": a sum over G max_response_tokens, so that a token of a long wrong response costs as much as one
            of a short one (Liu et al. 2025); "dapo": a mean over the tokens of the group (Yu et al. 2025, Eq. 8).
        max_response_tokens: of "dr_grpo" alone.
    Returns:
        (G,) int64.
    """
    num_tokens = response_mask.sum(dim=1)
    group_size = len(num_tokens)
    if normalization == "grpo":
        return group_size * num_tokens.clamp(min=1)
    if normalization == "dapo":
        return num_tokens.sum().clamp(min=1).expand(group_size)
    assert max_response_tokens is not None
    return torch.full_like(num_tokens, group_size * max_response_tokens)


class GRPO(Objective):
    """The objective of one prompt with the responses that were drawn for it, from their verifiable rewards.

    Args:
        epsilon, epsilon_high, beta, unbiased_kl, importance_cap: see `grpo_token_loss`.
        normalization, max_response_tokens: see `row_divisors`; the latter is the limit of the rollouts.
        scale_rewards: see `group_advantages`.
        rows_per_forward: so many of a group's rows go through the judge together; None: all.
    """

    unit = "prompt"
    needs_repeatability = True

    def __init__(
        self,
        epsilon: float = 0.2,
        epsilon_high: float | None = None,
        beta: float = 0.0,
        unbiased_kl: bool = False,
        normalization: Normalization = "grpo",
        scale_rewards: RewardScale = "group",
        max_response_tokens: int | None = None,
        importance_cap: float | None = 3.0,
        rows_per_forward: int | None = None,
    ) -> None:
        if not 0 < epsilon < 1 or (epsilon_high is not None and epsilon_high <= 0):
            raise DajError(f"GRPO needs 0 < epsilon < 1 and epsilon_high > 0, got {epsilon} and {epsilon_high}.")
        if beta < 0:
            raise DajError(f"GRPO needs beta >= 0, got {beta}.")
        if normalization not in get_args(Normalization) or scale_rewards not in get_args(RewardScale):
            raise DajError(
                f"GRPO's normalization is one of {get_args(Normalization)} and scale_rewards one of "
                f"{get_args(RewardScale)}, got {normalization!r} and {scale_rewards!r}."
            )
        if (normalization == "dr_grpo") != (max_response_tokens is not None):
            raise DajError(
                f"GRPO's max_response_tokens goes with the normalization 'dr_grpo' and with no other, got "
                f"{max_response_tokens} with {normalization!r}. Set both or neither."
            )
        for name, value in {
            "max_response_tokens": max_response_tokens,
            "importance_cap": importance_cap,
            "rows_per_forward": rows_per_forward,
        }.items():
            if value is not None and value <= 0:
                raise DajError(f"GRPO needs {name} > 0 or none, got {value}.")
        self.epsilon = epsilon
        self.epsilon_high = epsilon_high
        self.beta = beta
        self.unbiased_kl = unbiased_kl
        self.normalization: Normalization = normalization
        self.scale_rewards: RewardScale = scale_rewards
        self.max_response_tokens = max_response_tokens
        self.importance_cap = importance_cap
        self.rows_per_forward = rows_per_forward

    def __call__(self, judge: Judge, batch: JudgeBatch) -> Tensor:
        """(B,) float32, differentiable in what the judge trains."""
        return torch.cat([torch.stack(list(self.parts(judge, sample))).sum(dim=0) for sample in batch.micro_batches()])

    def parts(self, judge: Judge, sample: JudgeBatch) -> Iterator[Tensor]:
        """One (1,) term for each chunk of the group's rows."""
        assert sample.rewards is not None
        advantages = group_advantages(sample.rewards, self.scale_rewards)
        divisors = row_divisors(sample.response_mask, self.normalization, self.max_response_tokens)
        for rows in self._chunks(sample):
            scored = sample.response_mask[rows]
            if not scored.any():  # rows that are masked out of the loss
                yield advantages.new_zeros(1)
                continue
            logp = judge.token_logp(
                sample.input_ids[rows],
                sample.attention_mask[rows],
                scored,
                sample.temperature,
                rows_per_sample=len(scored),
            )
            positions = scored.nonzero(as_tuple=True)
            terms = PolicyTerms(
                rows_per_sample=len(scored),
                advantages=advantages[rows],
                divisors=divisors[rows],
                old=_of(rows, positions, sample.old_logp),
                sampled=_of(rows, positions, sample.sampled_logp),
                reference=_of(rows, positions, sample.reference_token_logp),
                epsilon=self.epsilon,
                epsilon_high=self.epsilon_high,
                beta=self.beta,
                unbiased_kl=self.unbiased_kl,
                importance_cap=self.importance_cap,
            )
            yield segment_policy_loss(logp, segment_offsets(scored), terms)

    def anchor(self, judge: Judge, batch: JudgeBatch) -> JudgeBatch:
        """The batch with `old_logp` under the judge as it is, where it has none: ratios refer to it from now on."""
        return batch if batch.old_logp is not None else replace(batch, old_logp=self._token_logp(judge, batch))

    def prepare(self, judge: Judge, batch: JudgeBatch) -> JudgeBatch:
        """The batch with `reference_token_logp`, where beta asks for it and it is not there yet."""
        if self.beta == 0 or batch.reference_token_logp is not None:
            return batch
        with judge.reference():
            return replace(batch, reference_token_logp=self._token_logp(judge, batch))

    @torch.no_grad()
    def _token_logp(self, judge: Judge, batch: JudgeBatch) -> Tensor:
        """(R, T), chunk by chunk, each without the padding that other groups needed."""
        width = batch.input_ids.size(1)
        chunks = [
            judge.response_token_logp(sample, rows) for sample in batch.micro_batches() for rows in self._chunks(sample)
        ]
        return torch.cat([F.pad(chunk, (0, width - chunk.size(1))) for chunk in chunks])

    def _chunks(self, sample: JudgeBatch) -> Iterator[slice]:
        group_size = sample.rows_per_sample
        size = self.rows_per_forward or group_size
        for start in range(0, group_size, size):
            yield slice(start, start + size)


def _of(rows: slice, positions: tuple[Tensor, ...], values: Tensor | None) -> Tensor | None:
    """(N,) the scored tokens of these rows."""
    return None if values is None else values[rows][positions]
