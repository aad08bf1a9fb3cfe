"""Shapes of the ops' results without their values: what torch.compile traces with."""

from __future__ import annotations

import torch
from torch import Tensor


def register(library: torch.library.Library) -> None:
    torch.library.register_fake("daj::grad_bank_dot", _fake_dot, lib=library)
    torch.library.register_fake("daj::grad_bank_dot_adam", _fake_dot_adam, lib=library)
    torch.library.register_fake("daj::grad_bank_combine", _fake_combine, lib=library)
    torch.library.register_fake("daj::instance_net_hypergrad", _fake_instance_net, lib=library)


def _fake_dot(bank: Tensor, vector: Tensor) -> Tensor:
    return vector.new_empty(bank.size(0))


def _fake_dot_adam(bank: Tensor, vector: Tensor, *of_jacobian: Tensor | float) -> Tensor:
    return vector.new_empty(bank.size(0) + 1)


def _fake_combine(bank: Tensor, weights: Tensor) -> Tensor:
    return weights.new_empty(bank.size(1))


def _fake_instance_net(features: Tensor, parameters: Tensor, derivative: Tensor, hidden: int) -> tuple[Tensor, Tensor]:
    return torch.empty_like(derivative), torch.empty_like(parameters)
