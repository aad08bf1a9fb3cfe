"""Token rows of preference pairs, written out; and the swap that corrupts a domain."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from daj_lightning.data import PairDataset, corrupt
from daj_lightning.data.pairs import read_pairs
from daj_lightning.records import DajError, JudgeBatch, Pair
from tiny import toy_data

PAD, END, USER, JUDGE = 0, 1, 2, 3
WORDS = {"<pad>": PAD, "<end>": END, "<user>": USER, "<judge>": JUDGE, "which": 4, "one": 5, "first": 6, "second": 7}
DOMAINS = ("hard", "easy")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """One id a word."""
    words = Tokenizer(models.WordLevel(WORDS, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        eos_token="<end>",
        pad_token="<pad>",
        chat_template="<user> {{ messages[0]['content'] }}{% if add_generation_prompt %} <judge>{% endif %}",
    )


def pair(prompt: str, chosen: str, rejected: str, domain: str = "easy", problem_id: str = "p") -> Pair:
    return Pair(problem_id, domain, ("a", "b"), prompt, chosen, rejected)


PAIRS = [
    pair("which", "first", "second", "easy"),
    pair("which one", "first first first", "second", "hard"),
    pair("one", "second", "first first", "easy"),
]


@pytest.fixture
def dataset(tokenizer: PreTrainedTokenizerFast) -> PairDataset:
    dataset = PairDataset(PAIRS, tokenizer, DOMAINS, max_length=64)
    dataset.reference_logp = torch.tensor([[-1.0, -2.0], [-3.0, -4.0], [-5.0, -6.0]])
    return dataset


def assert_same(batch: JudgeBatch, expected: JudgeBatch) -> None:
    for field in fields(JudgeBatch):
        torch.testing.assert_close(getattr(batch, field.name), getattr(expected, field.name), atol=0, rtol=0)


def test_a_batch_is_pair_after_pair_each_chosen_row_first(dataset: PairDataset) -> None:
    """Samples 1 and 2; the response's mask covers its words and the end of turn, never the prompt or padding."""
    expected = JudgeBatch(
        sample_ids=torch.tensor([1, 2]),
        domains=torch.tensor([0, 1]),  # DOMAINS: hard, easy
        input_ids=torch.tensor(
            [
                [USER, 4, 5, JUDGE, 6, 6, 6, END],  # 1 chosen: which one -> first first first
                [USER, 4, 5, JUDGE, 7, END, PAD, PAD],  # 1 rejected: which one -> second
                [USER, 5, JUDGE, 7, END, PAD, PAD, PAD],  # 2 chosen: one -> second
                [USER, 5, JUDGE, 6, 6, END, PAD, PAD],  # 2 rejected: one -> first first
            ]
        ),
        attention_mask=torch.tensor(
            [
                [1, 1, 1, 1, 1, 1, 1, 1],  # 1 chosen
                [1, 1, 1, 1, 1, 1, 0, 0],  # 1 rejected
                [1, 1, 1, 1, 1, 0, 0, 0],  # 2 chosen
                [1, 1, 1, 1, 1, 1, 0, 0],  # 2 rejected
            ],
            dtype=torch.bool,
        ),
        response_mask=torch.tensor(
            [
                [0, 0, 0, 0, 1, 1, 1, 1],  # 1 chosen: first first first END
                [0, 0, 0, 0, 1, 1, 0, 0],  # 1 rejected: second END
                [0, 0, 0, 1, 1, 0, 0, 0],  # 2 chosen: second END
                [0, 0, 0, 1, 1, 1, 0, 0],  # 2 rejected: first first END
            ],
            dtype=torch.bool,
        ),
        reference_logp=torch.tensor([-3.0, -4.0, -5.0, -6.0]),
    )
    assert_same(dataset.batch([1, 2]), expected)


def test_a_sample_keeps_its_id_domain_and_reference_wherever_it_stands(dataset: PairDataset) -> None:
    batch = dataset.batch([2, 0, 1, 2])
    assert batch.sample_ids.tolist() == [2, 0, 1, 2]
    assert batch.domains.tolist() == [1, 1, 0, 1]
    assert batch.reference_logp.tolist() == [-5, -6, -1, -2, -3, -4, -5, -6]


def test_a_micro_batch_is_its_sample_alone_without_the_neighbours_padding(dataset: PairDataset) -> None:
    ids = [0, 1, 2]
    for i, micro in zip(ids, dataset.batch(ids).micro_batches(), strict=True):
        assert_same(micro, dataset.batch([i]))
    assert [m.input_ids.size(1) for m in dataset.batch(ids).micro_batches()] == [5, 8, 6]


def test_the_tokens_of_a_row_end_at_max_length_and_the_cut_rows_are_counted(tokenizer: PreTrainedTokenizerFast) -> None:
    """100 words of reasoning before the selection: the middle goes, the last word stays."""
    long = " ".join(["first"] * 100 + ["second"])
    dataset = PairDataset([pair("which", long, "first"), pair("which", long, long)], tokenizer, DOMAINS, max_length=80)
    assert dataset.num_cut == 3
    rows = dataset.batch([0, 1])
    assert rows.attention_mask.sum(dim=1).tolist() == [80, 5, 80, 80]
    assert rows.input_ids[0, :3].tolist() == [USER, 4, JUDGE]
    assert rows.input_ids[0, -2:].tolist() == [7, END]


def prompt_too_long(tokenizer: PreTrainedTokenizerFast) -> PairDataset:
    """102 + 101 tokens for the chosen row, which keeps 64 of its response and 56 of its prompt; 102 + 11 fit."""
    chosen, rejected = (" ".join(["first"] * n) for n in (100, 10))
    return PairDataset([pair(" ".join(["one"] * 100), chosen, rejected)], tokenizer, DOMAINS, max_length=120)


def test_both_responses_of_a_pair_answer_the_same_prompt_even_where_it_was_cut(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    batch = prompt_too_long(tokenizer).batch([0])
    starts = batch.response_mask.int().argmax(dim=1).tolist()
    prompts = [row[:start].tolist() for row, start in zip(batch.input_ids, starts, strict=True)]
    assert prompts[0] == prompts[1] == [USER, *[5] * 54, JUDGE]


def test_a_row_whose_prompt_was_cut_for_its_partner_counts_as_cut(tokenizer: PreTrainedTokenizerFast) -> None:
    assert prompt_too_long(tokenizer).num_cut == 2


def test_a_pair_of_an_unlisted_domain_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DajError, match=r"samples of domain \['medium'\], but data.domains lists \['hard', 'easy'\]"):
        PairDataset([*PAIRS, replace(PAIRS[0], domain="medium")], tokenizer, DOMAINS, max_length=64)


def test_the_fingerprint_names_tokens_and_which_of_them_are_preferred(tokenizer: PreTrainedTokenizerFast) -> None:
    def name(pairs: list[Pair]) -> str:
        return PairDataset(pairs, tokenizer, DOMAINS, max_length=64).fingerprint()

    swapped = replace(PAIRS[0], chosen=PAIRS[0].rejected, rejected=PAIRS[0].chosen)
    names = {name(PAIRS), name([swapped, *PAIRS[1:]]), name(PAIRS[::-1]), name(PAIRS[:2])}
    assert len(names) == 4
    assert name([replace(p, problem_id="other") for p in PAIRS]) == name(PAIRS)


MANY = [
    pair("which", f"c{i}", f"r{i}", domain, f"p{i}")
    for i, domain in enumerate(["easy", "hard", "medium", "easy"] * 250)
]


def swapped_in(domain: str, pairs: list[Pair]) -> list[int]:
    """Indices of the pairs of one domain that were swapped; every other pair must be untouched."""
    swapped = []
    for i, (old, new) in enumerate(zip(MANY, pairs, strict=True)):
        if new != old:
            assert new == replace(old, chosen=old.rejected, rejected=old.chosen)
            if old.domain == domain:
                swapped.append(i)
    return swapped


def test_corruption_swaps_exactly_the_domains_asked_for() -> None:
    corrupted = corrupt(MANY, {"easy": 1.0, "medium": 0.0}, seed=0)
    assert swapped_in("easy", corrupted) == [i for i, p in enumerate(MANY) if p.domain == "easy"]
    assert swapped_in("hard", corrupted) == swapped_in("medium", corrupted) == []
    assert corrupt(MANY, {}, seed=0) == MANY


def test_corruption_swaps_the_share_asked_for_and_the_seed_says_which() -> None:
    """500 easy pairs at 0.3: 150 expected, standard deviation 10.2."""
    swapped = swapped_in("easy", corrupt(MANY, {"easy": 0.3}, seed=0))
    assert 110 <= len(swapped) <= 190
    assert swapped_in("easy", corrupt(MANY, {"easy": 0.3}, seed=0)) == swapped
    assert swapped_in("easy", corrupt(MANY, {"easy": 0.3}, seed=1)) != swapped


def test_a_domains_corruption_does_not_depend_on_anothers() -> None:
    alone, beside = corrupt(MANY, {"easy": 0.3}, seed=0), corrupt(MANY, {"easy": 0.3, "hard": 0.9}, seed=0)
    assert swapped_in("easy", alone) == swapped_in("easy", beside)


@pytest.mark.parametrize(
    ("rates", "named"),
    [({"esay": 0.5}, r"of domain \['esay'\]"), ({"easy": 1.5}, r"\{'easy': 1.5\}"), ({"hard": -0.1}, r"-0.1")],
)
def test_corruption_of_an_unknown_domain_or_by_no_share_is_refused(rates: dict[str, float], named: str) -> None:
    with pytest.raises(DajError, match=named):
        corrupt(MANY, rates, seed=0)


def test_the_data_module_corrupts_training_pairs_only(prepared) -> None:
    data = toy_data(prepared.root, prepared.base, corrupt={"atcoder-hard": 1.0})
    data.setup("fit")
    data.load_samples("pair")
    for new, old in zip(data.train_set.pairs, read_pairs(prepared.root / "train.jsonl"), strict=True):
        hard = old.domain == "atcoder-hard"
        assert (new.chosen, new.rejected) == ((old.rejected, old.chosen) if hard else (old.chosen, old.rejected))
    assert data.meta_set.pairs == read_pairs(prepared.root / "meta.jsonl")


def test_a_step_of_the_data_module_holds_the_samples_of_its_streams(prepared) -> None:
    data = toy_data(prepared.root, prepared.base)
    data.setup("fit")
    data.load_samples("pair")
    for window, step in enumerate(data.train_dataloader()):
        assert step.inner.sample_ids.tolist() == data.train_stream.take(4 * window, 4)
        assert step.meta.sample_ids.tolist() == data.meta_stream.take(2 * window, 2)
        for batch, pairs in ((step.inner, data.train_set), (step.meta, data.meta_set)):
            assert_same(batch, pairs.batch(batch.sample_ids.tolist()))
            named = [data.domains[k] for k in batch.domains.tolist()]
            assert named == [pairs.pairs[i].domain for i in batch.sample_ids.tolist()]
    assert window == data.max_windows - 1
