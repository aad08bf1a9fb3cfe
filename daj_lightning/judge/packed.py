"""Rows of tokens laid end to end: no padding, and what the rows of a sample begin with is computed once.

A causal model's state at a token depends on that token and those before it alone. So rows of one sample that begin
alike (a pair's or a group's prompt) share their states there, and padding has no states at all: both exactly, and
their gradients too. Only attention must know where rows end; everything else in the model treats tokens one by one.
Letters: R rows, T tokens of the longest, S tokens together.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from daj_lightning.records import DajError

ATTENTION = "daj_packed"
"""Name in transformers; with any ordinary mask it is "sdpa"."""


class PackedRows(NamedTuple):
    """What a model is given in place of padded rows, and where to find what in its answer."""

    input_ids: Tensor
    """(1, S) int64."""
    position_ids: Tensor
    """(1, S) int64, of each token in its row."""
    rows: Tensor
    """(1, 1, R, 4) int64 on the CPU: start, tokens, start of the shared prefix, its tokens; in place of a mask."""
    token_index: Tensor
    """(R, T) int64, of each token of a padded row among the S; meaningless on padding."""
    sample_lengths: list[int]
    """Tokens of each sample's rows, S together."""


def pack(input_ids: Tensor, attention_mask: Tensor, rows_per_sample: int) -> PackedRows:
    """Rows (R, T), padded on the right, without padding; a sample's later rows without what its first begins with.

    Waits for the device once.
    """
    num_rows, width = input_ids.shape
    of_sample = input_ids.view(-1, rows_per_sample, width)
    alike = (of_sample == of_sample[:, :1]).all(dim=1) & attention_mask.view_as(of_sample).all(dim=1)
    shared = alike.long().cumprod(dim=1).sum(dim=1).repeat_interleave(rows_per_sample)
    is_first = torch.arange(num_rows, device=input_ids.device) % rows_per_sample == 0
    position = torch.arange(width, device=input_ids.device)
    again = (position < shared[:, None]) & ~is_first[:, None]  # the first row of the sample has these tokens
    kept = attention_mask & ~again
    index = (kept.flatten().cumsum(dim=0) - 1).view_as(kept)
    index = torch.where(again, index[::rows_per_sample].repeat_interleave(rows_per_sample, dim=0), index)
    lengths, prefixes = torch.stack([kept.sum(dim=1), shared * ~is_first]).tolist()
    starts = torch.tensor([0, *lengths]).cumsum(dim=0)[:-1]
    first = starts[::rows_per_sample].repeat_interleave(rows_per_sample)
    rows = torch.stack([starts, torch.tensor(lengths), first, torch.tensor(prefixes)], dim=1)
    sample_lengths = [sum(lengths[i : i + rows_per_sample]) for i in range(0, num_rows, rows_per_sample)]
    return PackedRows(
        input_ids[kept][None], position.expand_as(kept)[kept][None], rows[None, None], index, sample_lengths
    )


def attend_packed(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """transformers' attention with "sdpa", row by row where the mask is `PackedRows.rows`.

    Args:
        query, key, value: (1, heads, S, width of a head).
    Returns:
        (1, S, heads, width of a head).
    Raises:
        DajError: a sliding window shorter than a row.
    """
    if attention_mask is None or attention_mask.dtype is not torch.int64:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    outputs = []
    for start, length, first, shared in attention_mask[0, 0].tolist():
        window = options.get("sliding_window")
        if window is not None and shared + length > window:
            raise DajError(
                f"a packed row has {shared + length} tokens, and this model attends to {window} at most. Set "
                f"model.packing to false."
            )
        if length == 0:  # the same tokens as the sample's first row
            continue
        own, mask = slice(start, start + length), None
        keys, values = key[:, :, own], value[:, :, own]
        if shared:
            prefix = slice(first, first + shared)
            keys = torch.cat([key[:, :, prefix], keys], dim=2)
            values = torch.cat([value[:, :, prefix], values], dim=2)
            mask = torch.ones(length, shared + length, dtype=torch.bool, device=key.device).tril(shared)[None, None]
        outputs.append(sdpa_attention_forward(module, query[:, :, own], keys, values, mask, **options)[0])
    return torch.cat(outputs, dim=1), None


def let_pack(model: PreTrainedModel) -> None:
    """Give `model` the attention that takes packed rows.

    Raises:
        DajError: its layers mix tokens in another way than causal scaled-dot-product attention.
    """
    config = model.config
    attention = config._attn_implementation
    others = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if attention not in ("sdpa", ATTENTION) or others:
        raise DajError(
            f"model.packing needs a model whose layers all attend with sdpa; this {config.model_type} has attention "
            f"{attention!r}{f' and layers of {sorted(others)}' if others else ''}. Set model.judge.init_args.attention "
            f"to sdpa, or model.packing to false."
        )
    model.set_attn_implementation(ATTENTION)


AttentionInterface.register(ATTENTION, attend_packed)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
