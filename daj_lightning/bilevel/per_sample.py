"""Every sample's own gradient from one backward pass over several of them.

An adapter's gradient is a sum over tokens, and a sample's is the part of it over that sample's tokens:
(gradient of the output)^T (input), a product for each sample where autograd would have computed one for all. So the
work is that of samples one by one, and the rest of the pass is that of one batch. Exact, since no layer of a judge
mixes samples. The layer and its adapter are one autograd function here: it keeps no input cast up to the adapter's
dtype, scales no output in a pass of its own, and adds up the two gradients of its input in a product. An input that is
itself a product, as behind the gate of an MLP, is not kept: autograd keeps its factors, and they are multiplied again.
Letters: B samples of a micro-batch, P adapter parameters, r rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from daj_lightning.judge import Judge
from daj_lightning.records import DajError

Keep = Callable[[Tensor, Tensor, Tensor, Tensor], None]
"""Takes what both weight gradients are made of, a row a token: for A its output's gradient and its input, for B too."""


class _Adapter(NamedTuple):
    layer: LoraLinear
    down: nn.Parameter
    """(r, in), LoRA's A."""
    up: nn.Parameter
    """(out, r), LoRA's B."""
    columns: tuple[slice, slice]
    """Of a row of P numbers: A's and B's."""


class PerSampleGradients:
    """Directs the gradients of what a judge trains into rows, a sample each.

    Args:
        judge: all that it trains must be plain LoRA of linear layers.
    Raises:
        DajError: something else trains.
    """

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        columns, start = dict[int, slice](), 0
        for parameter in judge.trained_parameters():
            columns[id(parameter)] = slice(start, start + parameter.numel())
            start += parameter.numel()
        self._adapters = []
        for layer in judge.modules():
            if isinstance(layer, LoraLinear) and type(layer.base_layer) is nn.Linear and not layer.lora_variant:
                (name,) = layer.active_adapters
                down, up = (of[name].get_parameter("weight") for of in (layer.lora_A, layer.lora_B))
                if id(down) in columns and id(up) in columns and layer.lora_B[name].bias is None:
                    own = columns.pop(id(down)), columns.pop(id(up))
                    self._adapters.append(_Adapter(layer, down, up, own))
        if columns:
            raise DajError(
                f"gradients of single samples come out of a larger micro-batch for plain LoRA of linear layers alone, "
                f"and {len(columns)} other tensors of this judge train. Set model.micro_batch_size to 1, or "
                f"model.judge.init_args.trains to adapters."
            )

    def open(self, rows: Tensor, row_of_sample: Sequence[int]) -> None:
        """Until `close`, backward passes over B samples add to rows (., P); autograd computes no weight gradient.

        Args:
            row_of_sample: B indices of rows; samples may share one, and then it gets their sum. One for all costs
                no more than autograd.
        """
        if len(set(row_of_sample)) == 1:
            row_of_sample = row_of_sample[:1]
        for adapter in self._adapters:
            adapter.down.grad = adapter.up.grad = None
            targets = [
                [rows[row, columns].view_as(weight) for row in row_of_sample]
                for columns, weight in zip(adapter.columns, (adapter.down, adapter.up), strict=True)
            ]
            adapter.layer.forward = partial(self._forward, adapter, targets)  # type: ignore[method-assign]

    def close(self) -> None:
        for adapter in self._adapters:
            del adapter.layer.forward  # the class's own again
            used = adapter.down.grad is not None or adapter.up.grad is not None
            assert not used, "an adapter's weight was used beside its layer, for all samples together"

    def _forward(self, adapter: _Adapter, targets: list[list[Tensor]], x: Tensor) -> Tensor:
        layer = adapter.layer
        if layer.disable_adapters:  # the reference
            return type(layer).forward(layer, x)
        (name,) = layer.active_adapters
        dropout = layer.lora_dropout[name]
        dropped = None if isinstance(dropout, nn.Identity) else dropout(x.to(adapter.down.dtype))
        lengths = self.judge.sample_lengths
        keep = partial(_keep, targets, lengths)
        base = layer.base_layer
        # A checkpoint would recompute its block to show what it saved, and holds one block alone.
        factors = _factors(x) if dropped is None and not self.judge.gradient_checkpointing else None
        y: Tensor = _Adapted.apply(
            x, dropped, factors, adapter.down, adapter.up, base.weight, base.bias, layer.scaling[name], keep
        )
        return y


def _factors(x: Tensor) -> tuple[Tensor, Tensor] | None:
    """Two tensors of x's shape and dtype whose product x is, if autograd keeps both until x's own backward."""
    product = x.grad_fn
    if x._version:  # changed in place after it was computed
        return None
    if type(product).__name__ != "MulBackward0":
        return None
    factors = product._saved_self, product._saved_other  # type: ignore[union-attr]
    alike = all(f is not None and f.shape == x.shape and f.dtype is x.dtype for f in factors)
    return tuple(f.detach() for f in factors) if alike else None  # type: ignore[return-value]


def _keep(
    targets: list[list[Tensor]], lengths: list[int] | None, g_down: Tensor, x: Tensor, g_up: Tensor, h: Tensor
) -> None:
    # B's gradient is made as its transpose: r rows of a product cost a CPU a third of as many columns.
    downs, ups = targets[0], [target.T for target in targets[1]]
    for own, narrow, wide in ((downs, g_down, x), (ups, h, g_up)):
        # Padded rows are all of one length, and samples that share a row need no division.
        split = lengths if lengths and len(own) > 1 else [len(wide) // len(own)] * len(own)
        for target, narrow_i, wide_i in zip(own, narrow.split(split), wide.split(split), strict=True):
            target.add_(narrow_i.T @ wide_i)


class _Adapted(torch.autograd.Function):
    """x W^T + bias + scale (x A^T) B^T; its backward hands over what the gradients of A and B are made of."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dropped: Tensor | None,
        factors: tuple[Tensor, Tensor] | None,
        down: Tensor,
        up: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scale: float,
        keep: Keep,
    ) -> Tensor:
        x_2d = x.flatten(0, -2)
        y = F.linear(x_2d, weight, bias)
        h = F.linear((x_2d if dropped is None else dropped.flatten(0, -2)).to(down.dtype), down)
        out = y.to(up.dtype).addmm_(h, up.T, alpha=scale).to(y.dtype)
        inputs = factors or (x if dropped is None else dropped,)
        ctx.save_for_backward(h, down, up, weight, *inputs)
        ctx.scale, ctx.keep, ctx.has_dropout = scale, keep, dropped is not None
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        h, down, up, weight, *inputs = ctx.saved_tensors
        x = inputs[0] if len(inputs) == 1 else inputs[0] * inputs[1]
        g = upstream.flatten(0, -2)
        g_up = g.to(up.dtype)
        g_down = F.linear(g_up, up.T.contiguous()).mul_(ctx.scale)  # a third of the time of g_up @ up on a CPU
        ctx.keep(g_down, x.flatten(0, -2).to(down.dtype), g_up, h * ctx.scale)
        through_base = through_adapter = None
        if ctx.needs_input_grad[0]:
            through_base = g @ weight
        if ctx.has_dropout:
            through_adapter = (g_down @ down).view_as(x)
        elif through_base is not None:
            if through_base.dtype == g_down.dtype:
                through_base.addmm_(g_down, down)
            else:
                through_base += (g_down @ down).to(through_base.dtype)
        if through_base is not None:
            through_base = through_base.view(*upstream.shape[:-1], -1)
        return (through_base, through_adapter, *(None,) * 7)
