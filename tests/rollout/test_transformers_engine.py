"""A rollout is what the model would say alone, with its own log-probabilities, from a known version."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

from daj_lightning.records import DajError
from daj_lightning.rollout import Policy, Rollout, Sampling, TransformersEngine
from tiny import make_judge, randomize_adapters

PAD, EOS = 0, 1
PROMPTS = [[5, 9, 33], [7], [12, 40, 2, 3, 60, 8, 21], [50, 51]]  # shortest is not first
SAMPLED = Sampling(max_new_tokens=12, temperature=1.0, num_samples=3, seed=4)


@pytest.fixture
def model(tiny_config: Qwen3Config) -> Qwen3ForCausalLM:
    """Random, with logits wide enough that 1e-5 of padding noise cannot change a token."""
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(tiny_config)
    with torch.no_grad():
        model.lm_head.weight *= 20
    return model


def connected(model: torch.nn.Module, eos: int = EOS, batch_size: int = 32) -> TransformersEngine:
    engine = TransformersEngine(batch_size)
    engine.connect(Policy(model, "test", eos, PAD))
    return engine


def engine(model: Qwen3ForCausalLM, batch_size: int = 3) -> TransformersEngine:
    return connected(model, EOS, batch_size)


def ends_at(model: Qwen3ForCausalLM, token: int) -> TransformersEngine:
    return connected(model, token)


@torch.no_grad()
def greedy_alone(model: Qwen3ForCausalLM, prompt: list[int], max_new_tokens: int, eos: int = EOS) -> list[int]:
    """One prompt without padding, token by token."""
    config = GenerationConfig(max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=eos, pad_token_id=PAD)
    ids = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), generation_config=config)[
        0, len(prompt) :
    ].tolist()
    return ids[: ids.index(eos) + 1] if eos in ids else ids


@torch.no_grad()
def forward_logps(
    model: torch.nn.Module, prompt: list[int], rollout: Rollout, temperature: float = 1.0
) -> torch.Tensor:
    ids = torch.tensor([[*prompt, *rollout.token_ids]])
    logp = (model(input_ids=ids).logits[0] / temperature).log_softmax(-1)
    return torch.stack([logp[t - 1, ids[0, t]] for t in range(len(prompt), ids.size(1))])


def test_greedy_tokens_are_those_of_each_prompt_alone(model: Qwen3ForCausalLM) -> None:
    rollouts = engine(model).generate(PROMPTS, Sampling(max_new_tokens=10))
    assert [[list(r.token_ids) for r in group] for group in rollouts] == [
        [greedy_alone(model, prompt, 10)] for prompt in PROMPTS
    ]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_new_tokens=10),
        SAMPLED,
        Sampling(10, 0.5, top_p=0.9),
        Sampling(10, 0.7, top_p=0.8, top_k=20, repetition_penalty=1.5),
    ],
)
def test_log_probabilities_are_a_plain_forwards_at_the_temperature(model: Qwen3ForCausalLM, sampling: Sampling) -> None:
    for prompt, group in zip(PROMPTS, engine(model).generate(PROMPTS, sampling), strict=True):
        for rollout in group:
            assert len(rollout.logps) == len(rollout.token_ids) > 0
            expected = forward_logps(model, prompt, rollout, sampling.temperature or 1.0)
            torch.testing.assert_close(torch.tensor(rollout.logps), expected, atol=1e-4, rtol=0)


def test_a_rollout_ends_with_the_end_of_turn_which_is_no_text(model: Qwen3ForCausalLM) -> None:
    free = engine(model).generate(PROMPTS[:1], Sampling(max_new_tokens=10))[0][0]
    assert free.finish_reason == "length"
    end = free.token_ids[4]
    cut = free.token_ids.index(end)
    others = ends_at(model, end).generate(PROMPTS, Sampling(max_new_tokens=10))
    assert (others[0][0].token_ids, others[0][0].finish_reason) == (free.token_ids[: cut + 1], "stop")
    assert others[0][0].text_ids == free.token_ids[:cut]
    assert free.text_ids == free.token_ids
    torch.testing.assert_close(others[0][0].logps, free.logps[: cut + 1], atol=1e-4, rtol=0)
    for prompt, (rollout,) in zip(PROMPTS, others, strict=True):  # a neighbour's end is not theirs
        alone = greedy_alone(model, prompt, 10, eos=end)
        assert list(rollout.token_ids) == alone
        assert rollout.finish_reason == ("stop" if alone[-1] == end else "length")


def test_a_rollout_carries_the_version_of_the_last_sync(model: Qwen3ForCausalLM) -> None:
    policy = engine(model)
    policy.sync(7)
    before = policy.generate(PROMPTS, SAMPLED)
    policy.sync(8)
    after = policy.generate(PROMPTS, SAMPLED)
    assert {r.policy_version for group in before for r in group} == {7}
    assert {r.policy_version for group in after for r in group} == {8}


def test_a_trained_adapter_speaks_at_once(tiny_config: Qwen3Config) -> None:
    judge = make_judge(tiny_config)
    policy = connected(judge.policy)
    before = policy.generate(PROMPTS, Sampling(8))
    randomize_adapters(judge, scale=0.5)
    after = policy.generate(PROMPTS, Sampling(8))
    assert before != after
    for prompt, (rollout,) in zip(PROMPTS, after, strict=True):
        torch.testing.assert_close(
            torch.tensor(rollout.logps), forward_logps(judge.policy, prompt, rollout), atol=1e-4, rtol=0
        )


def test_a_seed_repeats_its_samples_and_another_does_not(model: Qwen3ForCausalLM) -> None:
    first = engine(model).generate(PROMPTS, SAMPLED)
    assert [len(group) for group in first] == [3] * len(PROMPTS)
    assert engine(model).generate(PROMPTS, SAMPLED) == first
    assert engine(model).generate(PROMPTS, Sampling(12, 1.0, num_samples=3, seed=5)) != first
    assert all(len({r.token_ids for r in group}) > 1 for group in first)  # the draws of one prompt differ


def test_samples_follow_the_models_distribution(tiny_config: Qwen3Config) -> None:
    """600 first tokens at temperature 0.5: each token's share within 4 standard deviations, and top-p cuts the tail."""
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(tiny_config)
    with torch.no_grad():
        model.lm_head.weight *= 5
        share = (model(torch.tensor([PROMPTS[0]])).logits[0, -1] / 0.5).softmax(-1)

    def draw(top_p: float) -> torch.Tensor:
        (group,) = engine(model).generate(PROMPTS[:1], Sampling(1, 0.5, top_p, num_samples=600))
        return torch.bincount(torch.tensor([r.token_ids[0] for r in group]), minlength=64)

    drawn = draw(top_p=1.0)
    assert ((drawn - 600 * share).abs() <= 4 * (600 * share * (1 - share)).sqrt() + 1).all()
    in_order = share.argsort(descending=True)
    kept = in_order[: int((share[in_order].cumsum(0) < 0.5).sum()) + 1]
    assert set(draw(top_p=0.5).nonzero()[:, 0].tolist()) <= set(kept.tolist())


def test_only_the_likeliest_k_tokens_are_drawn(tiny_config: Qwen3Config) -> None:
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(tiny_config)
    with torch.no_grad():
        likeliest = model(torch.tensor([PROMPTS[0]])).logits[0, -1].topk(5).indices.tolist()
    (group,) = engine(model).generate(PROMPTS[:1], Sampling(1, 1.0, num_samples=200, top_k=5))
    assert {r.token_ids[0] for r in group} == set(likeliest)


@torch.no_grad()
def penalised_alone(model: Qwen3ForCausalLM, prompt: list[int], penalty: float, length: int) -> list[int]:
    """Greedy text of one prompt, its own tokens and the prompt's made less likely, written out."""
    ids = list(prompt)
    while len(ids) < len(prompt) + length:
        logits = model(torch.tensor([ids])).logits[0, -1]
        for token in set(ids):
            logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
        ids.append(int(logits.argmax()))
        if ids[-1] == EOS:
            break
    return ids[len(prompt) :]


def test_a_repetition_penalty_counts_the_prompt_and_the_text_and_no_padding(model: Qwen3ForCausalLM) -> None:
    with torch.no_grad():
        model.lm_head.weight[PAD] *= 3  # likely where it is not penalised: as padding it must not be
    sampling = Sampling(max_new_tokens=10, repetition_penalty=1.6)
    rollouts = engine(model).generate(PROMPTS, sampling)
    expected = [penalised_alone(model, prompt, 1.6, 10) for prompt in PROMPTS]
    assert [list(group[0].token_ids) for group in rollouts] == expected
    assert any(PAD in text for text in expected)
    assert expected != [penalised_alone(model, prompt, 1.0, 10) for prompt in PROMPTS]


@pytest.mark.parametrize("sampling", [Sampling(max_new_tokens=4), SAMPLED])
def test_training_does_not_notice_a_rollout(model: Qwen3ForCausalLM, sampling: Sampling) -> None:
    """The global random state and the model's mode are as before."""
    model.train()
    torch.manual_seed(11)
    state = torch.get_rng_state()
    engine(model).generate(PROMPTS, sampling)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    model.eval()
    engine(model).generate(PROMPTS, sampling)
    assert not model.training


def test_dropout_is_off_in_a_rollout(tiny_config: Qwen3Config) -> None:
    tiny_config.attention_dropout = 0.9
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(tiny_config).train()
    policy = engine(model)
    assert policy.generate(PROMPTS, Sampling(4)) == policy.generate(PROMPTS, Sampling(4, seed=1))


@pytest.mark.parametrize(
    "recommended",
    [
        {"repetition_penalty": 1.05, "top_k": 20, "top_p": 0.8, "temperature": 0.7},  # Qwen2.5 Instruct
        {"repetition_penalty": 3.0, "no_repeat_ngram_size": 1},
        {"top_k": 2, "top_p": 0.1, "temperature": 0.2},
        {"min_p": 0.3},
    ],
)
def test_decoding_is_as_asked_whatever_the_base_recommends(
    model: Qwen3ForCausalLM, recommended: dict[str, float]
) -> None:
    """Instruct models ship a generation_config.json, and `generate` fills its gaps from there."""

    def both() -> list[list[list[Rollout]]]:
        return [engine(model).generate(PROMPTS, sampling) for sampling in (Sampling(10), SAMPLED)]

    plain = both()
    model.generation_config = GenerationConfig(do_sample=True, **recommended)
    assert both() == plain


def test_no_prompt_gives_no_rollout(model: Qwen3ForCausalLM) -> None:
    assert engine(model).generate([], Sampling(4)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"num_samples": 0, "temperature": 1.0},
        {"temperature": -0.1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"repetition_penalty": 0.0},
    ],
)
def test_an_impossible_sampling_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(DajError, match="sampling needs"):
        Sampling(**wrong)


def test_several_greedy_rollouts_of_one_prompt_are_refused() -> None:
    with pytest.raises(DajError, match="num_samples=4 greedy rollouts would be alike"):
        Sampling(num_samples=4)
