"""ORPO, one number per pair, equal to TRL's; its likelihood covers the response alone unless it is told otherwise."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from daj_lightning.objectives import ORPO, log1mexp, orpo_loss
from daj_lightning.records import DajError
from objectives.trl_oracle import errors, oracle, rows_of
from tiny import make_judge, randomize_adapters

ROWS = [
    {"prompt": "which one passes?", "chosen": " the first", "rejected": " the second of both"},
    {"prompt": "and here, which?", "chosen": " second, second, second", "rejected": " first"},
    {"prompt": "one", "chosen": " the", "rejected": " which"},
]


def test_the_loss_equals_trls(tiny_config: Qwen3Config, tmp_path: Path) -> None:
    """Pair by pair, since TRL's likelihood is a mean over the tokens of its batch; pairs weighted by alpha."""
    trainer, judge = oracle(
        ORPOTrainer, ORPOConfig, tmp_path, tiny_config, rows=ROWS, config={"beta": 0.3, "max_length": 64}
    )
    randomize_adapters(judge, scale=0.15)
    data, alpha = trainer.train_dataset, torch.tensor([0.5, 2.0, 1.3])
    wanted = torch.stack([trainer.compute_loss(trainer.model, trainer.data_collator([data[i]])) for i in range(3)])

    tokens = [data[i][f"{side}_input_ids"] for i in range(3) for side in ("chosen", "rejected")]
    starts = [data[i][f"{side}_labels"].count(-100) for i in range(3) for side in ("chosen", "rejected")]
    prompts = [row[:start] for row, start in zip(tokens, starts, strict=True)]
    responses = [row[start:] for row, start in zip(tokens, starts, strict=True)]
    assert len({len(r) for r in responses}) > 3
    losses = ORPO(beta=0.3, nll_on_prompt=True)(judge, rows_of(prompts, responses, 3))
    assert losses.std() > 1e-2
    assert max(errors(alpha * losses, alpha * wanted, judge)) <= 1e-5


@pytest.mark.usefixtures("true_float64")
def test_it_follows_equations_6_and_7(tiny_config: Qwen3Config) -> None:
    """Odds of the geometric mean of the tokens' probabilities, written out with plain logarithms."""
    judge = make_judge(tiny_config).double()
    randomize_adapters(judge)
    batch = rows_of([[5, 6, 7]] * 2, [[8, 9], [10, 11, 12, 13]], 1)
    logits = judge.causal_lm(batch.input_ids, attention_mask=batch.attention_mask.long()).logits.log_softmax(-1)
    token_logp = logits[:, :-1].gather(2, batch.input_ids[:, 1:, None]).squeeze(2)
    chosen, rejected = float(token_logp[0, 2:4].mean()), float(token_logp[1, 2:6].mean())
    odds = [math.exp(logp) / (1 - math.exp(logp)) for logp in (chosen, rejected)]
    ratio_term = -math.log(1 / (1 + odds[1] / odds[0]))
    assert float(ORPO(beta=0.3)(judge, batch)) == pytest.approx(-chosen + 0.3 * ratio_term, rel=1e-12)
    on_prompt = -float(token_logp[0, :4].mean())
    with_prompt = ORPO(beta=0.3, nll_on_prompt=True)(judge, batch)
    assert float(with_prompt) == pytest.approx(on_prompt + 0.3 * ratio_term, rel=1e-12)


def test_the_tokens_of_padding_do_not_count(tiny_config: Qwen3Config) -> None:
    judge = make_judge(tiny_config)
    batch = rows_of([[5, 6, 7]] * 2, [[8, 9], [10, 11, 12, 13]], 1)
    padded = {
        name: torch.nn.functional.pad(getattr(batch, name), (0, 3))
        for name in ("input_ids", "attention_mask", "response_mask")
    }
    for orpo in (ORPO(), ORPO(nll_on_prompt=True)):
        torch.testing.assert_close(orpo(judge, replace(batch, **padded)), orpo(judge, batch))


@pytest.mark.parametrize("x", [-1e-12, -1e-3, -0.69, -0.7, -5.0, -25.0])
def test_log1mexp_is_right_on_either_side_of_its_seam(x: float) -> None:
    got = log1mexp(torch.tensor(x, dtype=torch.float64))
    wanted = math.log(-math.expm1(x)) if x > -0.1 else math.log1p(-math.exp(x))
    assert float(got) == pytest.approx(wanted, rel=1e-12, abs=0)


def test_a_certain_response_has_a_finite_loss_and_gradient() -> None:
    chosen, rejected = torch.tensor([0.0, -200.0, -0.5], requires_grad=True), torch.tensor([-300.0, 0.0, 0.0])
    loss = orpo_loss(chosen, rejected, -chosen, beta=0.1)
    (gradient,) = torch.autograd.grad(loss.sum(), chosen)
    assert loss.isfinite().all()
    assert gradient.isfinite().all()


def test_beta_must_be_positive() -> None:
    with pytest.raises(DajError, match="beta > 0"):
        ORPO(beta=0.0)
