"""Ops of csrc/ have no derivative of their own, and say so.

Some run on numbers that are derivatives already; others get theirs from the public function around them. A
torch.library op without a formula would answer a forward-mode derivative with a silent zero (torch 2.13), and a
reverse-mode one with a warning.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._C import DispatchKeySet
from torch.autograd import forward_ad


def refuse_derivatives(op: str, *inputs: object) -> None:
    """Raise NotImplementedError where torch would want to differentiate `op` at these inputs."""
    for tensor in inputs:
        if not isinstance(tensor, Tensor):
            continue
        if tensor.requires_grad and torch.is_grad_enabled():
            raise NotImplementedError(
                f"{op} has no derivative, and an input of shape {tuple(tensor.shape)} requires grad. "
                "Call it under torch.no_grad(), or detach the input."
            )
        if forward_ad.unpack_dual(tensor).tangent is not None:
            raise NotImplementedError(
                f"{op} has no derivative, and an input of shape {tuple(tensor.shape)} carries a forward-mode "
                "tangent. Take the primal of it, or set DAJ_KERNELS=torch where plain torch has the derivative."
            )


def guard(library: torch.library.Library, op: torch._ops.OpOverload) -> None:
    """Make torch.ops.daj's `op` itself refuse, also under functorch's transforms, which wrap their inputs."""

    def refuse_or_run(keys: DispatchKeySet, *inputs: object) -> object:
        refuse_derivatives(op._opname, *inputs)
        with torch._C._AutoDispatchBelowAutograd():
            return op.redispatch(keys & torch._C._after_autograd_keyset, *inputs)

    library.impl(op._opname, refuse_or_run, "Autograd", with_keyset=True)
