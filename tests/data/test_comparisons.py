"""Both orders of every mixed pair, and responses that give nothing away but their selection."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import TINY_ARCHITECTURE, ToySource
from transformers import PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM

from daj_lightning.data import (
    SampledResponses,
    TemplatedResponses,
    mixed_comparisons,
    preference_pairs,
    voting_comparisons,
)
from daj_lightning.judge import PromptTemplate, Voting, encode_prompt, load_tokenizer, parse_selection
from daj_lightning.records import Candidate, Comparison, DajError

PROBLEM = ToySource().load()[0][0]
A, B, C, D = CANDIDATES = [Candidate(name, PROBLEM.problem_id, "toy", f"print('{name}')") for name in "ABCD"]
TEMPLATE = PromptTemplate("compact")


def mixed(passing: str, candidates: Sequence[Candidate] = CANDIDATES, max_pairs: int = 8, seed: int = 0):
    passed = {c.candidate_id: c.candidate_id in passing for c in candidates}
    return mixed_comparisons(PROBLEM, candidates, passed, TEMPLATE, max_pairs, seed)


def comparison(passed: tuple[bool, ...], candidates: Sequence[Candidate] = (A, B)) -> Comparison:
    return Comparison(
        problem_id=PROBLEM.problem_id,
        domain=PROBLEM.domain,
        difficulty=PROBLEM.difficulty,
        policy="toy",
        candidate_ids=tuple(c.candidate_id for c in candidates),
        passed=passed,
        prompt=TEMPLATE.fill(PROBLEM, candidates),
        kind="mixed",
    )


class Written:
    """The responses that a test wrote down."""

    def __init__(self, *responses: list[str]) -> None:
        self.responses = list(responses)

    def respond(self, comparisons: Sequence[Comparison]) -> list[list[str]]:
        return self.responses

    def description(self) -> dict[str, object]:
        return {"responses": "written"}


def test_every_mixed_pair_appears_in_both_orders_and_no_other_pair_does() -> None:
    """A and C pass: AB, AD, CB, CD are mixed; AC (both pass) and BD (neither does) teach nothing."""
    asked = {c.candidate_ids: c.passed for c in mixed("AC")}
    right_first = {("A", "B"), ("A", "D"), ("C", "B"), ("C", "D")}
    assert asked == {
        **dict.fromkeys(right_first, (True, False)),
        **{(wrong, right): (False, True) for right, wrong in right_first},
    }


@pytest.mark.parametrize("passing", ["ABCD", ""])
def test_a_problem_whose_candidates_all_pass_or_all_fail_is_left_out(passing: str) -> None:
    assert mixed(passing) == []


def test_a_limit_on_pairs_keeps_both_orders_of_each_one_kept() -> None:
    asked = [c.candidate_ids for c in mixed("AC", max_pairs=3)]
    assert len(asked) == 6
    assert {pair[::-1] for pair in asked} == set(asked)


def test_which_pairs_are_kept_depends_on_the_seed_alone() -> None:
    kept = {seed: [c.candidate_ids for c in mixed("AC", max_pairs=1, seed=seed)] for seed in range(20)}
    assert all(kept[seed] == [c.candidate_ids for c in mixed("AC", max_pairs=1, seed=seed)] for seed in kept)
    assert len({pairs[0] for pairs in kept.values()}) > 1


def test_the_prompt_shows_the_candidates_in_the_order_of_the_comparison() -> None:
    for asked in mixed("AC"):
        first, second = (asked.prompt.index(f"print('{name}')") for name in asked.candidate_ids)
        assert first < second


def test_a_comparison_carries_its_problem_and_every_policy() -> None:
    other = replace(B, policy="another")
    first, _ = mixed("A", [A, other])
    assert (first.problem_id, first.domain, first.difficulty) == ("plus-1", "atcoder-easy", "easy")
    assert (first.policy, first.kind) == ("another+toy", "mixed")


def test_the_rounds_are_those_of_the_voting_whoever_passes() -> None:
    voting = Voting(rounds=20, seed=5)
    passed = {"A": True, "B": True, "C": False, "D": False}
    rounds = voting_comparisons(PROBLEM, CANDIDATES, passed, TEMPLATE, voting)
    assert [c.candidate_ids for c in rounds] == [("ABCD"[i], "ABCD"[j]) for i, j in voting.draw(4, PROBLEM.problem_id)]
    assert {c.passed for c in rounds} == set(itertools.product([True, False], repeat=2))
    assert {c.kind for c in rounds} == {"round"}


def test_the_wording_of_a_templated_response_does_not_know_which_candidate_is_right() -> None:
    source = TemplatedResponses(format_error_rate=0)
    for pair in itertools.permutations(CANDIDATES, 2):
        answers = source.respond([comparison((True, False), pair), comparison((False, True), pair)])
        assert answers[0] == answers[1]
        for k, response in enumerate(answers[0]):
            assert parse_selection(response, 2) == k
        assert len({response.split("<")[0] for response in answers[0]}) == 1  # only the selection differs


def test_templated_responses_use_all_their_wordings() -> None:
    asked = [replace(comparison((True, False)), candidate_ids=(f"x{i}", f"y{i}")) for i in range(60)]
    wordings = {answers[0].split(" <")[0] for answers in TemplatedResponses(0).respond(asked)}
    assert wordings == set(TemplatedResponses.WORDINGS)


def test_a_format_error_replaces_the_wrong_response_at_the_rate_asked_for() -> None:
    asked = [replace(comparison((i % 2 == 0, i % 2 == 1)), candidate_ids=(f"x{i}", f"y{i}")) for i in range(400)]
    broken = 0
    for one, answers in zip(asked, TemplatedResponses(0.25).respond(asked), strict=True):
        right = one.passed.index(True)
        assert parse_selection(answers[right], 2) == right
        broken += parse_selection(answers[1 - right], 2) is None
    assert 70 <= broken <= 130  # 100 expected, standard deviation 8.7


def test_a_share_of_format_errors_above_one_is_refused() -> None:
    with pytest.raises(DajError, match=r"share between 0 and 1, got 5"):
        TemplatedResponses(format_error_rate=5)


def test_chosen_is_the_first_correct_selection_and_rejected_the_first_other_answer() -> None:
    """A format error is rejected just as a wrong selection is: whichever comes first."""
    right, wrong, broken = "yes <selection>1</selection>", "no <selection>2</selection>", "no idea"
    also_right = "again <selection>1</selection>"
    source = Written([broken, wrong, right, also_right], [wrong, right, broken], [right, broken])
    pairs = preference_pairs([comparison((True, False))] * 3, source)
    assert [(p.chosen, p.rejected) for p in pairs] == [(right, broken), (right, wrong), (right, broken)]


def test_no_pair_comes_of_responses_that_are_all_correct_or_all_not() -> None:
    right, wrong, broken = "<selection>2</selection>", "<selection>1</selection>", "<selection>3</selection>"
    source = Written([wrong, broken, wrong], [right, right], [])
    assert preference_pairs([comparison((False, True))] * 3, source) == []


def test_a_pair_carries_the_prompt_that_its_responses_answer() -> None:
    asked = mixed("AC")
    for one, pair in zip(asked, preference_pairs(asked, TemplatedResponses(0)), strict=True):
        assert (pair.prompt, pair.candidate_ids) == (one.prompt, one.candidate_ids)
        assert (pair.problem_id, pair.domain) == (one.problem_id, one.domain)
        assert one.passed[parse_selection(pair.chosen, 2)]
        assert not one.passed[parse_selection(pair.rejected, 2)]


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


def test_sampled_responses_are_what_the_model_says_and_become_pairs(prepared, tmp_path: Path) -> None:
    write_coin_judge(load_tokenizer(str(prepared.base)), tmp_path)
    source = SampledResponses(str(tmp_path), num_responses=8, max_new_tokens=8, batch_size=3)
    asked = mixed("AC")
    answers = source.respond(asked)
    assert [len(group) for group in answers] == [8] * len(asked)
    said = [response for group in answers for response in group]
    assert {parse_selection(response, 2) for response in said} == {0, 1}
    assert 16 <= sum(parse_selection(response, 2) == 0 for response in said) <= 48  # of 64; 32 expected
    assert source.respond(asked) == answers  # the seed decides

    pairs = preference_pairs(asked, source)
    assert [p.candidate_ids for p in pairs] == [c.candidate_ids for c in asked]
    for one, pair in zip(asked, pairs, strict=True):
        assert parse_selection(pair.chosen, 2) == one.passed.index(True)
        assert parse_selection(pair.rejected, 2) == one.passed.index(False)
