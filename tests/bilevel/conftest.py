"""float64 judges: transformers computes RMSNorm and eager softmax in float32 whatever the model's dtype."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers.models.qwen3 import modeling_qwen3


@pytest.fixture
def true_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    original = modeling_qwen3.Qwen3RMSNorm.forward

    def rms_norm(self: modeling_qwen3.Qwen3RMSNorm, hidden: Tensor) -> Tensor:
        if hidden.dtype is not torch.float64:
            return original(self, hidden)
        variance = hidden.pow(2).mean(-1, keepdim=True)
        return self.weight * hidden * torch.rsqrt(variance + self.variance_epsilon)

    softmax = torch.nn.functional.softmax
    monkeypatch.setattr(modeling_qwen3.Qwen3RMSNorm, "forward", rms_norm)
    monkeypatch.setattr(
        torch.nn.functional,
        "softmax",
        lambda x, dim=-1, dtype=None: softmax(x, dim=dim, dtype=dtype if x.dtype is not torch.float64 else None),
    )
