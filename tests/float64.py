"""float64 judges: transformers computes RMSNorm and eager softmax in float32 whatever the model's dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.models.qwen3 import modeling_qwen3

_rms_norm = modeling_qwen3.Qwen3RMSNorm.forward
_softmax = torch.nn.functional.softmax


def rms_norm(self: modeling_qwen3.Qwen3RMSNorm, hidden: Tensor) -> Tensor:
    if hidden.dtype is not torch.float64:
        return _rms_norm(self, hidden)
    variance = hidden.pow(2).mean(-1, keepdim=True)
    return self.weight * hidden * torch.rsqrt(variance + self.variance_epsilon)


def softmax(x: Tensor, dim: int = -1, dtype: torch.dtype | None = None) -> Any:
    return _softmax(x, dim=dim, dtype=dtype if x.dtype is not torch.float64 else None)


def compute_in_float64(replace: Callable[[Any, str, Any], None] = setattr) -> None:
    """For the rest of this process, or until a monkeypatch that does the replacing is undone."""
    replace(modeling_qwen3.Qwen3RMSNorm, "forward", rms_norm)
    replace(torch.nn.functional, "softmax", softmax)
