"""DaJ's Algorithm 1: the judge learns on weighted samples, the weights learn from the meta set.

All state of training changes here. One `training_step` is one window: K inner samples, one step of the
judge, and, when it is due, M meta samples and one step of the weights.
Letters: K samples in a window, M meta samples, P adapter parameters.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from lightning import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from daj_lightning.bilevel import (
    BankEngine,
    Credit,
    FlatView,
    GradientSum,
    HypergradientEngine,
    MetaAverage,
    RecomputedLoss,
    Reweighter,
    Setting,
    TrainingSet,
    Uniform,
    Window,
    check_optimizer,
    clipped,
    mean_credits,
    snapshot,
)
from daj_lightning.data import JudgeData, PairDataset
from daj_lightning.judge import Judge
from daj_lightning.objectives import DPO, Objective
from daj_lightning.records import BilevelBatch, Comparison, DajError, JudgeBatch, Judgment, PromptBatch
from daj_lightning.rollout import RolloutError, Sampling
from daj_lightning.training.agreement import Agreement
from daj_lightning.training.answer import answer
from daj_lightning.training.checks import (
    check_credits,
    check_engine,
    check_inner_step,
    check_objective,
    check_precision,
)
from daj_lightning.training.cold_start import ColdStart
from daj_lightning.training.levels import Level
from daj_lightning.training.reference import reference_logps
from daj_lightning.training.resumable import Resumable
from daj_lightning.training.rollouts import CloseRollouts, Rollouts
from daj_lightning.training.step import MetaGradient, StepReport


class DataReweightedJudge(Resumable):
    """Trains a judge with learned data weights (paper, Algorithm 1).

    Args:
        judge: the model.
        objective: loss of one sample.
        reweighter: weight of one sample.
        engine: derivative of the meta loss with respect to the weights.
        inner: optimizer of the judge.
        outer: optimizer of the weights.
        max_norm: gradient clipping of the inner step; off if absent.
        max_sample_norm: the gradient of every sample, of both levels, is scaled down to this norm; off if absent. A
            few samples with gradients a hundred times the others' would otherwise decide what helps.
        meta_every: windows per meta batch; the cost of a meta batch is M more samples.
        meta_decay: of an average of the meta gradient over meta batches. 0 steps at each meta batch from it alone;
            above 0 every window takes an outer step, from the average, which may be older than the window.
        outer_accumulation: derivatives by the weights that are averaged into one outer step.
        outer_warmup_windows: windows before the first that is credited. Adam's Jacobian is ill-conditioned in
            its first steps: the hypergradient is 7 to 166 times larger there.
        sampling: how the judge answers in `validate` and `test`.
        cold_start: makes the base if it is missing; for models that exist nowhere but here.
        rollouts: who draws the responses, for an objective of prompts (GRPO).
    """

    def __init__(
        self,
        judge: Judge,
        inner: Level,
        outer: Level,
        objective: Objective | None = None,
        reweighter: Reweighter | None = None,
        engine: HypergradientEngine | None = None,
        max_norm: float | None = None,
        max_sample_norm: float | None = None,
        meta_every: int = 1,
        meta_decay: float = 0.0,
        outer_accumulation: int = 1,
        outer_warmup_windows: int = 5,
        sampling: Sampling | None = None,
        cold_start: ColdStart | None = None,
        rollouts: Rollouts | None = None,
    ) -> None:
        super().__init__()
        if (
            min(meta_every, outer_accumulation) < 1
            or outer_warmup_windows < 0
            or not all(norm is None or norm > 0 for norm in (max_norm, max_sample_norm))
        ):
            raise DajError(
                f"meta_every={meta_every} and outer_accumulation={outer_accumulation} must be >= 1, "
                f"outer_warmup_windows={outer_warmup_windows} >= 0, and max_norm={max_norm} and "
                f"max_sample_norm={max_sample_norm} > 0 or absent."
            )
        self.automatic_optimization = False
        self.strict_loading = False  # the frozen base is not in the checkpoint; on_load_checkpoint checks the rest
        self.judge = judge
        self.objective = objective or DPO()
        self.reweighter = reweighter or Uniform()
        self.engine = engine or BankEngine()
        self.inner, self.outer = inner, outer
        self.max_norm = max_norm
        self.max_sample_norm = max_sample_norm
        self.meta_every = meta_every
        self.outer_accumulation = outer_accumulation
        self.meta_average = MetaAverage(meta_decay)
        self.outer_warmup_windows = outer_warmup_windows
        self.sampling = sampling or Sampling()
        self.cold_start = cold_start
        if rollouts is not None and self.objective.unit != "prompt":
            raise DajError(
                f"model.rollouts is set, but {type(self.objective).__name__} learns from responses that are there "
                f"already. Leave model.rollouts out, or use GRPO."
            )
        self.rollouts = rollouts or (Rollouts() if self.objective.unit == "prompt" else None)
        self.num_windows = 0
        """Inner steps done. Lightning's global_step counts the steps of both optimizers."""
        self.num_outer_steps = 0
        self.report: StepReport | None = None
        """Of the last step."""
        self.num_derivatives = 0
        """By the weights, accumulated since the last outer step."""
        self.agreement = Agreement()

    # One bi-level step -----------------------------------------------------------------------------

    def training_step(self, batch: BilevelBatch, batch_idx: int) -> None:
        inner, meta_samples = self.draw(batch)  # responses, where the objective wants the judge's own
        losses, weights = self.record(inner)  # K raw gradients, losses and alphas
        self.inner_step(inner, losses, weights)  # the judge moves
        meta, credits = None, list[Credit]()
        if self.meta_is_due(self.num_windows):
            meta = self.meta_gradient(self.draw_at_moved(meta_samples))  # at the moved judge
        if self.credit_is_due():
            credits, halves = self.credit(meta)  # d L_meta / d alpha
            self.outer_step(credits)  # the weights move
            self.compare(halves)
        self.engine.forget()
        self.num_windows += 1
        self.report = StepReport.of(inner, losses, weights, credits)
        self._log_step(self.report)

    def draw(self, batch: BilevelBatch) -> tuple[JudgeBatch, JudgeBatch | PromptBatch]:
        """Inner samples ready for the judge as it is; meta samples, or prompts that the moved judge is to answer."""
        inner, meta = batch.inner, batch.meta
        if self.rollouts is not None:
            inner, meta = self.rollouts.draw(batch, self.num_windows, self.meta_is_due)
        assert isinstance(inner, JudgeBatch)
        if self.engine.goes_back:  # its passes are at other adapters, and not at the policy that ratios refer to
            inner = self.objective.anchor(self.judge, inner)
        if isinstance(meta, JudgeBatch) and self.meta_is_due(self.num_windows):
            meta = self.objective.anchor(self.judge, meta)
        return self.objective.prepare(self.judge, inner), meta

    def draw_at_moved(self, meta: JudgeBatch | PromptBatch) -> JudgeBatch:
        """Meta samples ready for the judge after the inner step."""
        if self.rollouts is not None:
            try:
                meta = self.rollouts.moved(meta, self.num_windows)
            except RolloutError:
                self.num_windows += 1  # the judge has taken this window: a checkpoint of now is of the next
                raise
        assert isinstance(meta, JudgeBatch)
        return self.objective.prepare(self.judge, meta)

    def record(self, inner: JudgeBatch) -> tuple[Tensor, Tensor]:
        """Raw gradient of every sample into the engine's store; losses (K,) and weights (K,), both detached."""
        losses, weights = [], []
        for i, sample in enumerate(inner.micro_batches()):
            self.store.open(i, sample)
            losses.append(self.accumulate(sample))
            self.flat.clip_gradients(self.max_sample_norm)
            weights.append(self.reweighter(sample, losses[-1]).detach())
            self.store.close(i, weights[-1])
        self.flat.release_gradients()
        return torch.cat(losses), torch.cat(weights)

    def accumulate(self, sample: JudgeBatch, share: float = 1.0) -> Tensor:
        """Backward of `share` times one sample's loss, part by part; the loss (1,), detached."""
        loss = torch.zeros(1, device=self.device)
        for part in self.objective.parts(self.judge, sample):
            loss = loss + part.detach()
            if part.requires_grad:  # a sample whose tokens are all masked has none
                self.manual_backward((part * share).sum())
        return loss

    def inner_step(self, inner: JudgeBatch, losses: Tensor, weights: Tensor) -> None:
        """Move the judge along the weighted gradient, before the engine's eyes."""
        optimizer = self._optimizers()[0]
        gradient = self.store.combine(inner, weights)
        check_inner_step(inner, losses, weights, gradient, self.store, self.num_windows)
        if self.is_warm(self.num_windows):
            update = snapshot(optimizer.optimizer, self.flat)
            phi = self.flat.gather(self.flat.parameters) if self.engine.goes_back else None
            self.engine.observe(Window(inner, losses, self.store.rows, gradient, self.max_norm, update, phi))
        self.flat.point_gradients_at(clipped(gradient, self.max_norm))
        optimizer.step()
        self._schedules()[0].step()
        self.flat.release_gradients()
        self.meta_average.pass_window()

    def is_warm(self, window: int) -> bool:
        """Samples are credited, and the window is behind the warm-up."""
        return self.credits_samples and window >= self.outer_warmup_windows

    def meta_is_due(self, window: int) -> bool:
        return self.is_warm(window) and (window + 1) % self.meta_every == 0

    def meta_gradient(self, meta: JudgeBatch) -> MetaGradient:
        """Gradient of the mean meta loss at the moved judge, by parts of the batch; the average takes it in."""
        samples = list(meta.micro_batches())
        gradients, losses = [], []
        parts = self.meta_parts(samples)
        for part in parts:
            gradients.append(self.flat.new_zeros())
            losses += self.accumulate_into(gradients[-1], part)
        self.flat.release_gradients()
        shares = [len(part) / len(samples) for part in parts]
        gradient = MetaGradient(gradients, shares, meta.sample_ids, torch.cat(losses))
        cosine = self.meta_average.add(gradient.whole)
        self._log_meta(gradient, cosine)
        return gradient

    def accumulate_into(self, gradient: Tensor, samples: Sequence[JudgeBatch]) -> list[Tensor]:
        """Add the gradient of the mean loss of `samples` to `gradient` (P,), each scaled down where it is too long."""
        if self.max_sample_norm is None:
            self.flat.point_gradients_at(gradient)
            return [self.accumulate(sample, share=1 / len(samples)) for sample in samples]
        own, losses = torch.zeros_like(gradient), []
        for sample in samples:
            self.flat.point_gradients_at(own.zero_())
            losses.append(self.accumulate(sample))
            self.flat.clip_gradients(self.max_sample_norm)
            gradient.add_(own, alpha=1 / len(samples))
        return losses

    def meta_parts(self, samples: Sequence[JudgeBatch]) -> list[Sequence[JudgeBatch]]:
        """Of the meta batch, those whose gradients are kept apart: two halves, or one sample that has no halves."""
        middle = len(samples) // 2
        return [half for half in (samples[:middle], samples[middle:]) if half]

    def credit_is_due(self) -> bool:
        """At every meta batch, and between two if the average bridges them."""
        if self.meta_average.is_empty:
            return False
        return self.meta_average.decay > 0 or self.meta_average.staleness == 0

    def credit(self, meta: MetaGradient | None) -> tuple[list[Credit], list[list[Credit]]]:
        """d L_meta / d alpha from the averaged meta gradient, and by each half of a new meta batch.

        Engines that pay a pass through the judge for every call are not asked for halves, unless the reweighter is.
        """
        halves: list[list[Credit]] = []
        paid = self.engine.goes_back and not self.reweighter.needs_halves
        if meta is not None and not paid:
            halves = [self.engine(half) for half in meta.gradients]
        if meta is not None and halves and self.meta_average.decay == 0:
            credits = mean_credits(halves, meta.shares)
        else:
            credits = self.engine(self.meta_average.value)
        check_credits(credits, meta, self.num_windows)
        return credits, halves

    def compare(self, halves: Sequence[Sequence[Credit]]) -> None:
        """Do the halves of the meta batch agree which samples of this window help?"""
        if len(halves) < 2 or self.engine.credits_domains:
            return
        first, second = (half[-1] for half in halves)
        self.reweighter.measure(first.batch, first.derivative, second.derivative)
        agreement = self.agreement.note(first.derivative, second.derivative)
        for logger in self.loggers:
            logger.log_metrics({"meta/split_half": agreement}, step=self.num_windows)

    def outer_step(self, credits: Sequence[Credit]) -> None:
        """Move the weights down the meta loss, once enough derivatives are together."""
        optimizer = self._optimizers()[1]
        if self.num_derivatives == 0:
            optimizer.zero_grad()
        for credit in credits:
            self.reweighter.accumulate(credit.batch, credit.losses, credit.derivative / self.outer_accumulation)
        self.num_derivatives += 1
        if self.num_derivatives < self.outer_accumulation:
            return
        self.num_derivatives = 0
        optimizer.step()
        self._schedules()[1].step()
        self.num_outer_steps += 1

    # Setting up ------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        if self.cold_start is not None:
            self.cold_start.run(self.data.root / "train.jsonl", self.judge.base)

    def setup(self, stage: str) -> None:
        if self.trainer.world_size > 1:
            raise DajError(f"this version trains on one device; got {self.trainer.world_size}. Set trainer.devices=1.")
        self.judge.load()
        check_precision(str(self.trainer.precision), self.judge.trained_parameters())
        if stage == "fit" and (self.trainer.max_epochs != 1 or self.trainer.max_steps != -1):
            raise DajError(
                "a run is one epoch of data.max_windows windows. Leave trainer.max_epochs and max_steps alone."
            )
        if stage == "fit":
            self.data.load_samples(self.objective.unit, self.rollouts.sampling.max_new_tokens if self.rollouts else 0)
            check_engine(self.engine, self.reweighter, self.judge, self.data.num_meta, self.max_sample_norm)
            check_objective(self.objective, self.reweighter, self.judge, self.data.num_inner, self.data.num_meta)
            self.reweighter.build(TrainingSet(self.data.domains, len(self.data.train_set)))
            self.report = None

    def _num_credits(self, num_windows: int) -> int:
        """Windows of a run that credit samples."""
        every, warmup = self.meta_every, self.outer_warmup_windows
        num_meta = max(num_windows // every - warmup // every, 0)
        if self.meta_average.decay == 0 or num_meta == 0:
            return num_meta
        return num_windows - every * (warmup // every + 1) + 1  # from the first meta batch on

    def configure_optimizers(self) -> OptimizerLRScheduler:
        inner = self.inner.make_optimizer(self.judge.trained_parameters())
        check_optimizer(inner)
        num_windows = self.data.max_windows
        optimizers, schedules = [inner], [self.inner.make_schedule(inner, num_windows)]
        if self.learns_weights:
            outer = self.outer.make_optimizer(self.reweighter.parameters())
            num_outer = self._num_credits(num_windows) // self.outer_accumulation
            sparse = any(getattr(module, "sparse", False) for module in self.reweighter.modules())
            if sparse and self.outer.optimizer != "lazy_adam":
                raise DajError(
                    f"an instance table has sparse gradients, which {self.outer.optimizer} does not take. Set "
                    f"model.outer.optimizer to lazy_adam."
                )
            if num_outer == 0:
                raise DajError(
                    f"no outer step in {num_windows} windows: outer_warmup_windows={self.outer_warmup_windows}, "
                    f"meta_every={self.meta_every}, outer_accumulation={self.outer_accumulation}. Lower them, raise "
                    f"data.max_windows, or use the reweighter Uniform."
                )
            optimizers.append(outer)
            schedules.append(self.outer.make_schedule(outer, num_outer))
        return optimizers, schedules  # type: ignore[return-value]

    def on_fit_start(self) -> None:
        for dataset in (self.data.train_set, self.data.meta_set):
            if self.objective.needs_reference and isinstance(dataset, PairDataset):
                dataset.reference_logp = reference_logps(self.judge, dataset, self.data.root / "reference", self.device)
        if self.rollouts is not None:
            assert isinstance(self.data, JudgeData)
            self.rollouts.start(self.judge, self.data.tokenizer, self.data)

    def on_train_start(self) -> None:
        self.judge.train()  # whatever was measured before: transformers checkpoints activations in train mode only
        self.flat = FlatView(self.judge.trained_parameters())
        loss_at = RecomputedLoss(self.judge, self.objective).at
        setting = Setting(self.flat, self.data.num_inner, len(self.data.domains), loss_at)
        self.store = self.engine.start(setting) if self.credits_samples else GradientSum(self.flat)
        self._start = (time.perf_counter(), self.num_windows)
        self.resume()

    def configure_callbacks(self) -> list[Callback]:
        return [CloseRollouts(self.rollouts)] if self.rollouts is not None else []

    def on_fit_end(self) -> None:
        if self.rollouts is not None:
            self.rollouts.close()

    # Answering comparisons -------------------------------------------------------------------------

    def test_step(self, batch: Sequence[Comparison], batch_idx: int) -> dict[str, list[Judgment]]:  # type: ignore[override]
        return {"judgments": self.answer(batch)}

    validation_step = test_step

    def answer(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """What the judge says to each comparison."""
        return answer(self.judge, self.data.tokenizer, comparisons, self.sampling, self.num_windows)

    # Logs and checks -------------------------------------------------------------------------------

    def _log_step(self, report: StepReport) -> None:
        start, first = self._start
        rate = (self.num_windows - first) * len(report.losses) / (time.perf_counter() - start)
        loss, spread = float(report.losses.mean()), float(report.weights.std(correction=0))
        bar = {"window": float(self.num_windows), "loss": loss, "weight_spread": spread, "samples_per_s": rate}
        self.log_dict(bar, prog_bar=True, logger=False, batch_size=1)
        logged = {"inner/loss": loss, "inner/weight_spread": spread, "inner/samples_per_s": rate}
        logged["lr/inner"] = float(self._optimizers()[0].param_groups[0]["lr"])
        logged |= {f"weight/{name}": weight for name, weight in self.reweighter.named_weights().items()}
        if self.rollouts is not None:
            logged |= self.rollouts.log
            self.log("reward", logged["rollout/reward"], prog_bar=True, logger=False, batch_size=1)
        self.log_dict(logged, batch_size=1)

    def _log_meta(self, meta: MetaGradient, cosine: float) -> None:
        loss = float(meta.losses.mean())
        self.log("meta_loss", loss, prog_bar=True, logger=False, batch_size=1)
        logged = {"meta/loss": loss}
        if self.meta_average.decay > 0:
            logged |= {"meta/staleness": self.meta_average.staleness, "meta/cosine_to_average": cosine}
        for logger in self.loggers:  # self.log would skip the outer steps between two of log_every_n_steps
            logger.log_metrics(logged, step=self.num_windows)
