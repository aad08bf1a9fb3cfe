"""A gradient bank in the host's memory, for adapters whose rows do not fit beside the judge.

A row leaves the device while the next micro-batch's passes run: a stream of its own copies it out of one of two
buffers, and the micro-batch after next waits until that one is free. The rows stay on the host, and so does the
arithmetic on them, which moves fewer bytes: the window gradient comes back as one vector of P float32 numbers and a
direction goes out as another, where the rows would be K P numbers each time (at K = 16, in bfloat16, 8 times as many
bytes).
On a CPU the same code runs without a stream.
Letters: K samples in the window, P adapter parameters, T windows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from daj_lightning.bilevel.flat import FlatView
from daj_lightning.bilevel.per_sample import PerSampleGradients
from daj_lightning.bilevel.stores import BankDtype, GradientStore, takes_apart
from daj_lightning.kernels import grad_bank_combine, grad_bank_dot
from daj_lightning.records import JudgeBatch


class OffloadedBank(GradientStore):
    """`GradientBank` on the host: the same rows, and those of two micro-batches on the device.

    The rows are page-locked where the adapters are on a GPU. Torch's allocator may round what it locks up to the
    next power of two.

    Args:
        flat: the adapters.
        num_rows: K.
        dtype: of the rows, as for `GradientBank`; "bfloat16" halves what is copied too.
        num_windows: T, windows kept at a time.
        splitter: see `GradientStore`.
        max_sample_norm: as for `GradientBank`; rows are scaled on the device.
    """

    per_sample = True

    def __init__(
        self,
        flat: FlatView,
        num_rows: int,
        dtype: BankDtype = "float32",
        num_windows: int = 1,
        splitter: PerSampleGradients | None = None,
        max_sample_norm: float | None = None,
    ) -> None:
        super().__init__(flat, splitter)
        self.max_sample_norm = max_sample_norm
        own, device = flat.parameters[0].dtype, flat.parameters[0].device  # float64 in tests of exactness
        row_dtype = torch.bfloat16 if dtype == "bfloat16" else own
        on_gpu = device.type == "cuda"
        self._ring = torch.zeros(num_windows, num_rows, flat.size, dtype=row_dtype, pin_memory=on_gpu)
        self._turn = 0
        self.rows = self._ring[0]
        self._outgoing = flat.new_zeros(2, 1, dtype=row_dtype)
        """(2, B, P): each of the buffers holds the rows of a micro-batch, the largest one so far."""
        self._buffer = 0
        self._staging = flat.new_zeros() if row_dtype != own else None
        self._stream = torch.cuda.Stream(device) if on_gpu else None
        self._copied = [torch.cuda.Event() for _ in self._outgoing] if on_gpu else []

    def open(self, i: int, samples: JudgeBatch) -> None:
        """The row is raw: one scaled by a weight of 0 could never win its weight back."""
        if i == 0:
            self.rows = self._ring[self._turn]
            self._turn = (self._turn + 1) % len(self._ring)
        self._buffer = 1 - self._buffer
        if self._stream is not None:  # what stood in the buffer has left before the device writes there again
            torch.cuda.current_stream(self._outgoing.device).wait_event(self._copied[self._buffer])
        if len(samples) > self._outgoing.size(1):  # in the first window, whose first micro-batch is none smaller
            self._outgoing = self.flat.new_zeros(2, len(samples), dtype=self._outgoing.dtype)
        outgoing = self._outgoing[self._buffer, : len(samples)]
        if len(samples) > 1:
            takes_apart(self.splitter).open(outgoing.zero_(), range(len(samples)))
            return
        target = outgoing[0] if self._staging is None else self._staging
        self.flat.point_gradients_at(target.zero_())

    def close(self, i: int, weights: Tensor) -> None:
        super().close(i, weights)
        outgoing, to = self._outgoing[self._buffer, : len(weights)], self.rows[i : i + len(weights)]
        if self._staging is not None and len(weights) == 1:
            self.flat.shorten(self._staging[None], self.max_sample_norm)
            outgoing[0].copy_(self._staging)  # narrowed here: across devices torch would narrow on the host, and wait
        else:
            self.flat.shorten(outgoing, self.max_sample_norm)
        if self._stream is None:
            to.copy_(outgoing)
            return
        self._stream.wait_stream(torch.cuda.current_stream(outgoing.device))
        with torch.cuda.stream(self._stream):
            to.copy_(outgoing, non_blocking=True)
            self._copied[self._buffer].record()

    def combine(self, batch: JudgeBatch, weights: Tensor) -> Tensor:
        """On the host, once all rows have come; the sum goes back to the adapters' device."""
        if self._stream is not None:
            self._stream.synchronize()
        combined = grad_bank_combine(self.rows, (weights / len(batch)).to(self.rows.device))
        return combined.to(self._outgoing.device)


def bank_dot(rows: Tensor, vector: Tensor) -> Tensor:
    """`grad_bank_dot` of rows (K, P) and vector (P,) where the rows lie; (K,) beside the vector."""
    return grad_bank_dot(rows, vector.to(rows.device)).to(vector.device)
