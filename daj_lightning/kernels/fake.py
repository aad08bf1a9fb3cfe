"""Shapes of the ops' results without their values: what torch.compile traces with."""

from __future__ import annotations

import torch
from torch import Tensor


def register(library: torch.library.Library) -> None:
    torch.library.register_fake("daj::grad_bank_dot", _fake_dot, lib=library)
    torch.library.register_fake("daj::grad_bank_combine", _fake_combine, lib=library)
    torch.library.register_fake("daj::logprob_tile", _fake_nothing, lib=library)
    torch.library.register_fake("daj::logprob_finish", _fake_nothing, lib=library)


def _fake_dot(bank: Tensor, vector: Tensor) -> Tensor:
    return vector.new_empty(bank.size(0))


def _fake_combine(bank: Tensor, weights: Tensor) -> Tensor:
    return weights.new_empty(bank.size(1))


def _fake_nothing(*inputs: object) -> None:
    """Of an op that writes into its inputs."""
