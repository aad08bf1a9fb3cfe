"""Shapes of the ops' results without their values: what torch.compile traces with."""

from __future__ import annotations

import torch
from torch import Tensor

from daj_lightning.kernels.segments import KTOTerms, SFTTerms


def register(library: torch.library.Library) -> None:
    torch.library.register_fake("daj::grad_bank_dot", _fake_dot, lib=library)
    torch.library.register_fake("daj::grad_bank_dot_adam", _fake_dot_adam, lib=library)
    torch.library.register_fake("daj::grad_bank_combine", _fake_combine, lib=library)
    torch.library.register_fake("daj::segment_preference_loss", _fake_preference_loss, lib=library)
    torch.library.register_fake("daj::segment_policy_loss", _fake_policy_loss, lib=library)
    torch.library.register_fake("daj::instance_net_hypergrad", _fake_instance_net, lib=library)
    torch.library.register_fake("daj::bfloat16_mm", _fake_nothing, lib=library)
    torch.library.register_fake("daj::logprob_tile", _fake_nothing, lib=library)
    torch.library.register_fake("daj::logprob_finish", _fake_nothing, lib=library)


def _fake_dot(bank: Tensor, vector: Tensor) -> Tensor:
    return vector.new_empty(bank.size(0))


def _fake_dot_adam(bank: Tensor, vector: Tensor, *of_jacobian: Tensor | float) -> Tensor:
    return vector.new_empty(bank.size(0) + 1)


def _fake_combine(bank: Tensor, weights: Tensor) -> Tensor:
    return weights.new_empty(bank.size(1))


def _fake_preference_loss(logp: Tensor, offsets: Tensor, kind: int, *constants: object) -> tuple[Tensor, Tensor]:
    rows_per_sample = 1 if kind in (KTOTerms.kind, SFTTerms.kind) else 2
    return _fake_losses(logp, offsets, rows_per_sample)


def _fake_policy_loss(
    logp: Tensor, offsets: Tensor, advantages: Tensor, divisors: Tensor, rows_per_sample: int, *constants: object
) -> tuple[Tensor, Tensor]:
    return _fake_losses(logp, offsets, rows_per_sample)


def _fake_losses(logp: Tensor, offsets: Tensor, rows_per_sample: int) -> tuple[Tensor, Tensor]:
    return logp.new_empty((offsets.size(0) - 1) // rows_per_sample), torch.empty_like(logp)


def _fake_instance_net(features: Tensor, parameters: Tensor, derivative: Tensor, hidden: int) -> tuple[Tensor, Tensor]:
    return torch.empty_like(derivative), torch.empty_like(parameters)


def _fake_nothing(*inputs: object) -> None:
    """Of an op that writes into its inputs."""
