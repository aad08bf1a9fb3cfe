"""The weighting net and what its parameters owe to a derivative by its weights, in one launch.

    alpha_i = squareplus(w3 . tanh(W2 tanh(W1 x_i + b1) + b2) + b3)

Letters: B samples, F features, H hidden units, N = H (F + H + 3) + 1 parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from daj_lightning.kernels.autograd import refuse_derivatives
from daj_lightning.kernels.dispatch import uses_extension

MAX_FEATURES, MAX_HIDDEN = 8, 64
"""Of the kernels; csrc/include/daj/instance_net.h."""


def squareplus(x: Tensor) -> Tensor:
    """(x + sqrt(x^2 + 4)) / 2 (Barron 2021), elementwise; 1 at 0, without cancellation for x < 0."""
    root = (x * x + 4).sqrt()
    # Clamped: the branch not taken must not divide by zero, which would make the derivative NaN.
    return torch.where(x < 0, 2 / (root - x.clamp(max=0)), (x + root) / 2)


def instance_net_hypergrad(
    features: Tensor, parameters: Tensor, derivative: Tensor, hidden: int
) -> tuple[Tensor, Tensor]:
    """Weights of samples, and the gradient sum_i d_i d alpha_i / d parameters.

    Args:
        features: (B, F) float32 or float64, contiguous.
        parameters: (N,) beside them and of their dtype: W1 (H, F), b1, W2 (H, H), b2, w3, b3, as nn.Sequential
            lists them.
        derivative: (B,) d, of the same dtype.
        hidden: H.
    Returns:
        weights (B,) and gradient (N,), detached; the same bits on every call.
    Raises:
        ValueError: a shape, dtype, device or layout is none of these.
        NotImplementedError: an input carries a gradient or a tangent.
    """
    _check(features, parameters, derivative, hidden)
    refuse_derivatives("instance_net_hypergrad", features, parameters, derivative)
    too_large = features.size(1) > MAX_FEATURES or hidden > MAX_HIDDEN
    unless = f"its net has at most {MAX_FEATURES} features and {MAX_HIDDEN} hidden units" if too_large else ""
    if uses_extension(features, parameters, derivative, unless=unless):
        return torch.ops.daj.instance_net_hypergrad(features, parameters, derivative, hidden)
    with torch.enable_grad():
        variable = parameters.detach().requires_grad_()
        weights = instance_net(features, variable, hidden)
        (gradient,) = torch.autograd.grad(weights, variable, derivative)
    return weights.detach(), gradient


def instance_net(features: Tensor, parameters: Tensor, hidden: int) -> Tensor:
    """alpha (B,), in plain torch and differentiable: the specification."""
    F, H = features.size(1), hidden
    W1, b1, W2, b2, w3, b3 = parameters.split([H * F, H, H * H, H, H, 1])
    first = linear(features, W1.view(H, F), b1).tanh()
    second = linear(first, W2.view(H, H), b2).tanh()
    return squareplus(linear(second, w3.view(1, H), b3)).squeeze(1)


def _check(features: Tensor, parameters: Tensor, derivative: Tensor, hidden: int) -> None:
    if features.dim() != 2 or features.size(1) == 0 or hidden < 1:
        raise ValueError(
            f"features needs the shape (B, F) with F >= 1, and hidden at least 1; got {tuple(features.shape)} and "
            f"{hidden}."
        )
    if features.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"features needs float32 or float64; got {features.dtype}.")
    size = hidden * (features.size(1) + hidden + 3) + 1
    for name, tensor, wanted in (("parameters", parameters, size), ("derivative", derivative, features.size(0))):
        if tensor.shape != (wanted,):
            raise ValueError(
                f"{name} needs the shape ({wanted},) for features of shape {tuple(features.shape)} and {hidden} hidden "
                f"units; got {tuple(tensor.shape)}."
            )
        if tensor.dtype != features.dtype or tensor.device != features.device:
            raise ValueError(
                f"{name} needs the features' dtype and device, {features.dtype} on {features.device}; got "
                f"{tensor.dtype} on {tensor.device}."
            )
    for name, tensor in (("features", features), ("parameters", parameters), ("derivative", derivative)):
        if not tensor.is_contiguous():
            raise ValueError(
                f"{name} {tuple(tensor.shape)} needs contiguous memory; got strides {tensor.stride()}. "
                "Call .contiguous() on it."
            )
