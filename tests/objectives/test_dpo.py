"""DPO, one number per pair, equal to TRL's."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config
from trl import DPOConfig, DPOTrainer

from daj_lightning.objectives import DPO, PairLogProbs, dpo_loss
from daj_lightning.records import DajError
from objectives.trl_oracle import errors, oracle, rows_of, with_reference
from tiny import make_batch, make_judge, randomize_adapters

ROWS = [
    {"prompt": "which one passes?", "chosen": " the first", "rejected": " the second of both"},
    {"prompt": "and here, which?", "chosen": " second, second, second", "rejected": " first"},
    {"prompt": "one", "chosen": " the", "rejected": " which"},
]


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


@pytest.mark.parametrize("nll_weight", [0.0, 0.2])
def test_the_loss_equals_trls(nll_weight: float, tiny_config: Qwen3Config, tmp_path: Path) -> None:
    """The same text through TRL's trainer and through ours, adapters away from their start; pairs weighted by alpha."""
    config = {"beta": 0.3, "loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, nll_weight]}
    trainer, judge = oracle(DPOTrainer, DPOConfig, tmp_path, tiny_config, rows=ROWS, config=config)
    randomize_adapters(judge, scale=0.15)
    data, alpha = trainer.train_dataset, torch.tensor([0.5, 2.0, 1.3])
    wanted = torch.stack([trainer.compute_loss(trainer.model, trainer.data_collator([row])) for row in data])

    prompts = [row["prompt_ids"] for row in data for _ in range(2)]
    responses = [row[side] for row in data for side in ("chosen_ids", "rejected_ids")]
    losses = DPO(beta=0.3, nll_weight=nll_weight)(judge, with_reference(judge, rows_of(prompts, responses, 3)))
    assert losses.std() > 1e-2, "the pairs differ"
    assert max(errors(alpha * losses, alpha * wanted, judge)) <= 1e-5
