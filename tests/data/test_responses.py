"""Responses that give nothing away but their selection, and responses that a model says."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser
from transformers import PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM

from asking import CANDIDATES, A, B, comparison
from conftest import Prepared
from daj_lightning.data import (
    NoResponses,
    ResponseSource,
    SampledResponses,
    TemplatedResponses,
    frozen,
    preference_pairs,
)
from daj_lightning.data.responses import WORDINGS, Responses
from daj_lightning.judge import encode_prompt, load_tokenizer, parse_selection
from daj_lightning.records import Comparison, DajError
from daj_lightning.rollout import RolloutError, TransformersEngine, VllmServer
from elsewhere import Elsewhere
from tiny import TINY_ARCHITECTURE


def texts(answer: Responses) -> list[str]:
    return [response.text for response in answer.responses]


def both_orders(number: int) -> list[Comparison]:
    asked = [comparison((True, False), (A, B)), comparison((False, True), (B, A))]
    return [replace(asked[i % 2], problem_id=f"p{i // 2}") for i in range(number)]


def test_the_wording_of_a_templated_response_does_not_know_which_candidate_is_right() -> None:
    source = TemplatedResponses(format_error_rate=0)
    for pair in itertools.permutations(CANDIDATES, 2):
        answers = source.respond([comparison((True, False), pair), comparison((False, True), pair)])
        assert answers[0] == answers[1]
        for k, response in enumerate(texts(answers[0])):
            assert parse_selection(response, 2) == k
        assert len({response.split("<")[0] for response in texts(answers[0])}) == 1  # only the selection differs


def test_templated_responses_use_all_their_wordings() -> None:
    asked = [replace(comparison((True, False)), candidate_ids=(f"x{i}", f"y{i}")) for i in range(60)]
    wordings = {texts(answers)[0].split(" <")[0] for answers in TemplatedResponses(0).respond(asked)}
    assert wordings == set(WORDINGS)
    own = TemplatedResponses(0, wordings=["Well."]).respond(asked)
    assert {texts(answers)[0].split(" <")[0] for answers in own} == {"Well."}


def test_templates_without_a_wording_are_refused() -> None:
    with pytest.raises(DajError, match="needs one of wordings or more"):
        TemplatedResponses(wordings=[])


def test_a_format_error_replaces_the_wrong_response_at_the_rate_asked_for() -> None:
    asked = [replace(comparison((i % 2 == 0, i % 2 == 1)), candidate_ids=(f"x{i}", f"y{i}")) for i in range(400)]
    broken = 0
    for one, answers in zip(asked, TemplatedResponses(0.25).respond(asked), strict=True):
        right = one.passed.index(True)
        assert parse_selection(texts(answers)[right], 2) == right
        broken += parse_selection(texts(answers)[1 - right], 2) is None
    assert 70 <= broken <= 130  # 100 expected, standard deviation 8.7


def test_a_share_of_format_errors_above_one_is_refused() -> None:
    with pytest.raises(DajError, match=r"share between 0 and 1, got 5"):
        TemplatedResponses(format_error_rate=5)


def write_coin_judge(tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """A model that answers every prompt `<selection>1</selection>` or `<selection>2</selection>`, half and half.

    Its layer adds nothing, each token of the chain has a basis vector of its own, and the head sends that
    vector to the tokens that may follow.
    """
    token = {text: tokenizer.encode(text)[-1] for text in ("1", "2", "<selection>", "</selection>")}
    start = encode_prompt(tokenizer, "any")[-1]
    follows = {
        start: [token["<selection>"]],
        token["<selection>"]: [token["1"], token["2"]],
        token["1"]: [token["</selection>"]],
        token["2"]: [token["</selection>"]],
        token["</selection>"]: [tokenizer.eos_token_id],
    }
    shape = {**TINY_ARCHITECTURE, "num_hidden_layers": 1, "tie_word_embeddings": False}
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), **shape))
    with torch.no_grad():
        for weight in (model.model.embed_tokens.weight, model.lm_head.weight):
            weight.zero_()
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        for basis, (current, successors) in enumerate(follows.items()):
            model.model.embed_tokens.weight[current, basis] = 1.0
            model.lm_head.weight[successors, basis] = 20.0
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


@pytest.fixture(scope="module")
def coin(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("coin")
    write_coin_judge(load_tokenizer(str(prepared.base)), directory)
    return str(directory)


def test_sampled_responses_are_what_the_model_says_and_become_pairs(coin: str) -> None:
    source = SampledResponses(coin, num_responses=8, max_new_tokens=8, batch_size=8)
    asked = both_orders(8)
    answers = source.respond(asked)
    assert [len(answer.responses) for answer in answers] == [8] * len(asked)
    said = [response for answer in answers for response in answer.responses]
    assert {parse_selection(response.text, 2) for response in said} == {0, 1}
    assert {response.finish_reason for response in said} == {"stop"}
    assert 16 <= sum(parse_selection(response.text, 2) == 0 for response in said) <= 48  # of 64; 32 expected
    assert source.respond(asked) == answers  # the seed decides

    pairs = preference_pairs(asked, source)
    assert [p.candidate_ids for p in pairs] == [c.candidate_ids for c in asked]
    for one, pair in zip(asked, pairs, strict=True):
        assert parse_selection(pair.chosen, 2) == one.passed.index(True)
        assert parse_selection(pair.rejected, 2) == one.passed.index(False)


def test_batches_draw_from_streams_of_their_own(coin: str) -> None:
    """Alike prompts in two batches do not get alike draws, and a batch draws the same wherever it stands."""
    source = SampledResponses(coin, num_responses=16, max_new_tokens=8)
    first, second = both_orders(4)[:2], both_orders(4)[2:]
    assert source.respond(first) != source.respond(second)
    again = SampledResponses(coin, num_responses=16, max_new_tokens=8)
    assert again.respond(second) == source.respond(second)
    other_seed = SampledResponses(coin, num_responses=16, max_new_tokens=8, seed=1)
    assert other_seed.respond(second) != source.respond(second)


def test_the_model_is_loaded_once_for_all_batches(coin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    load = frozen.load_causal_lm

    def counted(name: str, *args: str):
        loads.append(name)
        return load(name, *args)

    monkeypatch.setattr(frozen, "load_causal_lm", counted)
    source = SampledResponses(coin, num_responses=2, max_new_tokens=8, batch_size=2)
    assert loads == []
    preference_pairs(both_orders(6), source)
    assert loads == [coin]


def test_a_response_that_meets_the_limit_of_tokens_says_so(coin: str) -> None:
    answers = SampledResponses(coin, num_responses=2, max_new_tokens=2).respond(both_orders(1))
    assert [response.finish_reason for response in answers[0].responses] == ["length"] * 2


def test_a_prompt_that_does_not_fit_is_not_asked_and_its_neighbours_are(coin: str) -> None:
    """The tiny judge's context is 512 tokens, of which 8 are for the response."""
    short = comparison()
    long = replace(short, prompt=short.prompt + " pad" * 600)
    answers = SampledResponses(coin, num_responses=2, max_new_tokens=8).respond([short, long, short])
    assert [len(answer.responses) for answer in answers] == [2, 0, 2]
    assert answers[1].too_long.endswith("504 fit")
    assert answers[0].too_long == ""
    limited = SampledResponses(coin, num_responses=2, max_new_tokens=8, max_prompt_tokens=3).respond([short])
    assert limited[0].responses == ()
    assert limited[0].too_long.endswith("3 fit")


def test_a_limit_that_leaves_no_prompt_is_refused(coin: str) -> None:
    with pytest.raises(DajError, match=r"context of 512 tokens, and max_new_tokens=512 leaves no prompt"):
        SampledResponses(coin, num_responses=2, max_new_tokens=512).respond([comparison()])


@pytest.mark.parametrize("argument", [{"batch_size": 0}, {"max_prompt_tokens": 0}])
def test_sizes_below_one_are_refused(argument: dict[str, int]) -> None:
    with pytest.raises(DajError, match="must be >= 1"):
        SampledResponses("any", **argument)


# Another engine.


def test_an_engine_elsewhere_gets_the_model_without_weights_and_draws_the_same_responses(coin: str) -> None:
    asked, engine = both_orders(4), Elsewhere()
    source = SampledResponses(coin, num_responses=4, max_new_tokens=8, batch_size=4, engine=engine)
    here = SampledResponses(coin, num_responses=4, max_new_tokens=8, batch_size=4)
    assert engine.policies == []  # nothing is started before there is something to ask
    assert source.respond(asked) == here.respond(asked)
    (policy,) = engine.policies
    assert policy.base == coin
    assert {(p.is_meta, p.dtype) for p in policy.model.parameters()} == {(True, torch.bfloat16)}
    assert [len(prompts) for prompts, _ in engine.asked] == [4]
    source.respond(both_orders(8)[4:])
    assert len(engine.policies) == 1


def test_a_given_transformers_engine_has_the_weights_here(coin: str) -> None:
    asked, engine = both_orders(4), TransformersEngine(batch_size=8)
    source = SampledResponses(coin, num_responses=4, max_new_tokens=8, engine=engine)
    assert source.respond(asked) == SampledResponses(coin, num_responses=4, max_new_tokens=8).respond(asked)


def test_closing_the_source_closes_the_engine_that_it_started_once(coin: str) -> None:
    engine = Elsewhere()
    source = SampledResponses(coin, num_responses=2, max_new_tokens=8, engine=engine)
    source.close()
    assert engine.num_closed == 0  # else it could not be started any more
    source.respond(both_orders(1))
    source.close()
    source.close()
    assert engine.num_closed == 1


def test_an_engine_that_does_not_take_the_model_is_closed(coin: str) -> None:
    engine = Elsewhere(refuses=True)
    with pytest.raises(RolloutError, match="no room"):
        SampledResponses(coin, num_responses=2, max_new_tokens=8, engine=engine).respond(both_orders(1))
    assert engine.num_closed == 1


def test_a_limit_that_leaves_no_prompt_is_noticed_before_an_engine_starts(coin: str) -> None:
    engine = Elsewhere()
    with pytest.raises(DajError, match="leaves no prompt"):
        SampledResponses(coin, num_responses=2, max_new_tokens=512, engine=engine).respond([comparison()])
    assert engine.policies == []


def test_a_model_without_a_configuration_is_refused_before_an_engine_starts(coin: str, tmp_path: Path) -> None:
    load_tokenizer(coin).save_pretrained(tmp_path)
    engine = Elsewhere()
    with pytest.raises(DajError, match=r"cannot load the configuration of .*the directory exists but does not"):
        SampledResponses(str(tmp_path), num_responses=2, engine=engine).respond([comparison()])
    assert engine.policies == []


def test_the_description_names_another_engine_and_stays_what_it_was_without_one() -> None:
    without = {
        "responses": "sampled",
        "model": "m",
        "sampling": "Sampling(max_new_tokens=2048, temperature=1.0, top_p=1.0, num_samples=8, seed=0, top_k=0, "
        "repetition_penalty=1.0)",
        "batch_size": 8,
        "max_prompt_tokens": None,
    }
    assert SampledResponses("m").description() == without
    assert SampledResponses("m", engine=VllmServer()).description() == {**without, "engine": "VllmServer"}


def test_a_configuration_names_the_engine_by_its_class() -> None:
    parser = ArgumentParser()
    parser.add_argument("--responses", type=ResponseSource)
    engine = {"class_path": "daj_lightning.rollout.VllmServer", "init_args": {"python": "there", "max_sequences": 64}}
    sampled = {"class_path": "daj_lightning.data.SampledResponses", "init_args": {"model": "m", "engine": engine}}
    source = parser.instantiate(parser.parse_object({"responses": sampled})).responses
    assert isinstance(source, SampledResponses)
    assert isinstance(source.engine, VllmServer)
    assert (source.engine.python, source.engine.max_sequences) == ("there", 64)
    none = {"class_path": "daj_lightning.data.NoResponses"}
    assert isinstance(parser.instantiate(parser.parse_object({"responses": none})).responses, NoResponses)


def test_no_responses_are_an_empty_answer_to_each_comparison() -> None:
    assert NoResponses().respond(both_orders(3)) == [Responses(())] * 3
    assert NoResponses().description() == {"responses": "none"}
