"""Packed rows compute what padded rows compute."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Qwen3Config

from daj_lightning.judge import Judge
from daj_lightning.judge.packed import pack
from daj_lightning.records import DajError, JudgeBatch
from tiny import make_batch, make_judge, randomize_adapters

IDS = torch.tensor(
    [
        [5, 6, 7, 1, 2, 0],  # chosen: prompt 5 6 7, response 1 2
        [5, 6, 7, 1, 3, 4],  # rejected: begins like it with four tokens
        [8, 9, 1, 0, 0, 0],  # another pair, its rows the same
        [8, 9, 1, 0, 0, 0],
    ]
)
LENGTHS = torch.tensor([5, 6, 3, 3])
MASK = torch.arange(6) < LENGTHS[:, None]


def test_rows_of_a_sample_share_what_they_begin_with_and_padding_is_gone() -> None:
    packed = pack(IDS, MASK, rows_per_sample=2)
    assert packed.input_ids.tolist() == [[5, 6, 7, 1, 2, 3, 4, 8, 9, 1]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 4, 4, 5, 0, 1, 2]]
    assert packed.rows[0, 0].tolist() == [
        [0, 5, 0, 0],
        [5, 2, 0, 4],  # two tokens of its own after the first row's first four
        [7, 3, 7, 0],
        [10, 0, 7, 3],  # nothing of its own
    ]
    assert packed.sample_lengths == [7, 3]
    assert packed.token_index[1].tolist() == [0, 1, 2, 3, 5, 6]


def test_rows_of_different_samples_share_nothing() -> None:
    packed = pack(IDS[2:], MASK[2:], rows_per_sample=1)
    assert packed.input_ids.tolist() == [[8, 9, 1, 8, 9, 1]]
    assert packed.sample_lengths == [3, 3]


def pairs() -> JudgeBatch:
    """Five pairs of random lengths; the rows of each begin alike, but for the last."""
    batch = make_batch(5, length=20, response=6)
    ids, mask, response = batch.input_ids.clone(), batch.attention_mask.clone(), batch.response_mask.clone()
    ids[1:-1:2, :14] = ids[0:-2:2, :14].clone()
    for row, length in enumerate([20, 17, 15, 16, 20, 20, 18, 15, 17, 19]):
        mask[row, length:] = response[row, length:] = False
    return replace(batch, input_ids=ids, attention_mask=mask, response_mask=response)


@pytest.mark.usefixtures("true_float64")
@pytest.mark.parametrize("groups", [1, 4, 8], ids=["heads share none", "two heads a key", "all heads a key"])
def test_log_probabilities_and_gradients_are_those_of_padded_rows(tiny_config: Qwen3Config, groups: int) -> None:
    tiny_config.num_attention_heads, tiny_config.num_key_value_heads = 8, 8 // groups
    judge = make_judge(tiny_config).double()
    randomize_adapters(judge)
    batch = pairs()

    def both() -> tuple[Tensor, Tensor]:
        logp = judge.response_logp(batch)
        weights = torch.linspace(-1, 1, len(logp), dtype=torch.float64)
        gradients = torch.autograd.grad(logp @ weights, judge.trained_parameters())
        return logp.detach(), torch.cat([g.flatten() for g in gradients])

    padded = both()
    judge.pack_rows()
    packed = both()
    assert judge.sample_lengths == [14 + 6 + 3, 14 + 1 + 2, 20 + 6, 14 + 4 + 1, 17 + 19]
    for one, other in zip(packed, padded, strict=True):
        assert float((one - other).norm() / other.norm()) <= 1e-13


@pytest.mark.usefixtures("true_float64")
def test_tokens_of_a_group_are_scored_as_in_padded_rows(tiny_config: Qwen3Config) -> None:
    """All rows of a group at once, some of them, and one alone."""
    judge = make_judge(tiny_config).double()
    randomize_adapters(judge)
    batch = pairs()
    batch = replace(batch, sample_ids=batch.sample_ids[:2], domains=batch.domains[:2], temperature=0.7)  # 2 of 5 rows
    chosen = (slice(None), slice(0, 3), slice(7, 8))
    padded = [judge.response_token_logp(batch, rows) for rows in chosen]
    judge.pack_rows()
    for rows, wanted in zip(chosen, padded, strict=True):
        torch.testing.assert_close(judge.response_token_logp(batch, rows), wanted, rtol=0, atol=1e-13)


def test_a_judge_that_packs_generates_as_before(tiny_config: Qwen3Config) -> None:
    judge = make_judge(tiny_config)
    randomize_adapters(judge)
    left = {"input_ids": IDS.flip(1), "attention_mask": MASK.flip(1).long()}
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    before = judge.policy.generate(**left, **options)
    judge.pack_rows()
    assert torch.equal(judge.policy.generate(**left, **options), before)


def test_models_that_mix_tokens_in_another_way_are_refused(tiny_config: Qwen3Config) -> None:
    with pytest.raises(DajError, match="attention 'eager'"):
        make_judge(tiny_config, attention="eager").pack_rows()
    tiny_config.layer_types = ["full_attention", "linear_attention"]
    judge = Judge("test")
    judge.model = make_judge(Qwen3Config(**(tiny_config.to_dict() | {"layer_types": None}))).model
    judge.causal_lm.config.layer_types = tiny_config.layer_types
    with pytest.raises(DajError, match="linear_attention"):
        judge.pack_rows()


def test_a_sliding_window_shorter_than_a_row_is_refused(tiny_config: Qwen3Config) -> None:
    settings = tiny_config.to_dict() | {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}
    judge = make_judge(Qwen3Config(**(settings | {"layer_types": None})))
    judge.pack_rows()
    with pytest.raises(DajError, match="attends to 8 at most"):
        judge.response_logp(pairs())


def test_a_judge_that_trains_everything_packs_its_frozen_copy_too(tiny_config: Qwen3Config) -> None:
    judge = Judge("random", "float32", trains="everything")
    judge.adapt(AutoModelForCausalLM.from_config(tiny_config))
    batch = make_batch(3)
    with judge.reference():
        padded = judge.response_logp(batch)
    judge.pack_rows()
    with judge.reference():
        torch.testing.assert_close(judge.response_logp(batch), padded, rtol=1e-5, atol=1e-5)
