"""d L_meta / d alpha_i: how the meta loss would change if a sample had weighed more.

    d L_meta / d alpha_i = - (1/K) < C^T (J o q), g_i >

J is the optimizer's Jacobian after clipping, C the clipping's, q the meta gradient at the moved judge,
g_i the sample's raw gradient. A sample whose gradient helps the meta set gets a negative number, so
gradient descent on alpha raises its weight. Knows no reweighter: `Reweighter.accumulate` joins them.
Letters: K samples in a window, P adapter parameters, T windows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from daj_lightning.bilevel.flat import FlatView
from daj_lightning.bilevel.offload import OffloadedBank, bank_dot
from daj_lightning.bilevel.per_sample import PerSampleGradients
from daj_lightning.bilevel.recompute import LossAt
from daj_lightning.bilevel.stores import BankDtype, GradientBank, GradientStore
from daj_lightning.bilevel.update import Preconditioner
from daj_lightning.bilevel.window import Window
from daj_lightning.records import DajError, JudgeBatch


class Credit(NamedTuple):
    """What an outer step hands to the reweighter about B samples, or one process's part of it."""

    batch: JudgeBatch
    losses: Tensor
    """(B,) as the weights saw them."""
    derivative: Tensor
    """(B,) d L_meta / d alpha; of several processes an engine gives this one's part, and the parts add up."""


def mean_credits(parts: Sequence[Sequence[Credit]], shares: Sequence[float]) -> list[Credit]:
    """Credits are linear in q: those of its parts, each of the same samples, add up to the whole's."""
    return [
        credits[0]._replace(
            derivative=torch.stack([s * c.derivative for s, c in zip(shares, credits, strict=True)]).sum(dim=0)
        )
        for credits in zip(*parts, strict=True)
    ]


class Setting(NamedTuple):
    """What an engine is told before the first window."""

    flat: FlatView
    num_inner: int
    """K."""
    num_domains: int
    """D."""
    loss_at: LossAt
    own: slice = slice(None)
    """Of a window's K samples, those whose gradients are in this process."""
    splitter: PerSampleGradients | None = None
    """For stores that keep samples or domains apart, where micro-batches hold more than one sample."""
    max_sample_norm: float | None = None
    """What a sample's gradient is scaled down to; for stores that keep samples apart."""


class HypergradientEngine(ABC):
    """The seam: watches every inner step; given a meta gradient, credits samples."""

    goes_back: bool = False
    """Passes through the judge again, at the adapters before the step; then `Window.phi` is kept."""
    parts_on_host: bool = False
    """`parts` stay in the host's memory; otherwise they are beside the adapters."""
    credits_domains: bool = False
    """Differentiates by the weight of a whole domain, so that the reweighter must be `DomainWeights`."""

    @abstractmethod
    def start(self, setting: Setting) -> GradientStore:
        """Called once before training: what the windows keep of their gradients."""

    @abstractmethod
    def observe(self, window: Window) -> None:
        """The inner step of this window is being taken; from the end of the outer warm-up on."""

    @abstractmethod
    def __call__(self, meta_gradient: Tensor) -> list[Credit]:
        """d L_meta / d alpha for q (P,), of the mean meta loss at the judge as the last step left it.

        Linear in q. The newest window's samples, if they are credited one by one, come last.
        """

    @abstractmethod
    def forget(self) -> None:
        """The step is over: drop what no later window needs."""

    def state(self) -> dict[str, Any]:
        """What a resumed run needs besides the next windows, after `forget`: plain numbers and tensors.

        The same in every process; what only this one holds is in `parts`.
        """
        return {}

    def parts(self) -> list[Tensor]:
        """Beside `state`, the tensors made of the own samples' gradients."""
        return []

    def regroup(self, parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """After `start`: own parts, from those of another number of processes; of each tensor theirs, in order."""
        assert not parts, f"{type(self).__name__} keeps parts, and does not say how they are dealt out again"
        return []

    def load_state(self, state: dict[str, Any], parts: Sequence[Tensor] = ()) -> None:
        """After `start`; the default has nothing to load."""
        del state, parts

    def description(self) -> dict[str, Any]:
        """What must not change between a run and its resumption."""
        return {"engine": type(self).__name__}


class BankEngine(HypergradientEngine):
    """K dot products a window with the gradient bank, no further pass through the judge.

    Exact for one window. With more, the credit of earlier windows reaches the meta loss through the
    optimizer's state as well (`Update.pull_back`), without the Hessian: the error is of the order of the learning
    rate.

    Args:
        preconditioner: "exact" differentiates the optimizer in use; "frozen" holds its moments fixed
            (lr / D); "identity" leaves it out (lr), which is what Betty does.
        dtype: of the bank's rows; "bfloat16" halves its T K P numbers.
        unroll_windows: T, windows that a meta gradient credits. Under "frozen" and "identity" each counts as
            if its step were the last.
        offload: keep the rows in the host's memory (offload.py), where they take none of the device's. The same
            numbers but for rounding, so that a run may be resumed with it or without.
    """

    def __init__(
        self,
        preconditioner: Preconditioner = "exact",
        dtype: BankDtype = "float32",
        unroll_windows: int = 1,
        offload: bool = False,
    ) -> None:
        if unroll_windows < 1 or preconditioner not in get_args(Preconditioner) or dtype not in get_args(BankDtype):
            raise DajError(
                f"BankEngine needs unroll_windows >= 1, got {unroll_windows}; a preconditioner of "
                f"{get_args(Preconditioner)}, got {preconditioner!r}; a dtype of {get_args(BankDtype)}, got {dtype!r}."
            )
        self.preconditioner = preconditioner
        self.dtype = dtype
        self.unroll_windows = unroll_windows
        self.offload = self.parts_on_host = offload
        self.history: deque[Window] = deque(maxlen=unroll_windows)
        self.own = slice(None)

    def start(self, setting: Setting) -> GradientStore:
        self.history.clear()
        self.own = setting.own
        num_rows = len(range(setting.num_inner)[setting.own])
        bank = OffloadedBank if self.offload else GradientBank
        return bank(setting.flat, num_rows, self.dtype, self.unroll_windows, setting.splitter, setting.max_sample_norm)

    def observe(self, window: Window) -> None:
        self.history.append(window)

    @torch.no_grad()
    def __call__(self, meta_gradient: Tensor) -> list[Credit]:
        if self.preconditioner == "exact" and len(self.history) == 1 and not self.offload:
            (window,) = self.history
            return [Credit(window.batch, window.losses, window.credit(meta_gradient))]
        through_state = self.preconditioner == "exact"
        adjoint = self.history[-1].update.at_rest(meta_gradient) if through_state else None
        credits = []
        for window in reversed(self.history):
            if adjoint is None:
                of_gradient = -meta_gradient * window.update.jacobian(window.clipped_gradient, self.preconditioner)
            else:
                of_gradient, adjoint = window.update.pull_back(window.clipped_gradient, adjoint)
            derivative = bank_dot(window.rows, window.direction(of_gradient))
            credits.append(Credit(window.batch, window.losses, window.spread(derivative)))
        return credits[::-1]

    def forget(self) -> None:
        if len(self.history) == self.unroll_windows:
            self.history.popleft()

    def description(self) -> dict[str, Any]:
        return {"engine": f"BankEngine, {self.preconditioner}, {self.dtype}, {self.unroll_windows} windows"}

    def state(self) -> dict[str, Any]:
        return {"history": [window.state() for window in self.history]}

    def parts(self) -> list[Tensor]:
        """Of each window its rows; copies: saving a view of the bank's ring would write the whole ring."""
        return [window.rows.clone() for window in self.history]

    def regroup(self, parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        return [torch.cat(list(rows))[self.own] for rows in parts]

    def load_state(self, state: dict[str, Any], parts: Sequence[Tensor] = ()) -> None:
        windows = zip(state["history"], parts, strict=True)
        self.history.extend(Window.from_state(window, rows, self.own) for window, rows in windows)


def split_half_correlation(first: Tensor, second: Tensor) -> float:
    """Pearson correlation of d alpha (K,) between two halves of the meta batch.

    Near 1: both halves agree which samples help. Near 0: the step follows noise, and a larger meta
    batch would do more than a more exact hypergradient. NaN where a half is constant.
    """
    return float(torch.corrcoef(torch.stack([first, second]).double())[0, 1])
