"""d L_meta / d alpha_i: how the meta loss would change if a sample had weighed more.

    d L_meta / d alpha_i = - (1/K) < C^T (J o q), g_i >

J is the optimizer's Jacobian after clipping, C the clipping's, q the meta gradient at the moved judge,
g_i the sample's raw gradient. A sample whose gradient helps the meta set gets a negative number, so
gradient descent on alpha raises its weight. Knows no reweighter: `weights.backward(gradient=d)` joins them.
Letters: K samples in a window, P adapter parameters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from daj_lightning.bilevel.update import Preconditioner, clip_vjp
from daj_lightning.bilevel.window import Window
from daj_lightning.kernels import grad_bank_dot


class HypergradientEngine(ABC):
    """The seam: windows and a meta gradient in, one (K,) vector for each window out."""

    @abstractmethod
    def __call__(self, history: Sequence[Window], meta_gradient: Tensor) -> list[Tensor]:
        """d L_meta / d alpha of each window's samples, for q (P,) of the mean loss at the moved judge."""


class BankEngine(HypergradientEngine):
    """Exact for one window: K dot products with the bank, no further pass through the judge.

    Args:
        preconditioner: "exact" differentiates the optimizer in use; "frozen" holds its moments fixed
            (lr / D); "identity" leaves it out (lr), which is what Betty does.
    """

    def __init__(self, preconditioner: Preconditioner = "exact") -> None:
        self.preconditioner = preconditioner

    @torch.no_grad()
    def __call__(self, history: Sequence[Window], meta_gradient: Tensor) -> list[Tensor]:
        """d L_meta / d alpha of each window's samples.

        Args:
            history: windows, of which each is treated as if its step were the last.
            meta_gradient: q, (P,), of the mean meta loss at the moved judge.
        """
        return [self._one_window(window, meta_gradient) for window in history]

    def _one_window(self, window: Window, meta_gradient: Tensor) -> Tensor:
        preconditioned = meta_gradient * window.update.jacobian(window.clipped_gradient, self.preconditioner)
        direction = clip_vjp(preconditioned, window.gradient, window.max_norm)
        return grad_bank_dot(window.bank, direction) * (-1 / window.bank.size(0))


def split_half_correlation(first: Tensor, second: Tensor) -> float:
    """Pearson correlation of d alpha (K,) between two halves of the meta batch.

    Near 1: both halves agree which samples help. Near 0: the step follows noise, and a larger meta
    batch would do more than a more exact hypergradient. NaN where a half is constant.
    """
    return float(torch.corrcoef(torch.stack([first, second]).double())[0, 1])
