"""Early stopping on meta problems that no step sees: weights can overfit a small meta set, too."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from daj_lightning.bilevel import Uniform
from daj_lightning.records import DajError
from daj_lightning.training.callbacks import WindowCheckpoint, write_checkpoint
from daj_lightning.training.measured import badness
from daj_lightning.training.module import DataReweightedJudge


class MetaValidation(Checkpoint):
    """Measures the judge on the meta problems that `data.meta_validation` set aside, and keeps the best state.

    The mean loss, unweighted; for GRPO, minus the mean reward of sampled responses. It is logged as
    meta/validation. Lightning calls a `Checkpoint` after all other callbacks, so that the best state is whole.

    Args:
        path: checkpoint of the best state so far, for `--ckpt_path` of test and export.
        every_n_windows: distance between two measurements.
        patience: measurements without a new best before the run stops; None: it goes on to its end.
    """

    def __init__(self, path: str, every_n_windows: int = 100, patience: int | None = None) -> None:
        if every_n_windows < 1 or (patience is not None and patience < 1):
            raise DajError(
                f"MetaValidation needs every_n_windows >= 1 and patience >= 1 or none, got {every_n_windows} and "
                f"{patience}."
            )
        self.path = Path(path)
        self.every_n_windows = every_n_windows
        self.patience = patience
        self.best, self.best_window = math.inf, 0
        self.num_worse = 0
        """Measurements since the best one."""
        self.stopped = False
        """The run ended here, and not because somebody broke it off."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DataReweightedJudge)
        if pl_module.data.held_out is None:
            raise DajError("MetaValidation has nothing to measure on. Set data.meta_validation, e.g. to 0.2.")
        order = [c for c in trainer.callbacks if isinstance(c, MetaValidation | WindowCheckpoint)]  # type: ignore[attr-defined]
        if order[0] is not self:
            raise DajError(
                "WindowCheckpoint would save before MetaValidation has measured. List MetaValidation before it in "
                "trainer.callbacks."
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, DataReweightedJudge)
        if pl_module.num_windows % self.every_n_windows:
            return
        held_out = pl_module.data.held_out
        assert held_out is not None
        # Of the first process: the others' may differ in the last bit, and all have to come to one conclusion.
        value = trainer.strategy.broadcast(badness(pl_module, held_out, Uniform()))
        for logger in trainer.loggers:  # self.log would keep only what falls on log_every_n_steps
            logger.log_metrics({"meta/validation": value}, step=pl_module.num_windows)
        self.judge(trainer, pl_module, value)

    def judge(self, trainer: Trainer, module: DataReweightedJudge, value: float) -> None:
        """Keep the state, if it is the best so far; stop the run, if the best is too long ago."""
        if value < self.best:
            before = self.state_dict()
            self.best, self.best_window, self.num_worse = value, module.num_windows, 0  # the checkpoint holds them too
            if (problem := write_checkpoint(trainer, self.path)) is not None:
                self.load_state_dict(before)
                rank_zero_warn(f"{problem}; the best state so far stays that of window {self.best_window}.")
            return
        self.num_worse += 1
        if self.is_exhausted:
            self.stopped = trainer.should_stop = True
            rank_zero_info(
                f"stopped after window {module.num_windows}: on the held-out meta problems nothing was better than "
                f"{self.best:.4f} of window {self.best_window}, in {self.num_worse} measurements. That state is "
                f"{self.path}."
            )

    @property
    def is_exhausted(self) -> bool:
        """Its patience."""
        return self.patience is not None and self.num_worse >= self.patience

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.is_exhausted:  # a run that has ended, and was told to go on
            self.stopped = trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_window": self.best_window, "num_worse": self.num_worse}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_window = state_dict["best"], state_dict["best_window"]
        self.num_worse = state_dict["num_worse"]
