"""From chat text to token rows: chat template, truncation that spares the selection tag, padding.

Letters: R rows, T tokens.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from daj_lightning.records import DajError


@dataclass(frozen=True, slots=True)
class EncodedResponse:
    """One prompt with one response, as token ids."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    """Ends with the end-of-turn token."""
    num_cut: int
    """Tokens left out to meet the length limit, 0 mostly."""


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model directory or hub name.

    Raises:
        DajError: it cannot be found, or it has no chat template.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise DajError(unreachable(name, "tokenizer", error)) from error
    if tokenizer.chat_template is None:
        raise DajError(
            f"the tokenizer of {name!r} has no chat template, and the judge is asked in a chat message. "
            f"Use an instruct model, or add chat_template.jinja to that directory."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def unreachable(name: str, what: str, error: Exception) -> str:
    """One line for a model that could not be loaded."""
    where = "the directory exists but does not hold it" if os.path.isdir(name) else "no such directory"
    reason = str(error).splitlines()[0]
    return (
        f"cannot load the {what} of {name!r}: {where}, and the model hub did not answer for it ({reason}). "
        f"Give model.judge.init_args.base a model directory on this machine, or a hub name while online."
    )


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Token ids of the chat up to where the judge's answer starts."""
    chat = [{"role": "user", "content": prompt}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    return list(ids)  # type: ignore[arg-type]  # one chat gives one list of ints


def decode(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """Text of a response, special tokens included: the selection tag may be one."""
    return str(tokenizer.decode(list(token_ids), skip_special_tokens=False))


def encode_response(
    tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int], response: str, max_length: int
) -> EncodedResponse:
    """A training row of at most `max_length` tokens.

    What does not fit is cut from the middle of the reasoning, then from the middle of the prompt:
    the prompt's task and the response's selection tag stand at their ends and always stay.
    """
    response_ids = [*tokenizer.encode(response, add_special_tokens=False), tokenizer.eos_token_id]
    excess = max(0, len(prompt_ids) + len(response_ids) - max_length)
    kept_response = cut_middle(response_ids, max(len(response_ids) - excess, min(len(response_ids), 64)))
    kept_prompt = cut_middle(prompt_ids, max_length - len(kept_response))
    cut = len(prompt_ids) - len(kept_prompt) + len(response_ids) - len(kept_response)
    return EncodedResponse(tuple(kept_prompt), tuple(kept_response), cut)


def cut_middle(ids: Sequence[int], length: int) -> Sequence[int]:
    """The first and the last tokens of `ids`, `length` together; all of them if they fit."""
    if len(ids) <= length:
        return ids
    if length < 32:
        raise DajError(
            f"a prompt of {len(ids)} tokens would be left with {length}: max_length is too small. "
            f"Raise data.max_length."
        )
    head = length // 2
    return [*ids[:head], *ids[len(ids) - (length - head) :]]


def pad_right(rows: Sequence[EncodedResponse], pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """(R, T) input ids, attention mask and response mask; padding on the right."""
    length = max(len(row.prompt_ids) + len(row.response_ids) for row in rows)
    input_ids = torch.full((len(rows), length), pad_id, dtype=torch.int64)
    attention_mask = torch.zeros((len(rows), length), dtype=torch.bool)
    response_mask = torch.zeros((len(rows), length), dtype=torch.bool)
    for r, row in enumerate(rows):
        start, end = len(row.prompt_ids), len(row.prompt_ids) + len(row.response_ids)
        input_ids[r, :end] = torch.tensor([*row.prompt_ids, *row.response_ids])
        attention_mask[r, :end] = True
        response_mask[r, start:end] = True
    return input_ids, attention_mask, response_mask
