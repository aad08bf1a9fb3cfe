"""DPO, one number per pair, equal to TRL's."""

from __future__ import annotations

import math

import pytest
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from trl import DPOConfig, DPOTrainer

from daj_lightning.judge import Judge
from daj_lightning.objectives import DPO, PairLogProbs, dpo_loss
from daj_lightning.records import DajError
from daj_lightning.training.cold_start import train_tokenizer
from tiny import make_batch, make_judge


def test_a_pair_costs_ln_2_while_the_judge_equals_its_reference(tiny_config: Qwen3Config) -> None:
    judge = make_judge(tiny_config)
    batch = make_batch(3)
    with judge.reference():
        batch.reference_logp.copy_(judge.response_logp(batch))
    torch.testing.assert_close(DPO()(judge, batch).detach(), torch.full((3,), math.log(2)))


def test_it_follows_equation_7() -> None:
    logp = PairLogProbs(*(torch.tensor([v]) for v in (-1.0, -4.0, -2.0, -3.0)))
    margin = (-1.0 + 2.0) - (-4.0 + 3.0)
    expected = -math.log(1 / (1 + math.exp(-0.1 * margin)))
    assert float(dpo_loss(logp, beta=0.1)) == pytest.approx(expected)


def test_beta_must_be_positive() -> None:
    with pytest.raises(DajError, match="beta > 0"):
        DPO(beta=0.0)


def test_a_batch_of_pairs_equals_the_pairs_alone(tiny_config: Qwen3Config) -> None:
    judge = make_judge(tiny_config)
    batch = make_batch(4)
    alone = torch.cat([DPO()(judge, sample) for sample in batch.micro_batches()])
    torch.testing.assert_close(DPO()(judge, batch), alone)


def test_the_loss_equals_trls(tiny_config: Qwen3Config, tmp_path) -> None:
    """The same text through TRL's trainer and through ours, adapters away from their start."""
    tokenizer: PreTrainedTokenizerFast = train_tokenizer(["which one passes? the first, the second"], 300)
    tiny_config.vocab_size = len(tokenizer)
    torch.manual_seed(0)
    base = Qwen3ForCausalLM(tiny_config)
    rows = [
        {"prompt": "which one passes?", "chosen": "the first", "rejected": "the second of both"},
        {"prompt": "and here, which?", "chosen": "second", "rejected": "first"},
    ]
    judge = Judge(base="test", lora_r=4, lora_alpha=8)
    arguments = DPOConfig(str(tmp_path), beta=0.1, report_to=[], bf16=False, use_cpu=True, disable_dropout=True)
    trainer = DPOTrainer(
        base, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, peft_config=judge.lora
    )
    judge.model = trainer.model
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in judge.adapter_parameters():
            p += 0.05 * torch.randn(p.shape, generator=generator)
    (inputs,) = [trainer.data_collator([trainer.train_dataset[i] for i in range(2)])]
    wanted = trainer.compute_loss(trainer.model, inputs)

    batch = make_batch(2)
    fields = {
        "input_ids": inputs["input_ids"],
        "attention_mask": inputs["attention_mask"].bool(),
        "response_mask": inputs["completion_mask"].bool(),
    }
    for name, value in fields.items():
        object.__setattr__(batch, name, value)
    with judge.reference():
        object.__setattr__(batch, "reference_logp", judge.response_logp(batch))
    losses = DPO(beta=0.1)(judge, batch)
    assert losses.std() > 1e-4, "the two pairs differ"
    torch.testing.assert_close(losses.mean(), wanted, rtol=1e-5, atol=1e-5)
