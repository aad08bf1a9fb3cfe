"""Every sample's own gradient from one backward pass over several of them.

A linear layer's weight gradient is a sum over tokens, and a sample's is the part of it over that sample's tokens:
(gradient of the output)^T (input), a product for each sample where autograd would have computed one for all. So the
work is that of samples one by one, and the rest of the pass is that of one batch. Exact, since no layer of a judge
mixes samples.
Letters: B samples of a micro-batch, P adapter parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from daj_lightning.judge import Judge
from daj_lightning.records import DajError

Keep = Callable[[Tensor, Tensor, "list[int] | None"], None]
"""Takes a layer's output gradient, its input, and the tokens of each sample (None: the same for all)."""


class PerSampleGradients:
    """Directs the weight gradients of what a judge trains into rows, a sample each.

    Args:
        judge: all that it trains must be the weights of linear layers, as LoRA's are.
    Raises:
        DajError: something else trains.
    """

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        of_weight = {
            id(module.weight): module
            for module in judge.modules()
            if type(module) is nn.Linear and (module.bias is None or not module.bias.requires_grad)
        }
        trained = judge.trained_parameters()
        others = [p for p in trained if id(p) not in of_weight]
        if others or judge.trains == "everything":
            which = f"{len(others)} other tensors of this judge train" if others else "this judge trains everything"
            raise DajError(
                f"gradients of single samples come out of a larger micro-batch for the weights of adapters alone, and "
                f"{which}. Set model.micro_batch_size to 1, or model.judge.init_args.trains to adapters."
            )
        self._layers: list[tuple[nn.Linear, slice]] = []
        start = 0
        for parameter in trained:
            self._layers.append((of_weight[id(parameter)], slice(start, start + parameter.numel())))
            start += parameter.numel()

    def open(self, rows: Tensor, row_of_sample: Sequence[int]) -> None:
        """Until `close`, backward passes over B samples add to rows (., P); autograd computes no weight gradient.

        Args:
            row_of_sample: B indices of rows; samples may share one, and then it gets their sum.
        """
        for layer, columns in self._layers:
            layer.weight.grad = None
            weights = rows[:, columns].unflatten(1, layer.weight.shape)
            keep = partial(_add, [weights[row] for row in row_of_sample])
            layer.forward = partial(self._forward, layer, keep)  # type: ignore[method-assign]

    def close(self) -> None:
        for layer, _ in self._layers:
            del layer.forward  # the class's own again
            assert layer.weight.grad is None, "an adapter's weight was used beside its layer, for all samples together"

    def _forward(self, layer: nn.Linear, keep: Keep, x: Tensor) -> Tensor:
        y: Tensor = _Linear.apply(x, layer.weight, layer.bias, keep, self.judge.sample_lengths)
        return y


def _add(targets: list[Tensor], upstream: Tensor, x: Tensor, sample_lengths: list[int] | None) -> None:
    """Add a layer's weight gradient of each sample to its target (out, in), of any dtype."""
    upstream, x = upstream.flatten(0, -2), x.flatten(0, -2)
    lengths = sample_lengths or [len(x) // len(targets)] * len(targets)
    for target, g, own in zip(targets, upstream.split(lengths), x.split(lengths), strict=True):
        if target.dtype == g.dtype:
            target.addmm_(g.T, own)
        else:
            target.add_(g.T @ own)


class _Linear(torch.autograd.Function):
    """x weight^T + bias; its backward hands over what the weight's gradient is made of, and computes none."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, keep: Keep, sample_lengths: list[int] | None
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.keep, ctx.sample_lengths = keep, sample_lengths
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        ctx.keep(upstream, x, ctx.sample_lengths)
        return (upstream @ weight if ctx.needs_input_grad[0] else None, None, None, None, None)
