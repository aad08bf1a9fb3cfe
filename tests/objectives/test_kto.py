"""KTO, one number per response, equal to TRL's; its divergence is one number for a window."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from transformers import Qwen3Config
from trl import KTOConfig, KTOTrainer

from daj_lightning.objectives import KTO, ResponseLogProbs, estimate_kl, kto_loss
from daj_lightning.records import DajError
from objectives.trl_oracle import Oracle, errors, oracle, rows_of, with_reference
from tiny import make_judge, randomize_adapters

ROWS = [
    {"prompt": "which one passes?", "completion": " the first", "label": True},
    {"prompt": "and here, which?", "completion": " the second of both", "label": False},
    {"prompt": "which?", "completion": " second", "label": True},
    {"prompt": "the first or the second?", "completion": " the", "label": True},
    {"prompt": "one", "completion": " passes, passes, passes", "label": False},
]
WEIGHTS = {"desirable_weight": 1.3, "undesirable_weight": 0.7}


def trl_kto(directory: Path, architecture: Qwen3Config, **config: object) -> Oracle:
    defaults = {"per_device_train_batch_size": 5, "beta": 0.1, **WEIGHTS}
    return oracle(KTOTrainer, KTOConfig, directory, architecture, rows=ROWS, config={**defaults, **config})


@pytest.mark.parametrize(("seed", "clamped"), [(0, False), (2, True)])
def test_the_loss_of_a_window_equals_trls_of_a_batch(
    seed: int, clamped: bool, tiny_config: Qwen3Config, tmp_path: Path
) -> None:
    """Where the estimate of the divergence is positive, and where it is negative and taken for 0."""
    trainer, judge = trl_kto(tmp_path, tiny_config)
    randomize_adapters(judge, scale=0.15, seed=seed)
    data = trainer.train_dataset
    wanted = trainer.compute_loss(trainer.model, trainer.data_collator([data[i] for i in range(5)]))

    # A wrong selection and a format error are undesirable alike.
    rewards = torch.tensor([1.0, 0.5, 1.0, 1.0, 0.0])
    window = with_reference(judge, rows_of(data["prompt_ids"], data["completion_ids"], 5, rewards=rewards))
    kto = KTO(beta=0.1, **WEIGHTS)
    window = kto.prepare(judge, window)
    assert window.kl is not None
    estimate = estimate_kl(judge, window)
    assert estimate < -0.3 if clamped else estimate > 0.3
    assert (window.kl == (0 if clamped else estimate)).all()
    losses = kto(judge, window)
    assert losses.std() > 1e-2
    assert max(errors(losses.mean(), wanted, judge)) <= 1e-5


@pytest.mark.parametrize("shift", [3.0, -3.0])
def test_the_formula_equals_trls_in_float64(shift: float, tiny_config: Qwen3Config, tmp_path: Path) -> None:
    """TRL's own loss over a model that returns these numbers as the log-probability of its first token."""
    trainer, _ = trl_kto(tmp_path, tiny_config)
    trainer.precompute_ref_logps = True  # it then takes the reference from the batch
    generator = torch.Generator().manual_seed(0)
    judge, reference, mixed, mixed_reference = 4 * torch.randn(4, 5, generator=generator, dtype=torch.float64)
    mixed = mixed + shift
    judge.requires_grad_()
    label = torch.tensor([True, False, True, True, False])

    def table(input_ids: Tensor, **_: object) -> SimpleNamespace:
        logp = (judge if int(input_ids[0, 0]) else mixed)[:, None]
        return SimpleNamespace(log_probs=logp, entropy=torch.zeros(5, 1), mean_logits=torch.zeros(5, 1))

    ids = torch.ones(5, 2, dtype=torch.int64)
    inputs = {"input_ids": ids, "attention_mask": ids, "completion_mask": ids, "label": label}
    inputs |= {"KL_input_ids": 0 * ids, "KL_attention_mask": ids, "KL_completion_mask": ids}
    inputs |= {"ref_logps": reference, "ref_KL_logps": mixed_reference}
    wanted = trainer._compute_loss(table, inputs, False)
    kl = (mixed - mixed_reference).mean().clamp(min=0).repeat(5)
    assert (kl[0] > 0) == (shift > 0)
    got = kto_loss(ResponseLogProbs(judge, reference), kl, label, beta=0.1, **WEIGHTS).mean()
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(*(torch.autograd.grad(loss, judge)[0] for loss in (got, wanted)), rtol=0, atol=1e-12)


def test_the_divergence_is_asked_of_the_response_of_the_sample_before(tiny_config: Qwen3Config) -> None:
    """Two samples of one prompt length and two: (x1, y2) and (x2, y1), written out."""
    judge = make_judge(tiny_config)
    randomize_adapters(judge)
    window = rows_of([[5, 6, 7], [8, 9]], [[10, 11], [12, 13, 14]], 2)
    mixed = rows_of([[5, 6, 7], [8, 9]], [[12, 13, 14], [10, 11]], 2)
    with torch.no_grad():
        logp = judge.response_logp(mixed)
    with judge.reference():
        wanted = (logp - judge.response_logp(mixed)).mean()
    torch.testing.assert_close(estimate_kl(judge, window), wanted)
    prepared = KTO().prepare(judge, window).kl
    assert prepared is not None
    assert not prepared.requires_grad


def test_a_window_of_one_sample_is_refused(tiny_config: Qwen3Config) -> None:
    with pytest.raises(DajError, match="num_inner and num_meta of data to 2"):
        KTO().prepare(make_judge(tiny_config), rows_of([[5, 6]], [[7]], 1))


def test_a_sure_gain_costs_nothing_and_a_sure_loss_its_weight() -> None:
    logp = ResponseLogProbs(torch.tensor([500.0, -500.0, 500.0, -500.0]), torch.zeros(4))
    desirable = torch.tensor([True, True, False, False])
    loss = kto_loss(logp, torch.zeros(4), desirable, beta=0.1, **WEIGHTS)
    torch.testing.assert_close(loss, torch.tensor([0.0, 1.3, 0.7, 0.0]))


def test_the_loss_without_a_prepared_window_is_our_own_mistake(tiny_config: Qwen3Config) -> None:
    judge = make_judge(tiny_config)
    batch = replace(with_reference(judge, rows_of([[5, 6]], [[7]], 1)), rewards=torch.ones(1))
    with pytest.raises(AssertionError, match="prepare"):
        KTO()(judge, batch)


@pytest.mark.parametrize("name", ["beta", "desirable_weight", "undesirable_weight"])
def test_its_numbers_must_be_positive(name: str) -> None:
    with pytest.raises(DajError, match="> 0"):
        KTO(**{name: 0.0})
