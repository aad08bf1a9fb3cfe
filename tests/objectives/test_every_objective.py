"""What bi-level training asks of an objective, whichever it is; in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from transformers import Qwen3Config

from daj_lightning.bilevel import FlatView, RecomputedLoss
from daj_lightning.judge import Judge
from daj_lightning.objectives import DPO, GRPO, KTO, ORPO, SFT, Objective
from daj_lightning.records import JudgeBatch
from objectives.trl_oracle import gradient, rows_of
from tiny import make_judge, randomize_adapters

B = 3
ALPHA = torch.tensor([0.7, 0.0, 1.8], dtype=torch.float64)
ROWS_PER_SAMPLE = {"pair": 2, "chosen": 1, "response": 1, "prompt": 4}

OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "dpo": lambda: DPO(nll_weight=0.1),
    "kto": lambda: KTO(desirable_weight=1.3),
    "orpo": ORPO,
    "orpo on the prompt": lambda: ORPO(nll_on_prompt=True),
    "sft": SFT,
    "grpo": lambda: GRPO(beta=0.1, importance_cap=1.2),
    "dr_grpo": lambda: GRPO(normalization="dr_grpo", max_response_tokens=9, scale_rewards="none", rows_per_forward=3),
    "dapo": lambda: GRPO(normalization="dapo", epsilon_high=0.3, beta=0.1, unbiased_kl=True),
}

pytestmark = pytest.mark.usefixtures("true_float64")


@pytest.fixture
def judge(tiny_config: Qwen3Config) -> Judge:
    judge = make_judge(tiny_config, attention="eager").double()
    randomize_adapters(judge)
    return judge


def batch_for(objective: Objective, judge: Judge, *, old: bool = True) -> JudgeBatch:
    """B samples of prompts and responses of different lengths, with what the objective asks for."""
    generator = torch.Generator().manual_seed(4)
    n = ROWS_PER_SAMPLE[objective.unit]
    prompts = [torch.randint(64, (3 + 2 * i,), generator=generator).tolist() for i in range(B) for _ in range(n)]
    lengths = torch.randint(2, 7, (n * B,), generator=generator).tolist()
    responses = [torch.randint(64, (length,), generator=generator).tolist() for length in lengths]
    batch = rows_of(prompts, responses, B, temperature=0.7 if objective.unit == "prompt" else 1.0)
    with torch.no_grad():
        logp, token_logp = judge.response_logp(batch), judge.response_token_logp(batch)
    noise = torch.randn(3, *token_logp.shape, generator=generator, dtype=torch.float64)
    before, sampled, reference = (token_logp + 0.3 * noise) * batch.response_mask
    batch = replace(
        batch,
        reference_logp=logp + noise[0, :, 0],
        rewards=torch.tensor([1.0, 0.5, 0.0, 1.0] * B, dtype=torch.float64)[: n * B],
        sampled_logp=sampled,
        old_logp=before if old else None,
        reference_token_logp=reference,
    )
    return objective.prepare(judge, batch)


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_the_loss_of_a_sample_does_not_depend_on_its_neighbours(name: str, judge: Judge) -> None:
    objective = OBJECTIVES[name]()
    batch = batch_for(objective, judge)
    losses = objective(judge, batch)
    assert losses.shape == (B,)
    assert len(set(losses.tolist())) == B
    alone = torch.cat([objective(judge, sample) for sample in batch.micro_batches()])
    torch.testing.assert_close(losses, alone, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_the_gradient_of_a_weighted_sum_is_the_sum_of_weighted_gradients(name: str, judge: Judge) -> None:
    """Each sample's gradient is taken alone, part by part; alpha stands in front of it and of nothing else."""
    objective = OBJECTIVES[name]()
    batch = batch_for(objective, judge)
    rows = []
    for sample in batch.micro_batches():
        rows.append(torch.stack([gradient(part, judge) for part in objective.parts(judge, sample)]).sum(dim=0))
    alpha = ALPHA.clone().requires_grad_()
    losses = objective(judge, batch)
    total = (alpha * losses).sum()
    (by_alpha,) = torch.autograd.grad(total, alpha, retain_graph=True)
    assert torch.equal(by_alpha, losses.detach())
    torch.testing.assert_close(gradient(total, judge), ALPHA @ torch.stack(rows), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_the_gradient_is_that_of_the_number_it_returns(name: str, judge: Judge) -> None:
    """Central differences along a direction, with everything that `prepare` and the rollout hold constant."""
    objective = OBJECTIVES[name]()
    batch = batch_for(objective, judge)
    loss_at, phi, direction = recomputed(objective, judge)
    slope = gradient((ALPHA * objective(judge, batch)).sum(), judge) @ direction
    with torch.no_grad():
        up, down = ((ALPHA * loss_at(phi + side * 1e-5 * direction, batch)).sum() for side in (1, -1))
    assert slope.abs() > 1e-4
    torch.testing.assert_close((up - down) / 2e-5, slope, rtol=1e-6, atol=0)


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_forward_mode_agrees_with_reverse_mode(name: str, old: bool, judge: Judge) -> None:
    """Also where ratios are of the judge to itself, and only the derivative says that they move."""
    objective = OBJECTIVES[name]()
    batch = batch_for(objective, judge, old=old)
    loss_at, phi, direction = recomputed(objective, judge)
    with torch.no_grad(), forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(loss_at(forward_ad.make_dual(phi, direction), batch)).tangent
    losses = objective(judge, batch)
    wanted = torch.stack([gradient_keeping(loss, judge) @ direction for loss in losses])
    assert wanted.abs().min() > 1e-5
    torch.testing.assert_close(tangent, wanted, rtol=1e-9, atol=1e-13)


def test_without_an_old_policy_ratios_refer_to_the_judge_as_it_is(judge: Judge) -> None:
    grpo = GRPO(beta=0.1)
    batch = batch_for(grpo, judge, old=False)
    assert batch.old_logp is None
    with torch.no_grad():
        explicit = replace(batch, old_logp=judge.response_token_logp(batch))
    got, wanted = grpo(judge, batch), grpo(judge, explicit)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-14)
    torch.testing.assert_close(gradient(got.sum(), judge), gradient(wanted.sum(), judge), rtol=0, atol=1e-13)


def recomputed(objective: Objective, judge: Judge) -> tuple[Callable[[Tensor, JudgeBatch], Tensor], Tensor, Tensor]:
    """The losses as a function of the adapters, these adapters, and a direction; (P,) both."""
    flat = FlatView(judge.trained_parameters())
    phi = flat.gather([p.detach() for p in flat.parameters]).clone()
    direction = torch.randn(len(phi), generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    return RecomputedLoss(judge, objective).at, phi, direction


def gradient_keeping(loss: Tensor, judge: Judge) -> Tensor:
    slopes = torch.autograd.grad(loss, judge.trained_parameters(), retain_graph=True)
    return torch.cat([g.flatten() for g in slopes])
