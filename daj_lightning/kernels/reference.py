"""The ops in plain torch: the specification of csrc/, and what runs without it.

The bank goes through in slices of columns. A bank in bfloat16 is as large as a model's adapters times K,
and a float32 copy of all of it would double what it was meant to halve.
Letters: K rows, P adapter parameters.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import torch
from torch import Tensor

from daj_lightning.kernels.adam import AdamJacobian

COLUMNS = 1 << 14  # 16 rows of them make 1 MiB of float32, which a cache holds


def grad_bank_dot(bank: Tensor, vector: Tensor) -> Tensor:
    """(K,) inner products of the rows of bank (K, P) with vector (P,).

    Summed in float64: a hypergradient is what remains of terms that nearly cancel.
    """
    dtype = torch.promote_types(bank.dtype, vector.dtype)
    slices = zip(bank.split(COLUMNS, dim=1), vector.split(COLUMNS), strict=True)
    return torch.stack([torch.mv(rows.double(), part.double()) for rows, part in slices]).sum(dim=0).to(dtype)


def grad_bank_dot_adam(bank: Tensor, vector: Tensor, jacobian: AdamJacobian) -> tuple[Tensor, Tensor]:
    """(K,) inner products of the rows with y = J o vector, and () that of the Jacobian's gradient with y."""
    operands = (vector, jacobian.gradient, jacobian.m0, jacobian.v0)
    dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in operands), bank.dtype)
    dots = vector.new_zeros(bank.size(0), dtype=torch.float64)
    along = vector.new_zeros((), dtype=torch.float64)
    slices = zip(bank.split(COLUMNS, dim=1), *(operand.split(COLUMNS) for operand in operands), strict=True)
    for rows, part, gradient, m0, v0 in slices:
        y = (replace(jacobian, gradient=gradient, m0=m0, v0=v0).diagonal() * part).double()
        dots += torch.mv(rows.double(), y)
        along += torch.dot(gradient.double(), y)
    return dots.to(dtype), along.to(dtype)


def grad_bank_combine(bank: Tensor, weights: Tensor) -> Tensor:
    """(P,) sum of the rows of bank (K, P), each times its entry of weights (K,)."""
    dtype = torch.promote_types(bank.dtype, weights.dtype)
    weights = weights.to(dtype)
    return torch.cat([torch.mv(rows.to(dtype).T, weights) for rows in bank.split(COLUMNS, dim=1)])
