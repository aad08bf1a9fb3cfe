"""Ops on a gradient bank: the rows of a window against a direction, and their weighted sum.

Letters: K samples in the window (rows), P adapter parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor

from daj_lightning.kernels import reference
from daj_lightning.kernels.adam import AdamJacobian
from daj_lightning.kernels.autograd import refuse_derivatives
from daj_lightning.kernels.dispatch import uses_extension


def grad_bank_dot(bank: Tensor, vector: Tensor) -> Tensor:
    """Inner product of each row with one vector.

    Args:
        bank: (K, P) bfloat16, float32 or float64, contiguous.
        vector: (P,) float32 or float64, contiguous, beside the bank.
    Returns:
        (K,) in the wider dtype of the two; the same bits on every call.
    Raises:
        ValueError: a shape, dtype, device or layout is none of these.
        NotImplementedError: an input carries a gradient or a tangent.
    """
    _check("vector", bank, vector, dim=1)
    refuse_derivatives("grad_bank_dot", bank, vector)
    if uses_extension(bank, vector):
        return torch.ops.daj.grad_bank_dot(bank, vector)
    return reference.grad_bank_dot(bank, vector)


def grad_bank_dot_adam(bank: Tensor, vector: Tensor, jacobian: AdamJacobian) -> tuple[Tensor, Tensor]:
    """Inner product of each row with y = J o vector, J Adam's Jacobian; neither J nor y is stored.

    Args:
        bank: (K, P) bfloat16, float32 or float64, contiguous.
        vector: (P,) float32 or float64, contiguous, beside the bank.
        jacobian: its gradient, m0 and v0 as the vector.
    Returns:
        (K,) products and (), <gradient, y>, in the widest dtype; the same bits on every call.
    Raises:
        ValueError: a shape, dtype, device or layout is none of these, or the step's number is below 1.
        NotImplementedError: an input carries a gradient or a tangent.
    """
    operands = {"vector": vector, "gradient": jacobian.gradient, "m0": jacobian.m0, "v0": jacobian.v0}
    for name, operand in operands.items():
        _check(name, bank, operand, dim=1)
    if jacobian.step < 1:
        raise ValueError(f"step counts Adam's steps from 1; got {jacobian.step}.")
    refuse_derivatives("grad_bank_dot_adam", bank, *operands.values())
    if uses_extension(bank, *operands.values()):
        j = jacobian
        both = torch.ops.daj.grad_bank_dot_adam(bank, *operands.values(), j.lr, j.beta1, j.beta2, j.eps, j.step)
        return both[:-1], both[-1]
    return reference.grad_bank_dot_adam(bank, vector, jacobian)


def grad_bank_combine(bank: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of the rows.

    Args:
        bank: (K, P) bfloat16, float32 or float64, contiguous.
        weights: (K,) float32 or float64, contiguous, beside the bank.
    Returns:
        (P,) in the wider dtype of the two; the same bits on every call.
    Raises:
        ValueError: a shape, dtype, device or layout is none of these.
        NotImplementedError: an input carries a gradient or a tangent.
    """
    _check("weights", bank, weights, dim=0)
    refuse_derivatives("grad_bank_combine", bank, weights)
    if uses_extension(bank, weights):
        return torch.ops.daj.grad_bank_combine(bank, weights)
    return reference.grad_bank_combine(bank, weights)


def _check(name: str, bank: Tensor, operand: Tensor, dim: int) -> None:
    """Refuse operands that do not fit: one number is needed for each entry of the bank's `dim`."""
    if bank.dim() != 2:
        raise ValueError(f"bank needs the shape (K, P): one row per sample; got {tuple(bank.shape)}.")
    if bank.dtype not in (torch.bfloat16, torch.float32, torch.float64):
        raise ValueError(f"bank needs bfloat16, float32 or float64; got {bank.dtype}.")
    if operand.shape != (bank.size(dim),):
        raise ValueError(
            f"{name} needs the shape ({bank.size(dim)},) for a bank of shape {tuple(bank.shape)}; "
            f"got {tuple(operand.shape)}."
        )
    if operand.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} needs float32 or float64; got {operand.dtype}.")
    if operand.device != bank.device:
        raise ValueError(f"{name} needs to lie on the bank's device, {bank.device}; got {operand.device}.")
    for what, tensor in (("bank", bank), (name, operand)):
        if not tensor.is_contiguous():
            raise ValueError(
                f"{what} {tuple(tensor.shape)} needs contiguous memory; got strides {tensor.stride()}. "
                "Call .contiguous() on it."
            )
