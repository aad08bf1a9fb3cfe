"""DaJ's Algorithm 1: the judge learns on weighted samples, the weights learn from the meta set.

All state of training changes here. One `training_step` is one window: K inner samples, one step of the
judge, and, when it is due, M meta samples and one step of the weights.
Letters: K samples in a window, M meta samples, P adapter parameters.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor

from daj_lightning.bilevel import (
    BankEngine,
    Credit,
    HypergradientEngine,
    MetaAverage,
    Reweighter,
    Uniform,
    Window,
    clipped,
    mean_credits,
    snapshot,
)
from daj_lightning.judge import Judge
from daj_lightning.objectives import DPO, Objective
from daj_lightning.records import BilevelBatch, Comparison, JudgeBatch, Judgment, PromptBatch
from daj_lightning.rollout import RolloutError, Sampling
from daj_lightning.training.agreement import Agreement
from daj_lightning.training.answer import answer
from daj_lightning.training.assembly import Assembled
from daj_lightning.training.checks import (
    check_credits,
    check_inner_step,
    check_numbers,
    check_rollouts,
)
from daj_lightning.training.cold_start import ColdStart
from daj_lightning.training.levels import Level
from daj_lightning.training.ranks import stream_of
from daj_lightning.training.rollouts import Rollouts
from daj_lightning.training.step import MetaGradient, StepReport


class DataReweightedJudge(Assembled):
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
            few samples with gradients a hundred times the others' would otherwise decide what helps. Micro-batches of
            several are then taken apart on both levels: a row of P numbers for each of their samples.
        meta_every: windows per meta batch; the cost of a meta batch is M more samples.
        meta_decay: of an average of the meta gradient over meta batches. 0 steps at each meta batch from it alone;
            above 0 every window takes an outer step, from the average, which may be older than the window.
        outer_accumulation: derivatives by the weights that are averaged into one outer step.
        outer_warmup_windows: windows before the first that is credited. Adam's Jacobian is ill-conditioned in
            its first steps: the hypergradient is 7 to 166 times larger there.
        sampling: how the judge answers in `validate` and `test`.
        cold_start: makes the base if it is missing; for models that exist nowhere but here.
        rollouts: who draws the responses, for an objective of prompts (GRPO).
        micro_batch_size: samples that pass through the judge together; each keeps its own gradient.
        packing: lay their rows end to end instead of padding them, and compute a sample's common prompt once.
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
        micro_batch_size: int = 1,
        packing: bool = False,
    ) -> None:
        super().__init__()
        counts = {"meta_every": meta_every, "micro_batch_size": micro_batch_size}
        norms = {"max_norm": max_norm, "max_sample_norm": max_sample_norm}
        check_numbers(counts | {"outer_accumulation": outer_accumulation}, outer_warmup_windows, norms)
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
        check_rollouts(self.objective, rollouts)
        self.rollouts = rollouts or (Rollouts() if self.objective.unit == "prompt" else None)
        self.micro_batch_size = micro_batch_size
        self.packing = packing
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
        with self.ranks.no_sync():  # gradients stay where they arise; `ranks.sum` adds up what is common
            self.bilevel_step(batch)
        assert self.report is not None
        self._log_step(self.report)

    def bilevel_step(self, batch: BilevelBatch) -> None:
        """Algorithm 1, once around."""
        inner, meta_samples = self.draw(batch)  # responses, where the objective wants the judge's own
        losses, weights = self.record(inner)  # K raw gradients, losses and alphas
        self.inner_step(inner, losses, weights)  # the judge moves
        meta, credits = None, list[Credit]()
        if self.meta_is_due(self.num_windows):
            try:
                meta = self.meta_gradient(self.draw_at_moved(meta_samples))  # at the moved judge
            except RolloutError:
                self.pass_window(inner, losses)  # the judge has taken it: a checkpoint of now is of the next
                raise
        if self.credit_is_due():
            credits, halves = self.credit(meta)  # d L_meta / d alpha
            self.outer_step(credits)  # the weights move
            self.compare(halves)
        self.engine.forget()
        self.pass_window(inner, losses)
        self.report = StepReport.of(inner, losses, weights, credits)

    def pass_window(self, inner: JudgeBatch, losses: Tensor) -> None:
        self.reweighter.observe(inner, losses)
        self.num_windows += 1

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
            meta = self.rollouts.moved(meta, self.num_windows)
        assert isinstance(meta, JudgeBatch)
        return self.objective.prepare(self.judge, meta)

    def record(self, inner: JudgeBatch) -> tuple[Tensor, Tensor]:
        """Raw gradient of every own sample into the engine's store; all losses (K,) and weights (K,), both detached."""
        own = self.ranks.share(len(inner))
        losses, weights, i = [], [], 0
        for samples in inner.part(own.start, own.stop).micro_batches(self.micro_batch_size):
            self.store.open(i, samples)
            with self.stream("inner", own.start + i):
                loss, weight = self.weigh(samples)
            self.store.close(i, weight)
            losses.append(loss)
            weights.append(weight)
            i += len(samples)
        self.flat.release_gradients()
        if self.ranks.number == 1:
            return torch.cat(losses), torch.cat(weights)
        of_all = self.ranks.collect(torch.cat(losses), len(inner))
        return of_all, self.reweighter(inner, of_all).detach()  # a weight depends on its sample alone

    def stream(self, level: Literal["inner", "meta"], position: int) -> AbstractContextManager[None]:
        """For passes of the sample there in its batch: what dropout drops depends on neither process nor neighbours."""
        return (
            stream_of(self.device, self.data.seed, self.num_windows, level, position) if self.drops else nullcontext()
        )

    def weigh(self, samples: JudgeBatch) -> tuple[Tensor, Tensor]:
        """Losses and weights (B,) of a micro-batch, detached; the backward that its store asks for."""
        if len(samples) == 1:
            loss = self.accumulate(samples)
            return loss, self.reweighter(samples, loss).detach()
        losses = self.objective(self.judge, samples)
        weights = self.reweighter(samples, losses.detach()).detach()
        self._backward(self.store.total(losses, weights))
        return losses.detach(), weights

    def accumulate(self, samples: JudgeBatch, share: float = 1.0) -> Tensor:
        """Backward of `share` times each sample's loss, part by part; the losses (B,), detached."""
        loss = torch.zeros(1, device=self.device)
        for part in self.objective.parts(self.judge, samples):
            loss = loss + part.detach()
            self._backward((part * share).sum())
        return loss

    def _backward(self, loss: Tensor) -> None:
        if loss.requires_grad:  # samples whose tokens are all masked have none
            self.manual_backward(loss)

    def inner_step(self, inner: JudgeBatch, losses: Tensor, weights: Tensor) -> None:
        """Move the judge along the weighted gradient, before the engine's eyes."""
        optimizer = self._optimizers()[0]
        own = self.ranks.share(len(inner))
        gradient = self.ranks.mean(self.store.combine(inner.part(own.start, own.stop), weights[own]))
        check_inner_step(inner, losses, weights, gradient, self.store, self.ranks, self.num_windows)
        if self.is_warm(self.num_windows):
            update = snapshot(optimizer.optimizer, self.flat)
            phi = self.flat.gather(self.flat.parameters) if self.engine.goes_back else None
            self.engine.observe(Window(inner, losses, self.store.rows, gradient, self.max_norm, update, phi, own))
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
        own, parts = self.ranks.share(len(meta)), self.meta_parts(meta)
        gradients = [self.flat.new_zeros() for _ in parts]
        losses, size = [], self.micro_batch_size
        for part, sum_of_part in zip(parts, gradients, strict=True):
            first, end = max(part.start, own.start), min(part.stop, own.stop)
            for i in range(first, end, size):
                with self.stream("meta", i):
                    samples = meta.part(i, min(i + size, end))
                    losses.append(self.accumulate_into(sum_of_part, samples, share=1 / len(part)))
        self.flat.release_gradients()
        *gradients, of_all = self.ranks.sum(*gradients, self.ranks.spread(torch.cat(losses), len(meta)))
        shares = [len(part) / len(meta) for part in parts]
        gradient = MetaGradient(gradients, shares, meta.sample_ids, of_all)
        cosine = self.meta_average.add(gradient.whole)
        self._log_meta(gradient, cosine)
        return gradient

    def accumulate_into(self, gradient: Tensor, samples: JudgeBatch, share: float) -> Tensor:
        """Add `share` times each sample's gradient, scaled down if it is too long, to `gradient` (P,); losses (B,)."""
        if self.max_sample_norm is not None:
            self.meta_rows.open(len(samples))
            losses = self.accumulate(samples)
            self.meta_rows.add_to(gradient, torch.full_like(losses, share))
        elif self.splitter is not None and len(samples) > 1:  # its passes keep less than autograd's
            self.splitter.open(gradient[None], [0] * len(samples))
            losses = self.accumulate(samples, share)
            self.splitter.close()
        else:
            self.flat.point_gradients_at(gradient)
            losses = self.accumulate(samples, share)
        return losses

    def meta_parts(self, meta: JudgeBatch) -> list[range]:
        """Of the meta batch, those samples whose gradients are kept apart: two halves, or one that has no halves.

        Each part costs several processes a message of P numbers more, so that there the reweighter must ask for halves.
        """
        everything, middle, W = range(len(meta)), len(meta) // 2, self.ranks.number
        if W > 1 and not self.reweighter.needs_halves:
            return [everything]
        if W > 1:
            middle = W // 2 * (len(meta) // W)  # between two shares: all processes have as many passes
        return [half for half in (everything[:middle], everything[middle:]) if half]

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
            halves = [self.ask(part) for part in meta.gradients]
        if meta is not None and halves and self.meta_average.decay == 0:
            credits = mean_credits(halves, meta.shares)
        else:
            credits = self.ask(self.meta_average.value)
        check_credits(credits, meta, self.num_windows)
        return credits, halves

    def ask(self, meta_gradient: Tensor) -> list[Credit]:
        """The engine's credits for q (P,), of all processes together."""
        parts = self.engine(meta_gradient)
        wholes = self.ranks.sum(*(credit.derivative for credit in parts))
        return [credit._replace(derivative=whole) for credit, whole in zip(parts, wholes, strict=True)]

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
