"""Questions as samples of GRPO."""

from __future__ import annotations

from dataclasses import replace

import pytest
from transformers import PreTrainedTokenizerBase

from asking import A, B, C, comparison
from conftest import Prepared
from daj_lightning.data import PromptDataset, corrupt
from daj_lightning.data.prompts import in_both_orders
from daj_lightning.judge import encode_prompt, load_tokenizer
from daj_lightning.records import DajError
from tiny import toy_data

AB, BA = comparison((True, False), (A, B)), comparison((False, True), (B, A))
AC, CA = comparison((True, False), (A, C)), comparison((False, True), (C, A))
DOMAINS = [AB.domain]


@pytest.fixture(scope="module")
def tokenizer(prepared: Prepared) -> PreTrainedTokenizerBase:
    return load_tokenizer(str(prepared.base))


def test_a_sample_is_a_question_or_both_orders_of_it(tokenizer: PreTrainedTokenizerBase) -> None:
    asked = [AB, AC, CA, BA]
    single = PromptDataset(asked, tokenizer, DOMAINS, 512)
    assert single.batch([2, 0]).comparisons == ((CA,), (AB,))
    both = PromptDataset(asked, tokenizer, DOMAINS, 512, both_orders=True)
    batch = both.batch([1, 0])
    assert batch.comparisons == ((AC, CA), (AB, BA))
    assert batch.sample_ids.tolist() == [1, 0]
    assert batch.domains.tolist() == [0, 0]
    assert batch.prompts[0] == tuple(tuple(encode_prompt(tokenizer, c.prompt)) for c in (AC, CA))


def test_a_question_without_its_mirror_image_is_refused() -> None:
    with pytest.raises(DajError, match=r"1 of 2 questions .* in one order only, first \('C', 'A'\).* data.swap=true"):
        in_both_orders([AB, BA, CA])


def test_prompts_that_are_too_long_are_left_out_and_counted(tokenizer: PreTrainedTokenizerBase) -> None:
    long = replace(AC, prompt=AC.prompt + " and on" * 200)
    limit = max(len(encode_prompt(tokenizer, c.prompt)) for c in (AB, BA))
    dataset = PromptDataset([AB, BA, long, CA], tokenizer, DOMAINS, limit, both_orders=True)
    assert (len(dataset), dataset.num_too_long) == (1, 1), "the order that fits goes with the one that does not"
    with pytest.raises(DajError, match=r"none of 1 prompts fits: .* leaves 20"):
        PromptDataset([AB], tokenizer, DOMAINS, 20)


def test_the_fingerprint_knows_prompts_and_what_is_right(tokenizer: PreTrainedTokenizerBase) -> None:
    names = {
        PromptDataset(asked, tokenizer, DOMAINS, 512).fingerprint()
        for asked in ([AB], [AB], [BA], corrupt([AB], {AB.domain: 1.0}, 0))
    }
    assert len(names) == 3


def test_corruption_turns_both_orders_of_a_question_or_none() -> None:
    asked = [
        replace(one, candidate_ids=tuple(f"{name}{k}" for name in one.candidate_ids))
        for k in range(50)
        for one in (AB, BA)
    ]
    turned = corrupt(asked, {AB.domain: 0.5}, seed=0)
    is_turned = [new.passed != old.passed for new, old in zip(turned, asked, strict=True)]
    assert is_turned[::2] == is_turned[1::2]
    assert 10 < sum(is_turned[::2]) < 40


def test_the_data_module_reads_the_comparisons_that_prepare_asked(prepared: Prepared) -> None:
    data = toy_data(prepared.root, prepared.base, corrupt={"atcoder-hard": 1.0}, both_orders=True)
    data.setup("fit")
    data.load_samples("prompt", max_new_tokens=12)
    for groups, turned in ((data.train_set.comparisons, True), (data.meta_set.comparisons, False)):
        for first, second in groups:
            assert first.candidate_ids == second.candidate_ids[::-1]
            right = first.candidate_ids[first.passed.index(True)]
            truth = {c.candidate_id: ok for c, ok in data.graded[first.problem_id]}
            assert truth[right] == (not turned or first.domain != "atcoder-hard")
