"""A judge that trains all of its parameters: its reference is a frozen copy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from daj_lightning.bilevel import FlatView, RecomputedLoss
from daj_lightning.judge import Judge
from daj_lightning.objectives import ORPO
from daj_lightning.records import DajError
from tiny import make_batch


@pytest.fixture
def judge(tiny_config: Qwen3Config) -> Judge:
    torch.manual_seed(0)
    tiny_config.tie_word_embeddings = True
    judge = Judge("test", "float32", trains="everything")
    judge.adapt(Qwen3ForCausalLM(tiny_config))
    return judge


@torch.no_grad()
def move(judge: Judge) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in judge.trained_parameters():
        parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def test_every_parameter_trains_once_and_the_copy_none(judge: Judge) -> None:
    assert {id(p) for p in judge.trained_parameters()} == {id(p) for p in judge.causal_lm.parameters()}
    assert len(judge.trained_parameters()) == len(set(map(id, judge.trained_parameters()))), "tied weights count once"
    assert judge.frozen is not None
    assert not any(p.requires_grad for p in judge.frozen.parameters())


def test_the_reference_is_the_judge_as_it_began(judge: Judge) -> None:
    batch = make_batch(3)
    start, named = judge.response_logp(batch).detach(), judge.fingerprint()
    move(judge)
    moved = judge.response_logp(batch).detach()
    assert not torch.allclose(moved, start)
    with judge.reference():
        assert torch.equal(judge.response_logp(batch), start)
        assert not judge.response_logp(batch).requires_grad
    assert torch.equal(judge.response_logp(batch).detach(), moved)
    assert judge.fingerprint() == named, "a cache of reference log-probabilities stays valid"


def test_a_loss_at_other_parameters_moves_tied_weights_together(judge: Judge) -> None:
    """What the jvp engine differentiates: the same as moving the parameters themselves."""
    batch, recomputed = make_batch(2), RecomputedLoss(judge, ORPO())
    flat = FlatView(judge.trained_parameters())
    before = flat.gather(flat.parameters)
    move(judge)
    phi, wanted = flat.gather(flat.parameters), ORPO()(judge, batch).detach()
    with torch.no_grad():
        for parameter, value in zip(flat.parameters, flat.split(before), strict=True):
            parameter.copy_(value)
    torch.testing.assert_close(recomputed.at(phi, batch).detach(), wanted)


def test_the_exported_model_is_the_judge(judge: Judge, tmp_path: Path) -> None:
    move(judge)
    judge.export(tmp_path)
    ids = make_batch(1).input_ids
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(plain(input_ids=ids).logits, judge.policy(input_ids=ids).logits)


def test_a_bfloat16_base_is_refused() -> None:
    with pytest.raises(DajError, match=r"trains everything, of a bfloat16 base.* Set base_dtype to float32"):
        Judge("test", "bfloat16", trains="everything")
