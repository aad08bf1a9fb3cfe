"""From rollouts to rewards and rows, written out by hand."""

from __future__ import annotations

import pytest
import torch

from asking import A, B, comparison
from daj_lightning.judge import SelectionReward
from daj_lightning.records import PromptBatch
from daj_lightning.rollout import Rollout
from daj_lightning.training.groups import Group, batch_of, groups_of, statistics

END = 9
TEXT = {1: "<selection>1</selection>", 2: "<selection>2</selection>", 3: "no idea"}


def rollout(word: int, logp: float = -1.0, reason: str = "stop", version: int = 4) -> Rollout:
    ids = (word, END) if reason == "stop" else (word, word, word)
    return Rollout(ids, (logp,) * len(ids), reason, version)


def decode(token_ids: tuple[int, ...]) -> str:
    return TEXT[token_ids[0]]


AB, BA = comparison((True, False), (A, B)), comparison((False, True), (B, A))
SINGLE = PromptBatch(torch.tensor([7]), torch.tensor([2]), ((AB,),), (((5, 5),),))
BOTH = PromptBatch(torch.tensor([8]), torch.tensor([1]), ((AB, BA),), (((5, 5), (6, 6, 6)),))


def test_a_response_earns_what_eq_1_says() -> None:
    (group,) = groups_of(SINGLE, [[rollout(1), rollout(2), rollout(3)]], decode, SelectionReward(), 0.0)
    assert group.rewards == (1.0, 0.5, 0.0)
    assert (group.sample_id, group.domain) == (7, 2)
    assert not group.is_flat
    assert statistics([group])["reward"] == pytest.approx(0.5)


def test_a_judge_of_positions_has_a_spread_over_both_orders() -> None:
    """Always the first: right in one order and wrong in the other, so that the group can tell it off."""
    answers = [[rollout(1), rollout(1)], [rollout(1), rollout(1)]]
    (group,) = groups_of(BOTH, answers, decode, SelectionReward(), 0.0)
    assert group.rewards == (1.0, 1.0, 0.5, 0.5)
    assert group.prompts == ((5, 5), (5, 5), (6, 6, 6), (6, 6, 6))


def test_consistency_is_earned_where_both_orders_are_answered_right() -> None:
    """Right candidate: A, shown first in AB and second in BA. Consistently wrong earns nothing."""
    answers = [[rollout(1), rollout(2), rollout(1)], [rollout(2), rollout(1), rollout(1)]]
    (group,) = groups_of(BOTH, answers, decode, SelectionReward(), 0.25)
    assert group.rewards == (1.25, 0.5, 1.0, 1.25, 0.5, 0.5)


def test_rows_hold_prompt_response_and_what_the_engine_thought_of_it() -> None:
    group = Group(7, 2, ((5, 5), (6, 6, 6)), (rollout(1, -0.5), rollout(2, -0.25, "length")), (1.0, 0.5))
    batch = batch_of([group], temperature=0.7, pad_id=0, mask=lambda *_: False)
    assert batch.input_ids.tolist() == [[5, 5, 1, END, 0, 0], [6, 6, 6, 2, 2, 2]]
    assert batch.response_mask.int().tolist() == [[0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1]]
    assert batch.sampled_logp is not None
    assert batch.sampled_logp.tolist() == [[0, 0, -0.5, -0.5, 0, 0], [0, 0, 0, -0.25, -0.25, -0.25]]
    assert batch.rewards is not None
    assert (batch.rewards.tolist(), batch.temperature, batch.rows_per_sample) == ([1.0, 0.5], 0.7, 2)


def test_a_masked_response_keeps_its_reward_and_loses_its_tokens() -> None:
    group = Group(7, 2, ((5,), (5,)), (rollout(1), rollout(2, reason="length")), (1.0, 0.5))
    batch = batch_of([group], 1.0, 0, mask=lambda group, one: one.finish_reason == "length")
    assert batch.response_mask.any(dim=1).tolist() == [True, False]
    assert batch.rewards is not None
    assert batch.rewards.tolist() == [1.0, 0.5]


def test_statistics_count_flat_groups_and_cut_responses() -> None:
    flat = Group(0, 0, ((5,), (5,)), (rollout(1), rollout(1, reason="length")), (0.5, 0.5))
    other = Group(1, 0, ((5,), (5,)), (rollout(1), rollout(2)), (1.0, 0.5))
    assert statistics([flat, other]) == {
        "reward": 0.625,
        "reward_spread": 0.125,
        "flat_groups": 0.5,
        "response_tokens": 2.25,
        "truncated": 0.25,
    }
