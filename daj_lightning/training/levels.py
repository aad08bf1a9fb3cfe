"""The optimizer and learning-rate schedule of one level, as the configuration writes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from daj_lightning.bilevel import LazyAdam
from daj_lightning.records import DajError

_OPTIMIZERS: dict[str, type[Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "lazy_adam": LazyAdam,
}


@dataclass(frozen=True)
class Level:
    """How one level of the bi-level problem is optimized."""

    lr: float
    """Peak learning rate (paper: 1e-6 inner, 1e-4 outer)."""
    optimizer: Literal["adam", "adamw", "sgd", "lazy_adam"] = "adam"
    """Adam in the paper; lazy_adam moves only the weights that a window has seen."""
    optimizer_args: dict[str, Any] | None = None
    """More arguments of the torch optimizer, e.g. {betas: [0.9, 0.95]}."""
    schedule: Literal["constant_with_warmup", "linear", "cosine"] = "constant_with_warmup"
    """transformers' name; the length is the number of this level's steps in the run."""
    warmup_steps: int = 0
    """Steps of this level over which the rate rises from 0."""

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        args = dict(self.optimizer_args or {})
        if "betas" in args:
            args["betas"] = tuple(args["betas"])
        try:
            return _OPTIMIZERS[self.optimizer](list(parameters), lr=self.lr, **args)  # type: ignore[call-arg]
        except (TypeError, ValueError) as error:
            raise DajError(f"optimizer {self.optimizer} refused lr={self.lr} with {args}: {error}.") from error

    def make_schedule(self, optimizer: Optimizer, num_steps: int) -> LRScheduler:
        return get_scheduler(self.schedule, optimizer, num_warmup_steps=self.warmup_steps, num_training_steps=num_steps)
