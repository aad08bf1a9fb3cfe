"""From the parts that a configuration names to a module ready for its first window: checked, built, started.

Letters: K samples in a window.
"""

from __future__ import annotations

import time

from lightning import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler

from daj_lightning.bilevel import (
    FlatView,
    GradientStore,
    GradientSum,
    PerSampleGradients,
    RecomputedLoss,
    SampleRows,
    Setting,
    TrainingSet,
    check_optimizer,
)
from daj_lightning.data import JudgeData, PairDataset
from daj_lightning.judge import Judge
from daj_lightning.records import DajError
from daj_lightning.training.checks import (
    check_engine,
    check_objective,
    check_outer,
    check_precision,
    check_processes,
    check_shares,
    splitter_for,
)
from daj_lightning.training.cold_start import ColdStart
from daj_lightning.training.levels import Level
from daj_lightning.training.reference import reference_logps
from daj_lightning.training.resumable import Resumable
from daj_lightning.training.rollouts import CloseRollouts
from daj_lightning.training.step import StepReport, num_credits
from daj_lightning.training.strategies import ShardedBase


class Assembled(Resumable):
    """The part of the module that Lightning calls before the first window and after the last."""

    judge: Judge
    inner: Level
    outer: Level
    cold_start: ColdStart | None
    report: StepReport | None
    flat: FlatView
    store: GradientStore
    meta_rows: SampleRows
    """Of a meta micro-batch, where gradients of samples are scaled down."""
    drops: bool
    """The judge has dropout, so that its passes draw random numbers."""
    max_sample_norm: float | None
    micro_batch_size: int
    packing: bool
    splitter: PerSampleGradients | None
    """Takes micro-batches of several samples apart; None: nothing has to."""

    def prepare_data(self) -> None:
        if self.cold_start is not None:
            self.cold_start.run(self.data.root / "train.jsonl", self.judge.base)

    def setup(self, stage: str) -> None:
        check_processes(self.trainer, self.rollouts is not None, stage)
        self.judge.load()
        check_precision(str(self.trainer.precision), self.judge.trained_parameters())
        if self.packing:
            self.judge.pack_rows()
        if stage == "fit" and (self.trainer.max_epochs != 1 or self.trainer.max_steps != -1):
            raise DajError(
                "a run is one epoch of data.max_windows windows. Leave trainer.max_epochs and max_steps alone."
            )
        if stage == "fit":
            self.data.load_samples(self.objective.unit, self.rollouts.sampling.max_new_tokens if self.rollouts else 0)
            check_engine(self.engine, self.reweighter, self.judge, self.data.num_meta, self.max_sample_norm)
            check_objective(self.objective, self.reweighter, self.judge, self.data.num_inner, self.data.num_meta)
            apart = self.max_sample_norm is not None or (self.credits_samples and not self.engine.goes_back)
            self.splitter = splitter_for(self.micro_batch_size, self.objective, self.judge, apart)
            check_shares(self.trainer.world_size, self.data.num_inner, self.data.num_meta)
            self.reweighter.build(TrainingSet(self.data.domains, len(self.data.train_set)))
            self.report = None

    def configure_model(self) -> None:
        if isinstance(self.trainer.strategy, ShardedBase):
            self.trainer.strategy.shard(self.judge)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        inner = self.inner.make_optimizer(self.judge.trained_parameters())
        check_optimizer(inner)
        num_windows = self.data.max_windows
        optimizers, schedules = [inner], [self.inner.make_schedule(inner, num_windows)]
        if self.learns_weights:
            outer = self.outer.make_optimizer(self.reweighter.parameters())
            decay = self.meta_average.decay
            credited = num_credits(num_windows, self.meta_every, self.outer_warmup_windows, decay)
            num_outer = credited // self.outer_accumulation
            check_outer(self, self.outer.optimizer, num_outer)
            optimizers.append(outer)
            schedules.append(self.outer.make_schedule(outer, num_outer))
        return optimizers, schedules  # type: ignore[return-value]

    def on_fit_start(self) -> None:
        self.ranks.agree([*self.judge.trained_parameters(), *self.reweighter.parameters(), *self.reweighter.buffers()])
        for dataset in (self.data.train_set, self.data.meta_set, self.data.held_out):
            if self.objective.needs_reference and isinstance(dataset, PairDataset):
                directory = self.data.root / "reference"
                dataset.reference_logp = reference_logps(self.judge, dataset, directory, self.device, self.ranks)
        if self.rollouts is not None:
            assert isinstance(self.data, JudgeData)
            self.rollouts.start(self.judge, self.data.tokenizer, self.data)

    def on_train_start(self) -> None:
        self.judge.train()  # whatever was measured before: transformers checkpoints activations in train mode only
        self.flat = FlatView(self.judge.trained_parameters())
        loss_at = RecomputedLoss(self.judge, self.objective).at
        own = self.ranks.share(self.data.num_inner)
        by_sample = self.splitter, self.max_sample_norm
        setting = Setting(self.flat, self.data.num_inner, len(self.data.domains), loss_at, own, *by_sample)
        self.drops = bool(self.judge.dropout())
        self.store = self.engine.start(setting) if self.credits_samples else GradientSum(self.flat, *by_sample)
        self.meta_rows = SampleRows(self.flat, *by_sample)
        self._start = (time.perf_counter(), self.num_windows)
        self.resume()

    def configure_callbacks(self) -> list[Callback]:
        return [CloseRollouts(self.rollouts)] if self.rollouts is not None else []

    def on_fit_end(self) -> None:
        if self.rollouts is not None:
            self.rollouts.close()
