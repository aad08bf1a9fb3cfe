"""Groups of responses to one question: what they earned, and their rows of tokens.

A group is a sample of GRPO: G responses to one prompt, or to both orders of its candidates, half to each. They are
compared among each other, so that a group in which all earned the same teaches nothing.
Letters: B samples, G responses a sample, R = B G rows, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from daj_lightning.judge import EncodedResponse, Reward, judge_response, pad_right
from daj_lightning.records import Comparison, JudgeBatch, Judgment, PromptBatch
from daj_lightning.rollout import Rollout, RolloutError

Decode = Callable[[Sequence[int]], str]
"""Token ids of a response, without the end of turn -> its text."""


class Group(NamedTuple):
    """One sample with its responses; the responses to one prompt stand together."""

    sample_id: int
    domain: int
    prompts: tuple[tuple[int, ...], ...]
    """(G,) token ids, one for each response."""
    rollouts: tuple[Rollout, ...]
    """(G,)."""
    rewards: tuple[float, ...]
    """(G,)."""

    @property
    def is_flat(self) -> bool:
        """All earned the same."""
        return min(self.rewards) == max(self.rewards)


def groups_of(
    prompts: PromptBatch, rollouts: Sequence[Sequence[Rollout]], decode: Decode, reward: Reward, consistency: float
) -> list[Group]:
    """Judge the responses to each sample's prompts.

    Args:
        rollouts: of each prompt, samples' prompts one after the other.
        consistency: earned by a response beside its reward where it, and the response of the same number to the
            other order of the candidates, are both right (J1, Whitehouse et al. 2025).
    Raises:
        RolloutError: a response of no token, or a reward that is no finite number.
    """
    remaining = iter(rollouts)
    groups = []
    for sample_id, domain, comparisons, own in zip(
        prompts.sample_ids.tolist(), prompts.domains.tolist(), prompts.comparisons, prompts.prompts, strict=True
    ):
        answers = [next(remaining) for _ in own]
        judgments = [
            [_judge(comparison, rollout, decode) for rollout in answer]
            for comparison, answer in zip(comparisons, answers, strict=True)
        ]
        rewards = [[_reward(reward, judgment) for judgment in row] for row in judgments]
        if consistency:
            for j, both in enumerate(zip(*judgments, strict=True)):
                if all(judgment.reward == 1 for judgment in both):
                    for row in rewards:
                        row[j] += consistency
        groups.append(
            Group(
                sample_id,
                domain,
                tuple(prompt for prompt, answer in zip(own, answers, strict=True) for _ in answer),
                tuple(rollout for answer in answers for rollout in answer),
                tuple(value for row in rewards for value in row),
            )
        )
    return groups


def _judge(comparison: Comparison, rollout: Rollout, decode: Decode) -> Judgment:
    if not rollout.token_ids:
        raise RolloutError(
            f"an empty completion for {comparison.problem_id}: the engine returned no token, not even the end of the "
            f"turn. Check model.rollouts.engine, and that max_new_tokens leaves room."
        )
    return judge_response(comparison, decode(rollout.text_ids))


def _reward(reward: Reward, judgment: Judgment) -> float:
    value = reward(judgment)
    if isinstance(value, bool | int | float) and math.isfinite(value):
        return float(value)
    raise RolloutError(
        f"{type(reward).__name__} gave {value!r} to a response about {judgment.comparison.problem_id}; wanted a finite "
        f"number. The response: {judgment.response[-200:]!r}. Correct model.rollouts.reward."
    )


def batch_of(
    groups: Sequence[Group], temperature: float, pad_id: int, mask: Callable[[Group, Rollout], bool]
) -> JudgeBatch:
    """The groups as token rows.

    Args:
        temperature: at which they were drawn.
        mask: whether a response's tokens are left out of the loss; its reward still counts in its group.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    prompts = [prompt for group in groups for prompt in group.prompts]
    rows = [EncodedResponse(prompt, rollout.token_ids, 0) for prompt, rollout in zip(prompts, rollouts, strict=True)]
    input_ids, attention_mask, response_mask = pad_right(rows, pad_id)
    sampled_logp = torch.zeros(input_ids.shape)
    sampled_logp[response_mask] = torch.tensor([logp for rollout in rollouts for logp in rollout.logps])
    masked = torch.tensor([mask(group, rollout) for group in groups for rollout in group.rollouts])
    return JudgeBatch(
        sample_ids=torch.tensor([group.sample_id for group in groups]),
        domains=torch.tensor([group.domain for group in groups]),
        input_ids=input_ids,
        attention_mask=attention_mask,
        response_mask=response_mask & ~masked[:, None],
        rewards=torch.tensor([reward for group in groups for reward in group.rewards]),
        sampled_logp=sampled_logp.masked_fill(masked[:, None], 0.0),
        temperature=temperature,
    )


def statistics(groups: Sequence[Group]) -> dict[str, float]:
    """What a log should say of them."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    rewards = torch.tensor([group.rewards for group in groups])
    return {
        "reward": float(rewards.mean()),
        "reward_spread": float(rewards.std(dim=1, correction=0).mean()),
        "flat_groups": sum(group.is_flat for group in groups) / len(groups),
        "response_tokens": sum(len(rollout.token_ids) for rollout in rollouts) / len(rollouts),
        "truncated": sum(rollout.finish_reason == "length" for rollout in rollouts) / len(rollouts),
    }


def spread(groups: Sequence[Group], number: int) -> list[Group]:
    """Up to `number` responses, evenly spread, as groups of one."""
    every = [(group, j) for group in groups for j in range(len(group.rollouts))]
    step = max(len(every) // number, 1)
    return [
        Group(g.sample_id, g.domain, g.prompts[j : j + 1], g.rollouts[j : j + 1], g.rewards[j : j + 1])
        for g, j in every[::step][:number]
    ]
