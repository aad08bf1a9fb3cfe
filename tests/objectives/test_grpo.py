"""GRPO, one number per group, equal to TRL's off policy, clipped on both sides, under all three normalizations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Qwen3Config
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import nanstd

from daj_lightning.judge import Judge
from daj_lightning.objectives import GRPO, TokenLogProbs, group_advantages, grpo_token_loss, row_divisors
from daj_lightning.records import DajError, JudgeBatch
from objectives.trl_oracle import Oracle, errors, gradient, oracle, rows_of
from tiny import make_judge, randomize_adapters

G = 5
LIMIT = 7
LENGTHS = (3, 7, 2, 5, 4)
TRUNCATED = 1
"""The row that ends without the end token."""
REWARDS = (1.0, 0.0, 0.5, 1.0, 0.0)


def random_group(seed: int, end: int = 9) -> tuple[list[list[int]], list[list[int]]]:
    """A prompt, G times, and G responses to it, which stop with `end` but for one."""
    generator = torch.Generator().manual_seed(seed)
    prompt = torch.randint(10, 60, (4 + seed % 3,), generator=generator).tolist()
    responses = [torch.randint(10, 60, (length,), generator=generator).tolist() for length in LENGTHS]
    for i in set(range(G)) - {TRUNCATED}:
        responses[i][-1] = end
    return [prompt] * G, responses


def trl_grpo(directory: Path, architecture: Qwen3Config, rollout: Any = None, **config: Any) -> Oracle:
    """Updates twice for each rollout, so that it asks for the log-probabilities of the old policy."""
    config = {
        "num_generations": G,
        "per_device_train_batch_size": G,
        "gradient_accumulation_steps": 1,
        "max_completion_length": LIMIT,
        "num_iterations": 2,
        **config,
    }
    found = oracle(
        GRPOTrainer,
        GRPOConfig,
        directory,
        architecture,
        rows=[{"prompt": "which?"}] * G,
        config=config,
        reward_funcs=lambda completions, **_: list(REWARDS),
        rollout_func=rollout,
    )
    found.trainer.current_gradient_accumulation_steps = 1  # set by train()
    return found


def ours_of(group: tuple[list[list[int]], list[list[int]]], sampled: Sequence[Sequence[float]] | None) -> JudgeBatch:
    prompts, responses = group
    batch = rows_of(prompts, responses, 1, rewards=torch.tensor(REWARDS))
    if sampled is None:
        return batch
    logp = torch.zeros(batch.response_mask.shape)
    logp[batch.response_mask] = torch.tensor([value for row in sampled for value in row])
    return replace(batch, sampled_logp=logp)


CASES: dict[str, dict[str, Any]] = {
    "grpo": {"normalization": "grpo", "beta": 0.04, "importance_cap": None},
    "dr_grpo": {
        "normalization": "dr_grpo",
        "max_response_tokens": LIMIT,
        "beta": 0.1,
        "epsilon": 0.1,
        "epsilon_high": 0.4,
        "scale_rewards": "none",
    },
    "dapo": {"normalization": "dapo", "epsilon_high": 0.28, "importance_cap": 1.2, "rows_per_forward": 2},
    "masked": {"normalization": "dapo", "beta": 0.04, "importance_cap": 1.2, "scale_rewards": "none"},
    "masked grpo": {"normalization": "grpo", "beta": 0.04, "epsilon_high": 0.3, "unbiased_kl": True},
}


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("case", list(CASES))
def test_the_loss_off_policy_equals_trls(
    case: str, temperature: float, tiny_config: Qwen3Config, tmp_path: Path
) -> None:
    """TRL takes over two rollouts and scores them, the adapters move, and TRL takes its loss.

    Rewards, advantages, old, reference and importance weights are its own on its side, and ours on ours.
    """
    masked = case.startswith("masked")
    grpo = GRPO(**CASES[case])
    corrected = grpo.importance_cap is not None
    config = {
        "loss_type": grpo.normalization,
        "beta": grpo.beta,
        "epsilon": grpo.epsilon,
        "epsilon_high": grpo.epsilon_high,
        "scale_rewards": grpo.scale_rewards,
        "use_bias_correction_kl": grpo.unbiased_kl,
        "temperature": temperature,
        "mask_truncated_completions": masked,
        "vllm_importance_sampling_mode": "token_truncate",
        "vllm_importance_sampling_clip_max": grpo.importance_cap or 3.0,
    }
    rollouts: list[dict[str, Any]] = []
    trainer, judge = trl_grpo(tmp_path, tiny_config, rollout=lambda *_: rollouts[-1], **config)
    trainer.use_vllm, trainer._last_loaded_step = corrected, 0  # as if an engine of its own had drawn them
    randomize_adapters(judge, scale=0.05)
    groups = [random_group(seed, end=trainer.processing_class.eos_token_id) for seed in (0, 1)]
    taken, batches = [], []
    for group in groups:
        batch = replace(ours_of(group, None), temperature=temperature)
        with torch.no_grad():
            old = judge.response_token_logp(batch)
        noise = 0.5 * torch.randn(old.shape, generator=torch.Generator().manual_seed(7))
        sampled = [(old + noise)[i, batch.response_mask[i]].tolist() for i in range(G)]
        rollouts.append({"prompt_ids": group[0], "completion_ids": group[1], "logprobs": sampled})
        taken.append(trainer._generate_and_score_completions([{"prompt": "which?"}] * G))
        batch = replace(ours_of(group, sampled if corrected else None), temperature=temperature, old_logp=old)
        if masked:
            batch.response_mask[TRUNCATED] = False
        batches.append(batch)
    randomize_adapters(judge, scale=0.08, seed=5)

    for batch, inputs in zip(batches, taken, strict=True):
        batch = grpo.prepare(judge, batch)
        check_that_it_is_off_policy(batch, judge, grpo)
        wanted = trainer._compute_loss(trainer.model, inputs)
        assert max(errors(grpo(judge, batch), wanted[None], judge)) <= 1e-5


def check_that_it_is_off_policy(batch: JudgeBatch, judge: Judge, grpo: GRPO) -> None:
    """Both sides of the clip and the cap of the importance weights are at work."""
    assert batch.old_logp is not None
    assert batch.rewards is not None
    ratio = (judge.response_token_logp(batch) - batch.old_logp).exp()
    positive = (group_advantages(batch.rewards) > 0)[:, None] & batch.response_mask
    negative = (group_advantages(batch.rewards) < 0)[:, None] & batch.response_mask
    assert (ratio[positive] > 1 + (grpo.epsilon_high or grpo.epsilon)).any()
    assert (ratio[negative] < 1 - grpo.epsilon).any()
    if batch.sampled_logp is not None:
        weight = (batch.old_logp - batch.sampled_logp).exp()[batch.response_mask]
        assert (weight < 0.9).any()
        assert grpo.importance_cap == 3.0 or (weight > 1.2).any()
    if grpo.beta > 0:
        assert batch.reference_token_logp is not None


def test_the_loss_on_policy_equals_trls(tiny_config: Qwen3Config, tmp_path: Path) -> None:
    """Without old log-probabilities, where all ratios are 1."""
    group = random_group(0)
    rollout = {"prompt_ids": group[0], "completion_ids": group[1], "logprobs": None}
    trainer, judge = trl_grpo(
        tmp_path, tiny_config, rollout=lambda *_: rollout, loss_type="grpo", beta=0.0, num_iterations=1
    )
    randomize_adapters(judge, scale=0.15)
    inputs = trainer._generate_and_score_completions([{"prompt": "which?"}] * G)
    assert "old_per_token_logps" not in inputs
    wanted = trainer._compute_loss(trainer.model, inputs)
    assert max(errors(GRPO()(judge, ours_of(group, None)), wanted[None], judge)) <= 1e-5


VARIANTS = ((None, 0.0, None, False), (0.28, 0.04, 1.1, True), (0.1, 0.5, 3.0, False))
"""epsilon_high, beta, importance_cap, unbiased_kl"""


def test_the_formula_equals_trls_in_float64(tiny_config: Qwen3Config, tmp_path: Path) -> None:
    """TRL's own loss over given log-probabilities, in every combination of what changes the formula."""
    trainer, _ = trl_grpo(tmp_path, tiny_config)
    generator = torch.Generator().manual_seed(3)
    logp, old, sampled, reference = -1 + 0.4 * torch.randn(4, G, LIMIT, generator=generator, dtype=torch.float64)
    logp.requires_grad_()
    mask = torch.arange(LIMIT) < torch.tensor(LENGTHS)[:, None]
    mask[TRUNCATED] = False
    rewards = torch.tensor(REWARDS, dtype=torch.float64)
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (logp, torch.zeros(G, LIMIT), None)
    ids = torch.zeros(G, LIMIT, dtype=torch.int64)
    worst = torch.zeros(2, dtype=torch.float64)
    for normalization in ("grpo", "dr_grpo", "dapo", "bnpo"):
        for epsilon_high, beta, cap, unbiased in VARIANTS:
            for scale in ("group", "none"):
                spread = nanstd(rewards, dim=0) + 1e-4 if scale == "group" else 1.0
                trainer.loss_type, trainer.beta, trainer.use_vllm = normalization, beta, cap is not None
                trainer.args.use_bias_correction_kl = unbiased
                trainer.epsilon_high = trainer.epsilon_low if epsilon_high is None else epsilon_high
                weight = torch.clamp(torch.exp((old - sampled) * mask), max=cap or 1)
                inputs = {"prompt_ids": ids, "prompt_mask": ids, "completion_ids": ids, "completion_mask": mask}
                inputs |= {"advantages": (rewards - rewards.mean()) / spread, "old_per_token_logps": old}
                inputs |= {"ref_per_token_logps": reference, "importance_sampling_ratio": weight}
                inputs |= {"num_items_in_batch": mask.sum()}
                wanted = trainer._compute_loss(trainer.model, inputs)
                tokens = grpo_token_loss(
                    TokenLogProbs(logp, old, sampled, reference),
                    group_advantages(rewards, scale),  # type: ignore[arg-type]
                    epsilon_high=epsilon_high,
                    beta=beta,
                    unbiased_kl=unbiased,
                    importance_cap=cap,
                )
                ours = "dapo" if normalization == "bnpo" else normalization
                limit = LIMIT if ours == "dr_grpo" else None
                got = ((tokens * mask).sum(dim=1) / row_divisors(mask, ours, limit)).sum()  # type: ignore[arg-type]
                slopes = [torch.autograd.grad(loss, logp)[0] for loss in (got, wanted)]
                assert slopes[1].abs().max() > 1e-2
                found = torch.stack([(got - wanted).detach().abs(), (slopes[0] - slopes[1]).abs().max()])
                worst = torch.maximum(worst, found)
    print("\nerrors", worst)
    assert worst.max() <= 1e-12


def sample_of(judge: Judge, *, rewards: Sequence[float] = REWARDS, seed: int = 0) -> JudgeBatch:
    """A group with every optional field, near the judge; row 1 is masked."""
    batch = rows_of(*random_group(seed), 1, rewards=torch.tensor(rewards))
    batch.response_mask[TRUNCATED] = False
    with torch.no_grad():
        logp = judge.response_token_logp(batch)
    noise = 0.4 * torch.randn(3, *logp.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=logp.dtype)
    old, sampled, reference = (logp + noise) * batch.response_mask
    return replace(batch, old_logp=old, sampled_logp=sampled, reference_token_logp=reference)


@pytest.mark.usefixtures("true_float64")
@pytest.mark.parametrize("normalization", ["grpo", "dr_grpo", "dapo"])
@pytest.mark.parametrize("rows_per_forward", [1, 2, 3, 8])
def test_chunks_of_a_group_add_up_to_the_group(normalization: Any, rows_per_forward: int, tiny_config) -> None:
    judge = make_judge(tiny_config).double()
    randomize_adapters(judge)
    sample = sample_of(judge)
    limit = LIMIT if normalization == "dr_grpo" else None
    options: dict[str, Any] = {"normalization": normalization, "beta": 0.1, "max_response_tokens": limit}
    (whole,) = GRPO(**options).parts(judge, sample)
    total, slope = torch.zeros(1, dtype=torch.float64), 0
    num_parts = 0
    for part in GRPO(**options, rows_per_forward=rows_per_forward).parts(judge, sample):
        assert part.shape == (1,)
        if part.requires_grad:  # the masked row alone has no pass
            slope = slope + gradient(part, judge)  # this graph is freed here
        total = total + part.detach()
        num_parts += 1
    assert num_parts == -(-G // rows_per_forward)
    torch.testing.assert_close(total, whole.detach(), rtol=0, atol=1e-14)
    torch.testing.assert_close(slope, gradient(whole, judge), rtol=0, atol=1e-13)


def test_a_group_without_a_spread_of_rewards_teaches_nothing(tiny_config: Qwen3Config) -> None:
    judge = make_judge(tiny_config)
    randomize_adapters(judge)
    loss = GRPO()(judge, sample_of(judge, rewards=[0.5] * G))
    assert float(loss) == 0
    assert (gradient(loss, judge) == 0).all()


def test_a_group_without_any_token_teaches_nothing_and_costs_no_pass(tiny_config: Qwen3Config) -> None:
    judge = make_judge(tiny_config)
    sample = sample_of(judge)
    sample.response_mask[:] = False
    for normalization in ("grpo", "dapo"):
        loss = GRPO(normalization=normalization, beta=0.1)(judge, sample)  # type: ignore[arg-type]
        assert float(loss) == 0
        assert not loss.requires_grad


def test_a_masked_row_counts_in_the_group_and_has_no_gradient() -> None:
    mask = torch.tensor([[True, True, False], [False, False, False], [True, False, False]])
    assert row_divisors(mask, "grpo").tolist() == [6, 3, 3]
    assert row_divisors(mask, "dr_grpo", 10).tolist() == [30, 30, 30]
    assert row_divisors(mask, "dapo").tolist() == [3, 3, 3]


def two_groups() -> JudgeBatch:
    prompts, responses = (a + b for a, b in zip(random_group(0), random_group(1), strict=True))
    return rows_of(prompts, responses, 2, rewards=torch.tensor(REWARDS * 2), temperature=0.7)


@pytest.mark.parametrize("rows_per_forward", [None, 2])
def test_prepare_asks_the_reference_where_the_kl_counts(rows_per_forward: int | None, tiny_config) -> None:
    """At the batch's temperature and in its width; nothing is asked at beta = 0, or twice."""
    judge, batch = make_judge(tiny_config), two_groups()
    randomize_adapters(judge)
    with judge.reference():
        wanted = judge.response_token_logp(batch)
    grpo = GRPO(beta=0.1, rows_per_forward=rows_per_forward)
    prepared = grpo.prepare(judge, batch)
    assert prepared.reference_token_logp is not None
    torch.testing.assert_close(prepared.reference_token_logp, wanted)
    assert grpo.prepare(judge, prepared) is prepared
    assert GRPO(rows_per_forward=rows_per_forward).prepare(judge, batch).reference_token_logp is None


@pytest.mark.parametrize("rows_per_forward", [None, 2])
def test_anchored_ratios_refer_to_the_judge_before_it_moved(rows_per_forward: int | None, tiny_config) -> None:
    judge, batch = make_judge(tiny_config), two_groups()
    randomize_adapters(judge)
    wanted = judge.response_token_logp(batch).detach()
    grpo = GRPO(rows_per_forward=rows_per_forward)
    anchored = grpo.anchor(judge, batch)
    randomize_adapters(judge, scale=0.1, seed=5)
    assert grpo.anchor(judge, anchored) is anchored
    assert anchored.old_logp is not None
    assert not anchored.old_logp.requires_grad
    torch.testing.assert_close(anchored.old_logp, wanted)
    assert float((grpo(judge, anchored) - grpo(judge, batch)).abs().detach().min()) > 1e-4


def test_advantages_of_a_group_of_unequal_rewards() -> None:
    """By hand: mean 0.5, unbiased standard deviation 0.5."""
    rewards = torch.tensor([1.0, 0.5, 0.0])
    torch.testing.assert_close(group_advantages(rewards, "none"), torch.tensor([0.5, 0.0, -0.5]))
    torch.testing.assert_close(group_advantages(rewards), torch.tensor([1.0, 0.0, -1.0]) / (1 + 2e-4))


BAD: list[tuple[dict[str, Any], str]] = [
    ({"epsilon": 0.0}, "0 < epsilon < 1"),
    ({"epsilon": 1.0}, "0 < epsilon < 1"),
    ({"epsilon_high": 0.0}, "epsilon_high > 0"),
    ({"beta": -0.1}, "beta >= 0"),
    ({"normalization": "mean"}, "one of .*got 'mean'"),
    ({"scale_rewards": "batch"}, "one of .*'batch'"),
    ({"normalization": "dr_grpo"}, "max_response_tokens goes with"),
    ({"max_response_tokens": 9}, "max_response_tokens goes with"),
    ({"normalization": "dr_grpo", "max_response_tokens": 0}, "max_response_tokens > 0"),
    ({"importance_cap": 0.0}, "importance_cap > 0"),
    ({"rows_per_forward": 0}, "rows_per_forward > 0"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_what_it_cannot_do_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DajError, match=message):
        GRPO(**options)


def test_the_importance_weight_does_not_weigh_the_kl() -> None:
    """By hand: a token at ratio 1, advantage 1, drawn at a third of the old probability; the KL is e - 2."""
    one = torch.zeros(1, 1)
    logp = TokenLogProbs(one, one, one - 1.0986123, one + 1)
    loss = grpo_token_loss(logp, torch.ones(1), beta=0.1, importance_cap=2.0)
    wanted: Tensor = -2 * torch.ones(1, 1) + 0.1 * (torch.tensor(1.0).exp() - 2)
    torch.testing.assert_close(loss, wanted)
