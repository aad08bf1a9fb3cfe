"""SFT, one number per chosen response, equal to TRL's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import Qwen3Config
from trl import SFTConfig, SFTTrainer

from daj_lightning.objectives import SFT
from objectives.trl_oracle import errors, oracle, rows_of
from tiny import make_judge, randomize_adapters

ROWS = [
    {"prompt": "which one passes?", "completion": " the first"},
    {"prompt": "and here, which?", "completion": " the second of both"},
    {"prompt": "which?", "completion": " second"},
]


def test_the_loss_equals_trls(tiny_config: Qwen3Config, tmp_path: Path) -> None:
    """Row by row, since TRL's is a mean over the tokens of its batch; rows weighted by alpha."""
    trainer, judge = oracle(SFTTrainer, SFTConfig, tmp_path, tiny_config, rows=ROWS, config={})
    randomize_adapters(judge, scale=0.15)
    alpha, inputs = torch.tensor([0.5, 2.0, 1.3]), [trainer.data_collator([row]) for row in trainer.train_dataset]
    tokens, labels = [i["input_ids"][0].tolist() for i in inputs], [i["labels"][0].tolist() for i in inputs]
    wanted = torch.stack([trainer.compute_loss(trainer.model, i) for i in inputs])

    starts = [row.count(-100) for row in labels]
    prompts = [row[:start] for row, start in zip(tokens, starts, strict=True)]
    responses = [row[start:] for row, start in zip(tokens, starts, strict=True)]
    losses = SFT()(judge, rows_of(prompts, responses, 3))
    assert losses.std() > 1e-2
    assert max(errors(alpha * losses, alpha * wanted, judge)) <= 1e-5


@pytest.mark.usefixtures("true_float64")
def test_it_is_cross_entropy_on_the_response(tiny_config: Qwen3Config) -> None:
    judge = make_judge(tiny_config).double()
    randomize_adapters(judge)
    batch = rows_of([[5, 6, 7], [8]], [[8, 9], [10, 11, 12, 13]], 2)
    logits = judge.causal_lm(batch.input_ids, attention_mask=batch.attention_mask.long()).logits
    labels = batch.input_ids.masked_fill(~batch.response_mask, -100)
    wanted = torch.stack([F.cross_entropy(logits[i, :-1], labels[i, 1:]) for i in range(2)])
    torch.testing.assert_close(SFT()(judge, batch), wanted, rtol=1e-12, atol=0)
