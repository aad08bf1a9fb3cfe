"""Log-probabilities, the reference, and what the judge refuses."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from daj_lightning.judge import Judge, check_adapter_dtype
from daj_lightning.judge.tokens import load_tokenizer
from daj_lightning.records import DajError
from tiny import make_batch, make_judge, randomize_adapters


def test_log_probabilities_are_those_of_the_whole_distribution(tiny_config: Qwen3Config) -> None:
    """Scoring only the response's positions equals softmax over every position, then gather."""
    judge = make_judge(tiny_config)
    randomize_adapters(judge)
    batch = make_batch(2, length=10, response=3)
    batch.response_mask[1, -1] = False  # rows of different response lengths
    logits = judge.policy(input_ids=batch.input_ids).logits.log_softmax(-1)
    expected = [
        sum(float(logits[r, t - 1, batch.input_ids[r, t]]) for t in range(10) if batch.response_mask[r, t])
        for r in range(4)
    ]
    torch.testing.assert_close(judge.response_logp(batch).detach(), torch.tensor(expected))


CHANGED_LOGITS = {
    "gemma2": {"final_logit_softcapping": 0.5},  # logits of a random model stay below one, and these reach the cap
    "granite": {"logits_scaling": 3.0},
    "cohere": {"logit_scale": 4.0},
    "cohere2": {"logit_scale": 4.0},
}


@pytest.mark.parametrize("trains", ["adapters", "everything"])
@pytest.mark.parametrize("family", CHANGED_LOGITS)
def test_a_base_that_changes_its_logits_is_scored_by_its_own(family: str, trains: str) -> None:
    """With a frozen head in one pass, with a trained one by its logits: both as transformers computes them."""
    judge = Judge(base=family, lora_r=4, base_dtype="float32", trains=trains)
    judge.adapt(tiny_causal_lm(family, **CHANGED_LOGITS[family]))
    batch, temperature = make_batch(2), 0.7
    logits = judge.policy(input_ids=batch.input_ids).logits
    assert (logits.max() - logits.min()).item() > 0.3  # else every change of the logits would look the same
    logp = (logits / temperature).log_softmax(-1)[:, :-1].gather(2, batch.input_ids[:, 1:, None]).squeeze(2)
    got = judge.token_logp(batch.input_ids, batch.attention_mask, batch.response_mask, temperature)
    torch.testing.assert_close(got, logp[batch.response_mask[:, 1:]], rtol=1e-5, atol=1e-5)


def test_a_change_of_logits_that_nobody_tested_is_refused(tiny_config: Qwen3Config) -> None:
    config = copy.deepcopy(tiny_config)
    config.logits_scaling = 2.0
    with pytest.raises(DajError, match=r"logits by \['logits_scaling'\].*for a qwen3"):
        Judge(base="test").adapt(Qwen3ForCausalLM(config))


def test_an_adapter_on_the_head_is_refused(tiny_config: Qwen3Config) -> None:
    judge, batch = make_judge(tiny_config), make_batch(1)
    judge.lora.target_modules = {"q_proj", "lm_head"}
    judge.model = get_peft_model(Qwen3ForCausalLM(tiny_config), judge.lora)
    with pytest.raises(DajError, match="leave lm_head out of lora_targets"):
        judge.response_logp(batch)


def tiny_causal_lm(family: str, **settings: float) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        vocab_size=64,
        pad_token_id=0,
        initializer_range=0.1,
        **settings,
    )
    return AutoModelForCausalLM.from_config(config)


def test_padding_changes_no_log_probability(tiny_config: Qwen3Config) -> None:
    judge = make_judge(tiny_config)
    batch = make_batch(1, length=8)
    padded = make_batch(1, length=12)
    for name, fill in (("input_ids", 0), ("attention_mask", False), ("response_mask", False)):
        value = getattr(padded, name).fill_(fill)
        value[:, :8] = getattr(batch, name)
    torch.testing.assert_close(judge.response_logp(padded), judge.response_logp(batch))


def test_the_reference_is_the_judge_without_its_adapters(tiny_config: Qwen3Config) -> None:
    judge, batch = make_judge(tiny_config), make_batch(2)
    start = judge.response_logp(batch).detach()  # B = 0
    randomize_adapters(judge)
    assert not torch.allclose(judge.response_logp(batch), start)
    with judge.reference():
        reference = judge.response_logp(batch)
    assert not reference.requires_grad
    torch.testing.assert_close(reference, start)


def test_adapters_are_float32_over_a_bfloat16_base(tiny_config: Qwen3Config) -> None:
    judge = make_judge(tiny_config, base_dtype=torch.bfloat16)
    assert {p.dtype for p in judge.trained_parameters()} == {torch.float32}
    assert judge.causal_lm.get_output_embeddings().weight.dtype is torch.bfloat16
    assert all(not p.requires_grad for n, p in judge.named_parameters() if "lora_" not in n)


def test_adapters_in_bfloat16_are_refused_with_the_share_of_updates_lost() -> None:
    adapter = nn.Parameter((0.02 * torch.randn(4096, generator=torch.Generator().manual_seed(0))).to(torch.bfloat16))
    with pytest.raises(DajError, match=r"bfloat16; they must be float32.*9\d\.\d%.*32-true"):
        check_adapter_dtype([adapter])


def test_a_lora_target_that_matches_nothing_is_refused(tiny_config: Qwen3Config) -> None:
    judge = Judge(base="test", lora_targets=["q_proj", "query_key_value"])
    with pytest.raises(DajError, match=r"\['query_key_value'\] match no linear layer.*q_proj"):
        judge.adapt(Qwen3ForCausalLM(tiny_config))


def test_an_unreachable_model_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else it retries for a while
    with pytest.raises(DajError, match="cannot load the weights of 'no/such-model'") as caught:
        Judge(base="no/such-model").load()
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_chat_template_is_refused(tmp_path: Path) -> None:
    from daj_lightning.training.cold_start import train_tokenizer

    tokenizer = train_tokenizer(["text"], 300)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(DajError, match="no chat template"):
        load_tokenizer(str(tmp_path))


def test_an_exported_judge_is_a_plain_peft_adapter(tiny_config: Qwen3Config, tmp_path: Path) -> None:
    judge, batch = make_judge(tiny_config), make_batch(1)
    torch.manual_seed(0)
    Qwen3ForCausalLM(tiny_config).save_pretrained(tmp_path / "base")
    judge = Judge(base=str(tmp_path / "base"), base_dtype="float32", lora_r=4, lora_alpha=8)
    judge.load()
    randomize_adapters(judge)
    judge.export(tmp_path / "judge")
    assert json.loads((tmp_path / "judge" / "adapter_config.json").read_text())["r"] == 4
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "judge")
    torch.testing.assert_close(plain(input_ids=batch.input_ids).logits, judge.policy(input_ids=batch.input_ids).logits)
