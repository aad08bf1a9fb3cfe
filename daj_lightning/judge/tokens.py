"""From chat text to token rows: chat template, truncation that spares the selection tag, padding.

A message is data: what looks like a control token in it (a program that prints <|im_end|>) is encoded as the
characters that it is, so that only the chat template opens and ends turns.
Letters: R rows, T tokens.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

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


def load_tokenizer(name: str, chat: bool = True) -> PreTrainedTokenizerBase:
    """The tokenizer of a model directory or hub name.

    Args:
        chat: the judge is asked in chat messages, and so needs a chat template.
    Raises:
        DajError: it cannot be found, or it lacks the chat template.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise DajError(unreachable(name, "tokenizer", error)) from error
    if chat and tokenizer.chat_template is None:
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


_FORM_OF_AN_ANSWER = re.compile(r"<selection>[A-Za-z_]+</selection>")
"""How a template shows the tag. A tokenizer that has the tag as tokens keeps them here; a tag with a number is text."""
_MARK = "\ue000"
"""Stands for a message, to see where a chat template puts it: of no template's own text."""


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Token ids of the chat up to where the judge's answer starts.

    Raises:
        DajError: the prompt holds control tokens, and the chat template rewrites it so that they cannot be found.
    """
    chat = [{"role": "user", "content": prompt}]
    cuts = _inside_control_tokens(tokenizer, prompt)
    if not cuts:
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        return list(ids)  # type: ignore[arg-type]  # one chat gives one list of ints
    text = _rendered(tokenizer, prompt)
    start = _rendered(tokenizer, _MARK).find(_MARK)  # the message may stand in the template's own text too
    message = prompt if text.startswith(prompt, start) else prompt.strip()  # as some templates do
    if start < 0 or not text.startswith(message, start):
        raise DajError(
            "a program or statement holds a control token of the judge's chat, and its chat template changes the "
            "message, so that it cannot be told from the template's own. Remove the token from the text."
        )
    start -= prompt.index(message)
    places = [0, *(start + cut for cut in cuts), len(text)]
    pieces = [text[begin:end] for begin, end in pairwise(places)]
    rows = tokenizer(pieces, add_special_tokens=False)["input_ids"]
    return list(chain.from_iterable(rows))  # type: ignore[arg-type]  # a row of ints for each piece


def _rendered(tokenizer: PreTrainedTokenizerBase, message: str) -> str:
    chat = [{"role": "user", "content": message}]
    return str(tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))


def _inside_control_tokens(tokenizer: PreTrainedTokenizerBase, message: str) -> list[int]:
    """Where the message is to be cut, so that no piece of it holds a control token: behind each one's first letter."""
    template = str(tokenizer.chat_template)
    names = [
        name
        for token in tokenizer.added_tokens_decoder.values()
        # Spaces may be tokens, and indent a template's source: they control nothing.
        if len(name := token.content) > 1 and (token.special or (name in template and not name.isspace()))
    ]
    if not names:
        return []
    any_name = re.compile(f"(?=(?:{'|'.join(map(re.escape, names))}))")  # ahead: names may overlap
    shown = {place for form in _FORM_OF_AN_ANSWER.finditer(message) for place in range(*form.span())}
    return [match.start() + 1 for match in any_name.finditer(message) if match.start() not in shown]


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
