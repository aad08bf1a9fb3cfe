"""What one decoder layer needs: its forward and backward on the meta device, where tensors have shapes and no memory.

Layers are alike, so one tells of all; which tensors autograd keeps and what a backward needs for a moment follow from
the model's own code. Attention runs the operator that the device in question would run.
Letters: R rows of a forward, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from transformers import AttentionInterface, PretrainedConfig
from transformers.integrations.sdpa_attention import repeat_kv, use_gqa_in_sdpa

from daj_lightning.judge import Judge
from daj_lightning.planning.live_bytes import LiveBytes
from daj_lightning.records import DajError

DeviceType = Literal["cpu", "cuda"]


class PartBytes(NamedTuple):
    """Of one module on one forward of R rows, without its parameters; its input counts where it is kept."""

    kept: int
    """By autograd, from the forward to the backward."""
    forward: int
    """Most at once in the forward, autograd keeping what it wants; with input and output."""
    backward: int
    """Most at once in the backward, what is kept and the output's gradient included."""
    output: int


@dataclass(frozen=True, slots=True)
class Passes:
    """What R rows of T tokens need on their way through a judge."""

    layer: PartBytes
    norm: PartBytes
    """The last one, before the head."""
    tangent: int
    """Most at once in one layer's forward with tangents and without a graph (JvpEngine); 0 if not asked for."""
    shared: int
    """By all layers: rotations of the positions, the attention's mask."""


def walk(judge: Judge, rows: int, length: int, device: DeviceType, *, padded: bool, tangents: bool = False) -> Passes:
    """Count one layer's bytes.

    Args:
        judge: on the meta device.
        padded: the rows differ in length, so that attention needs a mask.
        tangents: count a forward with tangents too.
    Raises:
        DajError: the decoder is not a stack of layers as in the Llama and Qwen families.
    """
    decoder = judge.causal_lm.get_decoder()
    if not all(hasattr(decoder, name) for name in ("layers", "norm", "rotary_emb")):
        raise DajError(
            f"plan knows decoders with `layers`, `norm` and `rotary_emb`, as the Llama and Qwen families have; "
            f"{judge.base!r} is a {type(decoder).__name__}. Measure a window instead (tools/check_plan.py)."
        )
    config = judge.causal_lm.config
    layer, eager = decoder.layers[0], judge.attention == "eager"
    dtype = next(p.dtype for p in decoder.norm.parameters())
    with torch.device("meta"), torch.no_grad():
        positions = torch.arange(length)[None]
        rotations = decoder.rotary_emb(torch.empty(rows, length, config.hidden_size, dtype=dtype), positions)
        mask = None
        if eager or padded:
            mask = torch.empty(rows, 1, length, length, dtype=dtype if eager else torch.bool)
    inputs = {"attention_mask": mask, "position_ids": positions, "position_embeddings": rotations}
    shape = (rows, length, config.hidden_size)
    tangent, checkpoints = 0, getattr(layer, "gradient_checkpointing", False)
    layer.gradient_checkpointing = False  # type: ignore[assignment]  # what it would keep is its input alone
    try:
        with _attention_of(config, device, eager):
            found = _count(layer, shape, dtype, inputs)
        if tangents:
            tangent = _count_tangents(layer, shape, dtype, inputs)
    finally:
        layer.gradient_checkpointing = checkpoints
    masks = mask.nbytes if mask is not None else 0
    return Passes(found, _count(decoder.norm, shape, dtype, {}), tangent, masks + sum(t.nbytes for t in rotations))


def _count(part: nn.Module, shape: tuple[int, ...], dtype: torch.dtype, inputs: dict[str, Any]) -> PartBytes:
    part.train()
    with LiveBytes() as count:
        for parameter in part.parameters():  # all of these are there before a pass
            parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
            parameter.detach()
        others = count.live
        # Not a leaf, which its own node of the graph would keep.
        hidden = torch.empty(1, device="meta", dtype=dtype, requires_grad=True).expand(shape).clone()
        count.restart()
        output = part(hidden, **inputs)
        output = output[0] if isinstance(output, tuple) else output
        forward, size = count.peak - others, output.nbytes
        del hidden
        kept = count.live - others - size
        gradient = torch.empty_like(output)
        count.restart()
        output.backward(gradient)
        backward = count.peak - others - size
    for parameter in part.parameters():
        parameter.grad = None
    return PartBytes(kept, forward, backward, size)


def _count_tangents(layer: nn.Module, shape: tuple[int, ...], dtype: torch.dtype, inputs: dict[str, Any]) -> int:
    """On the meta device, scaled-dot-product attention runs its math kernel, as JvpEngine demands."""
    adapters = {name: p for name, p in layer.named_parameters() if p.requires_grad}
    with LiveBytes() as count, torch.no_grad(), forward_ad.dual_level():
        for parameter in layer.parameters():
            parameter.detach()
        swapped = {name: forward_ad.make_dual(p.detach(), torch.empty_like(p)) for name, p in adapters.items()}
        others = count.live  # the direction too is there before
        hidden = torch.empty(shape, dtype=dtype, device="meta")
        dual = forward_ad.make_dual(hidden, torch.empty_like(hidden))
        functional_call(layer, swapped, (dual,), inputs)
    return count.peak - others


@contextmanager
def _attention_of(config: PretrainedConfig, device: DeviceType, eager: bool) -> Iterator[None]:
    """Within, a config's attention runs the operator that a device would choose."""
    before = config._attn_implementation
    if not eager:
        config._attn_implementation = f"daj_shapes_{device}"
    try:
        yield
    finally:
        config._attn_implementation = before


def _attend(
    device: DeviceType, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> tuple[Tensor, None]:
    """What transformers' sdpa_attention_forward does, with the operator named."""
    groups = getattr(module, "num_key_value_groups", 1)
    if groups > 1 and not use_gqa_in_sdpa(mask, key, value):
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    bias = None
    if mask is not None:  # sdpa makes numbers of a mask of truth values, in every layer
        bias = torch.zeros_like(mask, dtype=query.dtype)
        bias = bias.masked_fill_(mask.logical_not(), -torch.inf).expand(-1, query.size(1), -1, -1)
    ops = torch.ops.aten
    causal = mask is None
    if device == "cpu":
        output = ops._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, causal, attn_mask=bias)[0]
    elif mask is None and query.dtype is torch.bfloat16:
        output = ops._scaled_dot_product_flash_attention(query, key, value, 0.0, causal)[0]
    else:
        if key.size(1) != query.size(1):
            key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        output = ops._scaled_dot_product_efficient_attention(query, key, value, bias, True, 0.0, causal)[0]
    return output.transpose(1, 2).contiguous(), None


def _register(device: DeviceType) -> None:
    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: Any
    ) -> tuple[Tensor, None]:
        return _attend(device, module, query, key, value, attention_mask)

    AttentionInterface.register(f"daj_shapes_{device}", attention)


for _device in ("cpu", "cuda"):
    _register(_device)  # type: ignore[arg-type]
