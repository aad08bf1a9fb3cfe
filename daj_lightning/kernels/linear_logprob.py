"""Log-probabilities of chosen tokens from hidden states and a frozen head; logits (N, V) never exist.

With a frozen head, u = d logp / d hidden does not depend on what comes after logp. So one pass over the
vocabulary (vocabulary_pass.py) finds both; a gradient is then a row scaling of u, a directional derivative a
row dot. Second derivatives would need another pass, which nobody here asks for: they raise.
Letters: N tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._C import DispatchKeySet
from torch._C._functorch import TransformType, is_functorch_wrapped_tensor
from torch.autograd import forward_ad
from torch.distributed.tensor import DTensor

from daj_lightning.kernels.vocabulary_pass import LinearLogprob, Logits, vocabulary_pass

_DTYPES = (torch.bfloat16, torch.float32, torch.float64)


def fused_linear_logprob(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    ignore_index: int | None = None,
    need_u: bool = False,
    need_entropy: bool = False,
) -> LinearLogprob:
    """Log-probability of one token a row, under logits cap(logit_scale * (hidden weight^T + bias)) / temperature.

    `logp` and `lse` have first derivatives with respect to `hidden`, backward and forward. `u` and `entropy`
    have none: a backward through them raises, and so does asking for them where `hidden` carries a tangent.

    Args:
        hidden: (N, H) bfloat16, float32 or float64.
        weight: (V, H) the frozen head, contiguous; its dtype may differ from that of `hidden`.
        targets: (N,) int64, each in [0, V) or `ignore_index`. Checked on a CPU; on a GPU, where a check would
            wait for the device, a target outside gives NaN.
        bias: (V,) the frozen head's.
        softcap: cap(x) = softcap * tanh(x / softcap), > 0 (Gemma 2).
        ignore_index: rows with this target are left out of all products (on a GPU, counting them waits for the
            device); their results and derivatives are 0.
        need_u: return u = d logp / d hidden.
        need_entropy: return the entropy of the distribution.
    Returns:
        logp, lse and entropy in float32 (float64 where hidden or weight is), nats; u in the dtype of `hidden`.
    Raises:
        ValueError: a shape, dtype, device, layout or number is none of these.
        NotImplementedError: a derivative that does not exist here, or a head that is no plain frozen matrix.
    """
    _check_head(weight, bias)
    _check(hidden, weight, targets, bias)
    logits = _check_numbers(logit_scale, softcap, temperature)
    options = (*logits, ignore_index)
    if torch.compiler.is_compiling():
        u_too = need_u or (torch.is_grad_enabled() and hidden.requires_grad)
        logp, lse, u, entropy = torch.ops.daj.fused_linear_logprob(
            hidden, weight, targets, bias, *options, u_too, need_entropy
        )
        return LinearLogprob(logp, lse, u if need_u else None, entropy if need_entropy else None)
    _check_targets(targets, weight.size(0), ignore_index)
    if not _differentiated(hidden):
        return _run(hidden, weight, targets, bias, logits, ignore_index, need_u, need_entropy)
    _refuse_second_derivatives()
    if (need_u or need_entropy) and forward_ad.unpack_dual(hidden).tangent is not None:
        raise NotImplementedError(
            "u and entropy have no forward-mode derivative, and hidden carries a tangent. Ask for them in a call "
            "with the primal of hidden."
        )
    logp, lse, u, entropy = _Function.apply(_run_flat, hidden, weight, targets, bias, *options, True, need_entropy)
    return LinearLogprob(logp, lse, u if need_u else None, entropy if need_entropy else None)


def fused_linear_logprob_vjp(u: Tensor, coefficient: Tensor) -> Tensor:
    """Gradient of sum_n coefficient_n logp_n with respect to the hidden states: coefficient (N,) times rows of u.

    Returns:
        (N, H) in the dtype of u; the product is taken in the wider dtype of the two.
    """
    return (u * coefficient[:, None]).to(u.dtype)


def fused_linear_logprob_jvp(u: Tensor, tangent: Tensor) -> Tensor:
    """Change of each logp along a tangent (N, H) of the hidden states: (N,) float32, float64 if an input is."""
    dtype = torch.promote_types(torch.promote_types(u.dtype, tangent.dtype), torch.float32)
    return (u.to(dtype) * tangent.to(dtype)).sum(dim=1)


class _Function(torch.autograd.Function):
    """What eager autograd and functorch differentiate, and AOTAutograd below the operator."""

    @staticmethod
    def forward(run: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return run(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, _, weight, targets, _, scale, softcap, temperature, ctx.ignore_index, *_ = inputs
        ctx.logits = Logits(scale, softcap, temperature)
        ctx.set_materialize_grads(False)
        logp, lse, u, entropy = output
        ctx.save_for_backward(weight, targets, logp, lse, u)
        ctx.save_for_forward(weight, targets, logp, lse, u, entropy)
        ctx.carries_tangent = False  # jvp, which runs next where there is a tangent, knows

    @staticmethod
    def backward(ctx: Any, logp_bar: Any, lse_bar: Any, u_bar: Any, entropy_bar: Any) -> tuple[Tensor | None, ...]:
        if u_bar is not None or entropy_bar is not None:
            raise NotImplementedError(
                "fused_linear_logprob has first derivatives of logp and lse only; this backward goes through "
                f"{'u, or is a second one' if u_bar is not None else 'entropy'}. Detach it, or differentiate "
                "log_softmax of the logits."
            )
        if ctx.carries_tangent and forward_ad._current_level >= 0:
            raise NotImplementedError(_NO_SECOND)
        weight, targets, logp, lse, u = ctx.saved_tensors
        hidden_bar = None if logp_bar is None else fused_linear_logprob_vjp(u, logp_bar)
        if lse_bar is not None:
            through_lse = fused_linear_logprob_vjp(_lse_slope(ctx, weight, targets, logp, lse, u), lse_bar).to(u.dtype)
            hidden_bar = through_lse if hidden_bar is None else hidden_bar + through_lse
        return (None, hidden_bar, *(None,) * 9)

    @staticmethod
    def jvp(ctx: Any, _: Any, tangent: Tensor, *others: Any) -> tuple[Tensor, ...]:
        weight, targets, logp, lse, u, entropy = ctx.saved_tensors
        ctx.carries_tangent = True
        # u and entropy were not asked for. Their tangents would reach a result through a second derivative
        # alone, and make it NaN if the checks that raise before should miss one.
        unknown = [torch.full_like(output, torch.nan) for output in (u, entropy)]
        slope = _lse_slope(ctx, weight, targets, logp, lse, u)
        return (
            fused_linear_logprob_jvp(u, tangent).to(logp.dtype),
            fused_linear_logprob_jvp(slope, tangent).to(lse.dtype),
            *unknown,
        )


def _lse_slope(ctx: Any, weight: Tensor, targets: Tensor, logp: Tensor, lse: Tensor, u: Tensor) -> Tensor:
    """(N, H) d lse / d hidden: that of the target's logit, less u; 0 in ignored rows."""
    logits: Logits = ctx.logits
    slope = torch.full_like(lse, logits.factor)
    if logits.softcap is not None:
        slope = slope * logits.slope(lse + logp)
    if ctx.ignore_index is not None:
        slope = slope * (targets != ctx.ignore_index)
    inside = targets.clamp(0, weight.size(0) - 1)  # an ignored target may lie outside
    return slope[:, None] * weight[inside] - u


def _run(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    logits: Logits,
    ignore_index: int | None,
    need_u: bool,
    need_entropy: bool,
) -> LinearLogprob:
    """The pass over those rows that count."""
    if ignore_index is None:
        return vocabulary_pass(hidden, weight, targets, bias, logits, need_u=need_u, need_entropy=need_entropy)
    kept = (targets != ignore_index).nonzero().squeeze(1)
    part = vocabulary_pass(hidden[kept], weight, targets[kept], bias, logits, need_u=need_u, need_entropy=need_entropy)
    return LinearLogprob(
        *(
            None if field is None else field.new_zeros(hidden.size(0), *field.shape[1:]).index_copy_(0, kept, field)
            for field in part
        )  # type: ignore[arg-type]
    )


def _run_flat(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    logit_scale: float,
    softcap: float | None,
    temperature: float,
    ignore_index: int | None,
    need_u: bool,
    need_entropy: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """With the arguments of the operator; what was not asked for is empty."""
    logits = Logits(logit_scale, softcap, temperature)
    logp, lse, u, entropy = _run(hidden, weight, targets, bias, logits, ignore_index, need_u, need_entropy)
    return (
        logp,
        lse,
        hidden.new_empty(0, hidden.size(1)) if u is None else u,
        logp.new_empty(0) if entropy is None else entropy,
    )


# torch.compile cannot trace a Function with a jvp. It keeps this operator whole.
_LIBRARY = torch.library.Library("daj", "FRAGMENT")
_LIBRARY.define(
    "fused_linear_logprob(Tensor hidden, Tensor weight, Tensor targets, Tensor? bias, float logit_scale, "
    "float? softcap, float temperature, int? ignore_index, bool need_u, bool need_entropy) "
    "-> (Tensor logp, Tensor lse, Tensor u, Tensor entropy)"
)
_LIBRARY.impl("fused_linear_logprob", _run_flat, "CompositeExplicitAutograd")


def _differentiate_operator(keys: DispatchKeySet, hidden: Tensor, weight: Tensor, *others: Any) -> tuple[Tensor, ...]:
    """The operator above autograd: backward by _Function; tangents, which compiled code would lose, are refused."""
    op = torch.ops.daj.fused_linear_logprob.default
    for tensor in (hidden, weight):
        if forward_ad.unpack_dual(tensor).tangent is not None:
            raise NotImplementedError(
                "torch.ops.daj.fused_linear_logprob has no forward-mode derivative. Call "
                "daj_lightning.kernels.fused_linear_logprob outside torch.compile."
            )
    _check_head(weight, others[1])

    def run(*inputs: Any) -> tuple[Tensor, ...]:
        with torch._C._AutoDispatchBelowAutograd():
            return op.redispatch(keys & torch._C._after_autograd_keyset, *inputs)

    if torch.is_grad_enabled() and hidden.requires_grad:
        if not others[-2]:
            raise NotImplementedError(
                "torch.ops.daj.fused_linear_logprob needs need_u=True where hidden requires grad: u is its gradient."
            )
        return _Function.apply(run, hidden, weight, *others)
    return run(hidden, weight, *others)


_LIBRARY.impl("fused_linear_logprob", _differentiate_operator, "Autograd", with_keyset=True)


@torch.library.register_fake("daj::fused_linear_logprob", lib=_LIBRARY)
def _fake(
    hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    need_u, need_entropy = options[-2:]
    dtype = torch.promote_types(torch.promote_types(hidden.dtype, weight.dtype), torch.float32)
    N, H = hidden.shape
    return (
        hidden.new_empty(N, dtype=dtype),
        hidden.new_empty(N, dtype=dtype),
        hidden.new_empty(N if need_u else 0, H),
        hidden.new_empty(N if need_entropy else 0, dtype=dtype),
    )


_NO_SECOND = (
    "fused_linear_logprob has no second derivatives, and this asks for a tangent of its derivative. Differentiate "
    "log_softmax of the logits instead."
)


def _differentiated(hidden: Tensor) -> bool:
    """Whether a derivative may be asked of a result."""
    return (
        (torch.is_grad_enabled() and hidden.requires_grad)
        or forward_ad.unpack_dual(hidden).tangent is not None
        or is_functorch_wrapped_tensor(hidden)
    )


def _refuse_second_derivatives() -> None:
    """Raise where a forward mode lies around another derivative: u would have to carry its tangent.

    A backward around another derivative needs no check here: it reaches u, and _Function.backward raises.
    """
    stack = torch._C._functorch.get_interpreter_stack() or []
    modes = [level.key() for level in stack if level.key() in (TransformType.Grad, TransformType.Jvp)]
    around = forward_ad._current_level >= 0 and TransformType.Jvp not in modes  # a dual_level outside of functorch
    if TransformType.Jvp in modes[:-1] or (around and modes):
        raise NotImplementedError(_NO_SECOND)


def _check_head(weight: Tensor, bias: Tensor | None) -> None:
    """A plain frozen matrix, and nothing that would need its gradient."""
    if isinstance(weight, DTensor):
        raise NotImplementedError(
            f"weight is a DTensor of shape {tuple(weight.shape)}; the pass needs all of it on one device. Call "
            "weight.full_tensor() first."
        )
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is None:
            continue
        if tensor.requires_grad and torch.is_grad_enabled():
            raise NotImplementedError(
                f"{name} {tuple(tensor.shape)} requires grad, and the head is frozen here. Train with log_softmax of "
                "the logits, or call .requires_grad_(False) on it."
            )
        # torch.compile cannot trace the question whether a functorch transform holds the tensor.
        wrapped = not torch.compiler.is_compiling() and is_functorch_wrapped_tensor(tensor)
        if wrapped or forward_ad.unpack_dual(tensor).tangent is not None:
            raise NotImplementedError(
                f"{name} {tuple(tensor.shape)} takes part in a transform or carries a tangent, and the head is frozen "
                "here. Differentiate log_softmax of the logits instead."
            )


def _check(hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None) -> None:
    if weight.dim() != 2 or weight.size(0) == 0:
        raise ValueError(f"weight needs the shape (V, H) with a token or more; got {tuple(weight.shape)}.")
    V, H = weight.shape
    if hidden.dim() != 2 or hidden.size(1) != H:
        raise ValueError(f"hidden needs the shape (N, {H}) for a weight of {V, H}; got {tuple(hidden.shape)}.")
    N = hidden.size(0)
    if targets.shape != (N,) or targets.dtype is not torch.int64:
        raise ValueError(
            f"targets needs the shape ({N},) for hidden states of {N, H}, and int64; got {tuple(targets.shape)}, "
            f"{targets.dtype}."
        )
    if bias is not None and bias.shape != (V,):
        raise ValueError(f"bias needs the shape ({V},) for a weight of {V, H}; got {tuple(bias.shape)}.")
    for name, tensor in (("hidden", hidden), ("weight", weight), ("bias", bias)):
        if tensor is not None and tensor.dtype not in _DTYPES:
            raise ValueError(f"{name} needs bfloat16, float32 or float64; got {tensor.dtype}.")
    for name, tensor in (("weight", weight), ("targets", targets), ("bias", bias)):
        if tensor is not None and tensor.device != hidden.device:
            raise ValueError(f"{name} needs to lie beside hidden, on {hidden.device}; got {tensor.device}.")
    if not weight.is_contiguous():
        raise ValueError(
            f"weight {V, H} needs contiguous memory; got strides {weight.stride()}. Call .contiguous() on it, once."
        )


def _check_numbers(logit_scale: float, softcap: float | None, temperature: float) -> Logits:
    if softcap is not None and not softcap > 0:
        raise ValueError(f"softcap needs to be > 0, or None for logits without a cap; got {softcap}.")
    if not temperature > 0:
        raise ValueError(f"temperature needs to be > 0; got {temperature}.")
    return Logits(float(logit_scale), None if softcap is None else float(softcap), float(temperature))


def _check_targets(targets: Tensor, V: int, ignore_index: int | None) -> None:
    if targets.is_cuda or targets.numel() == 0:
        return
    wrong = (targets < 0) | (targets >= V)
    if ignore_index is not None:
        wrong &= targets != ignore_index
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"targets[{row}] is {int(targets[row])}; it needs to lie in [0, {V}), the weight's rows"
            f"{'' if ignore_index is None else f', or be ignore_index = {ignore_index}'}."
        )
