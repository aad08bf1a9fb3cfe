"""Losses of samples from the log-probabilities of their tokens: sums over rows, the loss, its weight, in one launch.

The kernels return each token's derivative beside the losses; the backward pass multiplies it by what comes from above.
Letters: B samples, R = n B rows that stand together by sample, N scored tokens over all rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from daj_lightning.kernels.dispatch import uses_extension
from daj_lightning.kernels.segments import PolicyTerms, PreferenceTerms, Segments

_FLOATS = (torch.float32, torch.float64)
_INT, _BOOL = (torch.int64,), (torch.bool,)


def segment_preference_loss(
    logp: Tensor, offsets: Tensor, terms: PreferenceTerms, weights: Tensor | None = None
) -> Tensor:
    """Weighted loss of each sample of one row or of a pair.

    Args:
        logp: (N,) float32 or float64, nats: the scored tokens under the judge, row after row.
        offsets: (R + 1,) int64 beside it, see `segment_offsets`; trusted on a GPU, where the host cannot read it
            without waiting.
        terms: DPOTerms, KTOTerms, ORPOTerms or SFTTerms.
        weights: (B,) float32 or float64; None: ones.
    Returns:
        (B,) differentiable in logp alone; once in reverse mode where the extension computes it, which is the case in
        float32 without a tangent and outside of torch.func. Plain torch computes the rest, whatever DAJ_KERNELS says.
    Raises:
        ValueError: a shape, dtype or device is none of these.
        NotImplementedError: another input than logp carries a gradient or a tangent; a second derivative.
    """
    operands = terms.operands()
    n, (num_rows, num_samples) = terms.rows_per_sample, _sizes(logp, offsets, terms.rows_per_sample)
    of_row, of_sample, of_token = (num_rows, "R rows"), (num_samples, "B samples"), (logp.size(0), "N tokens")
    _check("offsets", offsets, (num_rows + 1, "R rows"), _INT, logp)
    _check("reference", operands.reference, of_row, _FLOATS, logp)
    _check("kl", operands.kl, of_sample, _FLOATS, logp)
    _check("desirable", operands.desirable, of_sample, _BOOL, logp)
    _check("counted", operands.counted, of_token, _BOOL, logp)
    _check("weights", weights, of_sample, _FLOATS, logp)
    if not _fused(logp, operands.reference, operands.kl, weights):
        return _weighted(terms.losses(Segments(logp, offsets)), weights)
    with torch.no_grad():
        loss, coefficient = torch.ops.daj.segment_preference_loss(
            logp.contiguous(),
            offsets.contiguous(),
            operands.kind,
            *(_contiguous(t) for t in (operands.reference, operands.kl, operands.desirable, operands.counted, weights)),
            operands.beta,
            operands.nll_weight,
            operands.desirable_weight,
            operands.undesirable_weight,
        )
    return _Losses.apply(logp, loss, coefficient, offsets, n)


def segment_policy_loss(logp: Tensor, offsets: Tensor, terms: PolicyTerms, weights: Tensor | None = None) -> Tensor:
    """Weighted loss of each group of rows: the sum over rows of (sum of token losses) / divisor.

    Args:
        logp, offsets, weights: as of `segment_preference_loss`; a group of whatever tokens, also of none.
        terms: what GRPO holds constant.
    Returns:
        (B,), differentiable as there.
    Raises:
        ValueError, NotImplementedError: as there.
    """
    operands = terms.operands()
    n, (num_rows, num_samples) = terms.rows_per_sample, _sizes(logp, offsets, terms.rows_per_sample)
    of_row, of_token = (num_rows, "R rows"), (logp.size(0), "N tokens")
    _check("offsets", offsets, (num_rows + 1, "R rows"), _INT, logp)
    _check("advantages", operands.advantages, of_row, _FLOATS, logp)
    _check("divisors", operands.divisors, of_row, _INT, logp)
    _check("old", operands.old, of_token, _FLOATS, logp)
    _check("sampled", operands.sampled, of_token, _FLOATS, logp)
    _check("reference", operands.reference, of_token, _FLOATS, logp)
    _check("weights", weights, (num_samples, "B samples"), _FLOATS, logp)
    if not _fused(logp, operands.advantages, operands.old, operands.sampled, operands.reference, weights):
        return _weighted(terms.losses(Segments(logp, offsets)), weights)
    with torch.no_grad():
        loss, coefficient = torch.ops.daj.segment_policy_loss(
            logp.contiguous(),
            offsets.contiguous(),
            operands.advantages.contiguous(),
            operands.divisors.contiguous(),
            operands.rows_per_sample,
            *(_contiguous(t) for t in (operands.old, operands.sampled, operands.reference, weights)),
            operands.epsilon,
            operands.epsilon_high,
            operands.beta,
            operands.unbiased_kl,
            operands.importance_cap,
        )
    return _Losses.apply(logp, loss, coefficient, offsets, n)


class _Losses(torch.autograd.Function):
    """`loss` as a function of logp, whose derivative is `coefficient`."""

    @staticmethod
    def forward(ctx: Any, logp: Tensor, loss: Tensor, coefficient: Tensor, offsets: Tensor, n: int) -> Tensor:
        ctx.save_for_backward(coefficient, offsets)
        ctx.rows_per_sample = n
        return loss.clone()  # not a view: callers may change it in place

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            # Not once_differentiable: where `upstream` is a constant, it lets the second derivative be a silent zero.
            raise NotImplementedError(
                "segment losses of the extension have no second derivative, and create_graph=True asks for it. "
                "Set DAJ_KERNELS=torch."
            )
        coefficient, offsets = ctx.saved_tensors
        return (
            coefficient * Segments(coefficient, offsets).of_token(upstream, ctx.rows_per_sample),
            None,
            None,
            None,
            None,
        )


def _fused(logp: Tensor, *constants: Tensor | None) -> bool:
    """Whether the extension computes this call."""
    if torch._C._are_functorch_transforms_active() or forward_ad.unpack_dual(logp).tangent is not None:
        return False
    return uses_extension(logp, *(tensor for tensor in constants if tensor is not None))


def _weighted(losses: Tensor, weights: Tensor | None) -> Tensor:
    return losses if weights is None else weights * losses


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _sizes(logp: Tensor, offsets: Tensor, rows_per_sample: int) -> tuple[int, int]:
    """R and B."""
    if logp.dim() != 1 or logp.dtype not in _FLOATS:
        raise ValueError(
            f"logp needs the shape (N,), the tokens of all rows, in float32 or float64; got {tuple(logp.shape)} in "
            f"{logp.dtype}."
        )
    num_rows = offsets.numel() - 1
    if rows_per_sample < 1 or num_rows < 0 or num_rows % rows_per_sample:
        raise ValueError(
            f"offsets needs R + 1 entries for R rows, {rows_per_sample} of each sample; got {num_rows + 1} entries."
        )
    return num_rows, num_rows // rows_per_sample


def _check(
    name: str, tensor: Tensor | None, size: tuple[int, str], dtypes: tuple[torch.dtype, ...], logp: Tensor
) -> None:
    """Refuse a constant that does not fit, or of which somebody wants the derivative."""
    if tensor is None:
        return
    if tensor.shape != (size[0],):
        raise ValueError(f"{name} needs the shape ({size[0]},) for {size[1]}; got {tuple(tensor.shape)}.")
    if tensor.dtype not in dtypes:
        raise ValueError(f"{name} needs {' or '.join(str(dtype) for dtype in dtypes)}; got {tensor.dtype}.")
    if tensor.device != logp.device:
        raise ValueError(f"{name} needs to lie on logp's device, {logp.device}; got {tensor.device}.")
    wants_gradient = tensor.requires_grad and torch.is_grad_enabled()
    if wants_gradient or (tensor.is_floating_point() and forward_ad.unpack_dual(tensor).tangent is not None):
        carried = "requires grad" if wants_gradient else "carries a forward-mode tangent"
        raise NotImplementedError(
            f"segment losses are differentiable in logp alone, and {name} {carried}. Detach it, or multiply the "
            "losses by it outside."
        )
