"""Adam that leaves alone what it has not seen: the outer optimizer of the weights.

An instance table has a row per training sample and a window touches 16 of them. Plain Adam would keep
pushing the other rows along their old momentum; torch's SparseAdam leaves them, but corrects its bias
by one shared count, as if every row had been seen in every step. Here each row has its own count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from daj_lightning.records import DajError


class LazyAdam(Optimizer):
    """Adam (Kingma and Ba 2014) with moments and step count per row; dense gradients see every row.

    Args:
        params: of a reweighter.
        lr: step size (paper: 1e-4).
        betas: decay of the moments.
        eps: added to the root of the second moment.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        if lr <= 0:
            raise DajError(f"LazyAdam needs lr > 0, got {lr}.")
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None if closure is None else closure()
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: nn.Parameter, gradient: Tensor, group: dict) -> None:
        state = self.state[parameter]
        if not state:
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
            # torch keeps the dtype of a state called "step" on loading, and casts any other to the parameter's.
            state["step"] = torch.zeros(parameter.shape[:1], dtype=torch.int64, device=parameter.device)
        if gradient.is_sparse:
            gradient = gradient.coalesce()
            seen, g = gradient.indices()[0], gradient.values()
        else:
            seen, g = torch.arange(len(parameter), device=parameter.device), gradient
        # Loading a checkpoint moves every state to the parameter's device, but for what is called "step".
        state["step"] = state["step"].to(parameter.device)
        b1, b2 = group["betas"]
        m = torch.lerp(g, state["exp_avg"][seen], b1)
        v = torch.lerp(g * g, state["exp_avg_sq"][seen], b2)
        count = state["step"][seen] + 1
        state["exp_avg"][seen], state["exp_avg_sq"][seen], state["step"][seen] = m, v, count
        per_row = count.to(m.dtype).view(-1, *[1] * (m.dim() - 1))
        step = (m / (1 - b1**per_row)) / ((v / (1 - b2**per_row)).sqrt() + group["eps"])
        parameter[seen] -= group["lr"] * step
