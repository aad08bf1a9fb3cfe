"""Token rows: what is masked, what is cut, and that the selection tag never is."""

from __future__ import annotations

import pytest

from daj_lightning.judge import EncodedResponse, encode_prompt, encode_response, pad_right
from daj_lightning.records import DajError
from daj_lightning.training.cold_start import train_tokenizer


def test_rows_are_prompt_response_padding() -> None:
    rows = [EncodedResponse((5, 6, 7), (8, 9), 0), EncodedResponse((5,), (9,), 0)]
    input_ids, attention_mask, response_mask = pad_right(rows, pad_id=0)
    assert input_ids.tolist() == [
        [5, 6, 7, 8, 9],  # nothing to pad
        [5, 9, 0, 0, 0],  # padding on the right
    ]
    assert attention_mask.int().tolist() == [
        [1, 1, 1, 1, 1],
        [1, 1, 0, 0, 0],
    ]
    assert response_mask.int().tolist() == [
        [0, 0, 0, 1, 1],  # the loss sees the response only
        [0, 1, 0, 0, 0],
    ]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["which of the two programs passes <selection>1</selection>"], 300)


def test_the_chat_ends_where_the_judge_begins(tokenizer) -> None:
    text = tokenizer.decode(encode_prompt(tokenizer, "which?"))
    assert text == "<|im_start|>user\nwhich?<|im_end|>\n<|im_start|>assistant\n"


def test_truncation_takes_the_reasoning_first_and_never_the_tag(tokenizer) -> None:
    prompt = encode_prompt(tokenizer, "which? " * 10)
    response = "line by line " * 100 + "<selection>2</selection>"
    row = encode_response(tokenizer, prompt, response, max_length=len(prompt) + 80)
    assert list(row.prompt_ids) == prompt
    assert len(row.prompt_ids) + len(row.response_ids) == len(prompt) + 80
    assert row.num_cut > 0
    assert tokenizer.decode(row.response_ids).endswith("<selection>2</selection><|im_end|>")


def test_a_long_prompt_keeps_its_head_and_its_task(tokenizer) -> None:
    prompt = encode_prompt(tokenizer, "HEAD " + "x" * 500 + " TASK")
    row = encode_response(tokenizer, prompt, "<selection>1</selection>", max_length=100)
    text = tokenizer.decode(row.prompt_ids)
    assert "HEAD" in text
    assert "TASK" in text
    assert tokenizer.decode(row.response_ids) == "<selection>1</selection><|im_end|>"
    assert len(row.prompt_ids) + len(row.response_ids) == 100


def test_what_fits_is_left_alone(tokenizer) -> None:
    prompt = encode_prompt(tokenizer, "which?")
    assert encode_response(tokenizer, prompt, "<selection>1</selection>", 500).num_cut == 0


def test_a_length_limit_that_leaves_no_prompt_is_an_error(tokenizer) -> None:
    prompt = encode_prompt(tokenizer, "x" * 500)
    with pytest.raises(DajError, match=r"Raise data\.max_length"):
        encode_response(tokenizer, prompt, "<selection>1</selection>", max_length=20)
