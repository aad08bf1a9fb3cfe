"""The adapters seen as one vector of P numbers, without copying them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FlatView:
    """Maps a list of parameters to slices of flat vectors, in the list's order.

    Args:
        parameters: what trains; all on one device and of one dtype.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self._lengths = [parameter.numel() for parameter in self.parameters]
        self.size = sum(self._lengths)
        """P."""

    def new_zeros(self, *leading: int, dtype: torch.dtype | None = None) -> Tensor:
        """Zeros of shape (*leading, P) beside the parameters."""
        first = self.parameters[0]
        return torch.zeros(*leading, self.size, dtype=dtype or first.dtype, device=first.device)

    def split(self, flat: Tensor) -> list[Tensor]:
        """Views of a (P,) vector, each in its parameter's shape."""
        parts = flat.split(self._lengths)
        return [part.view_as(parameter) for part, parameter in zip(parts, self.parameters, strict=True)]

    def point_gradients_at(self, flat: Tensor) -> None:
        """Let autograd accumulate into `flat` (P,): every `p.grad` becomes a view of it."""
        for parameter, view in zip(self.parameters, self.split(flat), strict=True):
            parameter.grad = view

    def release_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def shorten(self, rows: Tensor, max_norm: float | None) -> None:
        """Scale each of rows (B, P) by min(1, c / n), n its norm in the parameters' dtype; None: leave them."""
        if max_norm is None:
            return
        dtype = self.parameters[0].dtype  # a sum of squares per parameter: one of all P float32 numbers loses digits
        of_parts = [torch.linalg.vector_norm(part, dim=1, dtype=dtype) for part in rows.split(self._lengths, dim=1)]
        norms = torch.stack(of_parts).norm(dim=0)
        rows.mul_((max_norm / norms).clamp(max=1.0)[:, None])

    def gather(self, tensors: Sequence[Tensor]) -> Tensor:
        """(P,) copy of one tensor per parameter."""
        return torch.cat([tensor.detach().flatten() for tensor in tensors])
