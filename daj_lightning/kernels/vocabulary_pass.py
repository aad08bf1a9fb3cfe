"""Log-probabilities of chosen tokens in one pass over the vocabulary: the algorithm, without derivatives.

A tile of logits lives for one step of an online softmax, whose state is four numbers a row:
    m  what exponents are relative to: a maximum, raised only when a tile tops it by more than MARGIN
    l  sum of P_v = exp(z_v - m)
    a  sum of P_v (z_v - m)
    z_y  the target's logit
The target is left out of m, l and a. So its probability comes from l against z_y, and where it is near one,
the small rest is a sum of small numbers instead of a difference of large ones. Beside them the accumulator o,
the sum of P_v s_v W_v with s_v the slope of the soft cap, becomes u = d logp / d hidden at the end.
Everything here is in the dtype `work`: float32, or float64 where an input is.
Letters: N tokens, H hidden size, V vocabulary, R rows of a block, C columns of a tile, y a row's target.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from daj_lightning.kernels.dispatch import multiplies_bfloat16, uses_extension

NONE = -1e30  # m before the first logit; finite, so that no difference of it is NaN
MARGIN = 20.0
CUDA_TILE = (8192, 8192)  # rows, columns; csrc/cuda/linear_logprob.cu holds a tile's row in registers
CPU_ROWS = 1024
CPU_TILE_BYTES = 4 << 20


class LinearLogprob(NamedTuple):
    """What one pass finds; float32, or float64 where the hidden states or the head are."""

    logp: Tensor
    """(N,) log-probability of each target, nats."""
    lse: Tensor
    """(N,) log of the sum of all exponentials."""
    u: Tensor | None
    """(N, H) d logp / d hidden, in the dtype of the hidden states; None if not asked for."""
    entropy: Tensor | None
    """(N,) of the whole distribution, nats; None if not asked for."""


class Logits(NamedTuple):
    """How the head's products x become logits: z = cap(scale * (x + bias)) / temperature."""

    scale: float = 1.0
    softcap: float | None = None
    """cap(x) = softcap * tanh(x / softcap)."""
    temperature: float = 1.0

    @property
    def factor(self) -> float:
        """dz / dx where the cap is flat."""
        return self.scale / self.temperature

    def of(self, products: Tensor, bias: Tensor | None) -> Tensor:
        """The logits, written over the products."""
        if bias is not None:
            products += bias
        if self.softcap is None:
            return products.mul_(self.factor) if self.factor != 1 else products
        products.mul_(self.scale / self.softcap).tanh_()
        return products.mul_(self.softcap / self.temperature)

    def slope(self, logits: Tensor) -> Tensor:
        """s = 1 - tanh^2, the derivative of the cap; 0 for a logit that was left out as -inf."""
        assert self.softcap is not None
        return (1 - (logits * (self.temperature / self.softcap)).square()).clamp_(min=0)


class Block(NamedTuple):
    """A block of rows on its way through the vocabulary."""

    targets: Tensor
    """(R,) int64."""
    state: Tensor
    """(4, R): m, l, a, z_y."""
    accumulator: Tensor | None
    """(R, H) o; None where u is not needed."""


def vocabulary_pass(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    logits: Logits = Logits(),  # noqa: B008  a NamedTuple does not change
    *,
    need_u: bool = False,
    need_entropy: bool = False,
    tile: tuple[int, int] | None = None,
    extension: bool | None = None,
) -> LinearLogprob:
    """Log-probability of each row's target.

    Args:
        hidden, weight, targets, bias: (N, H), (V, H), (N,) int64, (V,), on one device.
        tile: rows and columns at a time; None chooses by the device.
        extension: whether csrc/ does the steps between the products; None: on CUDA where it can. (On a CPU
            it can, too, so that tests there run the formulas of the GPU; it would save 1 % of the time.)
    """
    work = torch.promote_types(torch.promote_types(hidden.dtype, weight.dtype), torch.float32)
    N, H = hidden.shape
    rows, columns = tile or _tile(hidden, weight, work)
    if extension is None:
        extension = hidden.is_cuda and uses_extension(hidden, weight)
    found = LinearLogprob(
        logp=hidden.new_empty(N, dtype=work),
        lse=hidden.new_empty(N, dtype=work),
        u=hidden.new_empty(N, H) if need_u else None,
        entropy=hidden.new_empty(N, dtype=work) if need_entropy else None,
    )
    products = _Products(weight, work, hidden.dtype, min(rows, N), columns)
    if bias is not None:
        bias = bias.to(work)
    steps: type[_TorchSteps] | type[_ExtensionSteps] = _ExtensionSteps if extension else _TorchSteps
    for first_row in range(0, N, rows):
        here = slice(first_row, first_row + rows)
        part = LinearLogprob(*(None if field is None else field[here] for field in found))  # type: ignore[arg-type]
        block = _start(targets[here], part.u, work)
        operand = hidden[here].to(products.dtype)
        for first in range(0, weight.size(0), columns):
            tile_RC = products.forward(operand, first)
            bias_C = None if bias is None else bias[first : first + columns]
            weights_RC = products.narrow(tile_RC) if need_u else None
            steps.tile(tile_RC, weights_RC, block, first, bias_C, logits, need_entropy)
            if block.accumulator is not None:
                assert weights_RC is not None
                products.accumulate(block.accumulator, weights_RC, first)
        steps.finish(block, weight, logits, part)
    return found


def _tile(hidden: Tensor, weight: Tensor, work: torch.dtype) -> tuple[int, int]:
    """Rows and columns of a tile: on a CPU, a slice of the weight and the tile of logits fill a few MiB each."""
    if hidden.is_cuda:
        return CUDA_TILE
    rows = min(CPU_ROWS, max(hidden.size(0), 1))
    widest = max(rows, hidden.size(1), 1)
    columns = max(CPU_TILE_BYTES // (work.itemsize * widest), 64)
    return rows, columns


def _start(targets: Tensor, u: Tensor | None, work: torch.dtype) -> Block:
    state = torch.zeros(4, targets.size(0), dtype=work, device=targets.device)
    state[0] = NONE
    state[3] = torch.nan  # stays, should a target lie outside the vocabulary
    if u is None:
        return Block(targets, state, None)
    accumulator = u.zero_() if u.dtype is work else torch.zeros_like(u, dtype=work)
    return Block(targets, state, accumulator)


class _Products:
    """Both matrix products of a tile, and the memory they share from tile to tile.

    A GPU multiplies bfloat16 as it is, adding up in float32, and so does the extension on a CPU with an instruction
    for it. Any other CPU multiplies in `work`, and the slice of a bfloat16 weight is widened: torch's bfloat16
    products there are emulated at a fifth of the speed, or rounded to bfloat16.
    """

    def __init__(self, weight: Tensor, work: torch.dtype, hidden_dtype: torch.dtype, rows: int, columns: int) -> None:
        half = weight.dtype is torch.bfloat16 and hidden_dtype is torch.bfloat16
        self.by_extension = half and not weight.is_cuda and weight.is_contiguous() and multiplies_bfloat16()
        half = half and (weight.is_cuda or self.by_extension)
        self.dtype = torch.bfloat16 if half else work
        """Of the operands."""
        self.weight, self.work, self.columns = weight, work, columns
        columns = min(columns, weight.size(0))
        self.tile = weight.new_empty(rows * columns, dtype=work)
        self.narrowed = weight.new_empty(rows * columns, dtype=torch.bfloat16) if half else None
        self.widened = weight.new_empty(columns, weight.size(1), dtype=work) if weight.dtype is not self.dtype else None
        self.slice_at = -1
        self.slice = weight

    def forward(self, operand: Tensor, first: int) -> Tensor:
        """(R, C) operand times a slice of the weight; overwrites the last tile."""
        weight = self._slice(first)
        tile = self.tile[: operand.size(0) * weight.size(0)].view(operand.size(0), weight.size(0))
        if self.narrowed is None:
            return torch.mm(operand, weight.T, out=tile)
        if self.by_extension:
            torch.ops.daj.bfloat16_mm(operand.contiguous(), weight, True, False, tile)
            return tile
        return torch.mm(operand, weight.T, out_dtype=self.work, out=tile)

    def narrow(self, tile: Tensor) -> Tensor:
        """Where the tile's exponentials go, as the second product wants them: the tile itself, or bfloat16."""
        return tile if self.narrowed is None else self.narrowed[: tile.numel()].view(tile.shape)

    def accumulate(self, accumulator: Tensor, weights: Tensor, first: int) -> None:
        """accumulator (R, H) += weights (R, C) times the slice of the weight."""
        weight = self._slice(first)
        if self.narrowed is None:
            accumulator.addmm_(weights, weight)
        elif self.by_extension:
            torch.ops.daj.bfloat16_mm(weights, weight, False, True, accumulator)
        elif _adds_bfloat16_to_float32(weight.device):
            torch.addmm(accumulator, weights, weight, out_dtype=self.work, out=accumulator)
        else:
            accumulator += torch.mm(weights, weight, out_dtype=self.work)

    def _slice(self, first: int) -> Tensor:
        if first != self.slice_at:
            self.slice_at, self.slice = first, self.weight[first : first + self.columns]
            if self.widened is not None:
                self.slice = self.widened[: self.slice.size(0)].copy_(self.slice)
        return self.slice


@functools.cache
def _adds_bfloat16_to_float32(device: torch.device) -> bool:
    """Whether addmm with out_dtype takes a float32 summand; early ones wanted it in bfloat16 like the factors."""
    half, full = torch.empty(8, 8, dtype=torch.bfloat16, device=device), torch.empty(8, 8, device=device)
    try:
        torch.addmm(full, half, half, out_dtype=torch.float32, out=full)
    except RuntimeError:
        return False
    return True


class _TorchSteps:
    """The steps between the products, in plain torch: the specification of csrc/include/daj/linear_logprob.h."""

    @staticmethod
    def tile(
        tile: Tensor,
        weights: Tensor | None,
        block: Block,
        first: int,
        bias: Tensor | None,
        logits: Logits,
        need_entropy: bool,
    ) -> None:
        """Fold a tile of products (R, C) into the state; leaves P_v s_v in `weights`, fading the accumulator."""
        m, l, a, z_y = block.state  # noqa: E741
        z = logits.of(tile, bias)
        column = block.targets - first
        here = (column >= 0) & (column < z.size(1))
        column = column.clamp(0, z.size(1) - 1)[:, None]
        at = z.gather(1, column).squeeze(1)
        torch.where(here, at, z_y, out=z_y)
        z.scatter_(1, column, torch.where(here, -torch.inf, at)[:, None])
        top = z.amax(dim=1)
        raised = torch.where(top > m + MARGIN, top, m)
        fade = (m - raised).exp_()
        slope = logits.slope(z) if weights is not None and logits.softcap is not None else None
        z -= raised[:, None]
        if need_entropy:
            a.add_(l * (m - raised)).mul_(fade)
            # A logit of -inf adds nothing; 0 times -inf would be NaN.
            a += (z.exp() * z.clamp(min=NONE)).sum(dim=1)
        P = z.exp_()
        l.mul_(fade).add_(P.sum(dim=1))
        m.copy_(raised)
        if weights is None or block.accumulator is None:
            return
        block.accumulator.mul_(fade[:, None])
        if slope is not None:
            P *= slope
        if weights is not tile:
            weights.copy_(P)

    @staticmethod
    def finish(block: Block, weight: Tensor, logits: Logits, to: LinearLogprob) -> None:
        """Write the results of a block from its state; its accumulator is used up."""
        m, l, a, z_y = block.state  # noqa: E741
        log_l = l.log()
        gap = (m - z_y) + log_l  # the log-odds against the target; -inf where it is the only token
        torch.logaddexp(gap, torch.zeros_like(gap), out=to.logp).neg_()
        torch.logaddexp(m + log_l, z_y, out=to.lse)
        others = gap.sigmoid()  # 1 - p_y
        l = torch.where(l > 0, l, 1)  # noqa: E741  without others, there is nothing to divide
        if to.entropy is not None:
            # -log p_v is lse - z_v: the target's share, and the mean over the others.
            surprise = torch.logaddexp(log_l, z_y - m) - a / l
            to.entropy.copy_(others * surprise - to.logp.exp() * to.logp)
        if to.u is None or block.accumulator is None:
            return
        slope_y = logits.slope(z_y) if logits.softcap is not None else torch.ones_like(z_y)
        u = block.accumulator.div_(-l[:, None])
        u.addcmul_(weight[block.targets.clamp(0, weight.size(0) - 1)].to(u.dtype), slope_y[:, None])
        u *= (logits.factor * others)[:, None]
        if to.u.dtype is not u.dtype:
            to.u.copy_(u)


class _ExtensionSteps:
    """The same steps in csrc/: one launch each on a GPU."""

    @staticmethod
    def tile(
        tile: Tensor,
        weights: Tensor | None,
        block: Block,
        first: int,
        bias: Tensor | None,
        logits: Logits,
        need_entropy: bool,
    ) -> None:
        narrowed = weights if weights is not tile else None
        torch.ops.daj.logprob_tile(
            tile, narrowed, block.state, block.accumulator, block.targets, bias, first, *_numbers(logits)
        )

    @staticmethod
    def finish(block: Block, weight: Tensor, logits: Logits, to: LinearLogprob) -> None:
        narrowed = to.u if to.u is not None and to.u.dtype is not block.state.dtype else None
        torch.ops.daj.logprob_finish(
            block.state,
            block.accumulator,
            weight,
            block.targets,
            *_numbers(logits),
            to.logp,
            to.lse,
            to.entropy,
            narrowed,
        )


def _numbers(logits: Logits) -> tuple[float, float, float]:
    return logits.scale, logits.softcap or 0.0, logits.temperature
