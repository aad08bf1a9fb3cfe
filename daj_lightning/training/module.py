"""DaJ's Algorithm 1: the judge learns on weighted samples, the weights learn from the meta set.

All state of training changes here. One `training_step` is one window: K inner samples, one step of the
judge, and, when it is due, M meta samples and one step of the weights.
Letters: K samples in a window, M meta samples, P adapter parameters.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, Literal

import torch
from lightning import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from daj_lightning.bilevel import (
    BankEngine,
    FlatView,
    GradientBank,
    GradientSum,
    HypergradientEngine,
    Reweighter,
    TrainingSet,
    Uniform,
    Window,
    check_optimizer,
    snapshot,
    split_half_correlation,
)
from daj_lightning.data import JudgeData
from daj_lightning.judge import Judge, check_adapter_dtype
from daj_lightning.objectives import DPO, Objective
from daj_lightning.records import BilevelBatch, Comparison, DajError, JudgeBatch, Judgment
from daj_lightning.rollout import Sampling
from daj_lightning.training.answer import answer
from daj_lightning.training.checkpoint import capture_rng, restore_rng
from daj_lightning.training.cold_start import ColdStart
from daj_lightning.training.levels import Level
from daj_lightning.training.reference import reference_logps
from daj_lightning.training.step import MetaGradient, NonFiniteError, StepReport

_AGREEMENT_WANTED = 0.3
_AGREEMENT_OVER = 20
_AGREEMENT_WARN_EVERY = 100


class DataReweightedJudge(LightningModule):
    """Trains a judge with learned data weights (paper, Algorithm 1).

    Args:
        judge: the model.
        objective: loss of one sample.
        reweighter: weight of one sample.
        engine: derivative of the meta loss with respect to the weights.
        inner: optimizer of the judge.
        outer: optimizer of the weights.
        max_norm: gradient clipping of the inner step; off if absent.
        meta_every: windows per outer step; the cost of an outer step is M more samples.
        outer_warmup_windows: windows before the first outer step. Adam's Jacobian is ill-conditioned in
            its first steps: the hypergradient is 7 to 166 times larger there.
        bank_dtype: "float32", or "bfloat16" to halve the bank's K P numbers.
        sampling: how the judge answers in `validate` and `test`.
        cold_start: makes the base if it is missing; for models that exist nowhere but here.
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
        meta_every: int = 1,
        outer_warmup_windows: int = 5,
        bank_dtype: Literal["float32", "bfloat16"] = "float32",
        sampling: Sampling | None = None,
        cold_start: ColdStart | None = None,
    ) -> None:
        super().__init__()
        if meta_every < 1 or outer_warmup_windows < 0 or (max_norm is not None and max_norm <= 0):
            raise DajError(
                f"meta_every must be >= 1, outer_warmup_windows >= 0 and max_norm > 0 or absent; got {meta_every}, "
                f"{outer_warmup_windows} and {max_norm}."
            )
        self.automatic_optimization = False
        self.strict_loading = False  # the frozen base is not in the checkpoint; load_state_dict checks the rest
        self.judge = judge
        self.objective = objective or DPO()
        self.reweighter = reweighter or Uniform()
        self.engine = engine or BankEngine()
        self.inner, self.outer = inner, outer
        self.max_norm = max_norm
        self.meta_every = meta_every
        self.outer_warmup_windows = outer_warmup_windows
        self.bank_dtype = bank_dtype
        self.sampling = sampling or Sampling()
        self.cold_start = cold_start
        self.num_windows = 0
        """Inner steps done. Lightning's global_step counts the steps of both optimizers."""
        self.num_outer_steps = 0
        self.report: StepReport | None = None
        """Of the last step."""
        self._agreement: list[float] = []
        self._rng_state: dict[str, Any] | None = None

    # One bi-level step -----------------------------------------------------------------------------

    def training_step(self, batch: BilevelBatch, batch_idx: int) -> None:
        bank, losses = self.record(batch.inner)  # K raw gradients and losses
        weights = self.reweighter(batch.inner, losses)  # (K,)
        window = self.inner_step(batch.inner, bank, losses, weights.detach())  # the judge moves
        hypergradient = None
        if self.meta_is_due():
            meta = self.meta_gradient(batch.meta)  # at the moved judge
            hypergradient = self.outer_step(weights, window, meta)  # the weights move
        self.num_windows += 1
        self.report = StepReport(batch.inner.sample_ids, batch.inner.domains, losses, weights.detach(), hypergradient)
        self._log_step(self.report)

    def record(self, inner: JudgeBatch) -> tuple[GradientBank | GradientSum, Tensor]:
        """Raw gradient of every sample into the bank, and the losses (K,)."""
        losses = []
        for i, sample in enumerate(inner.micro_batches()):
            self.bank.open_row(i)
            (loss,) = self.objective(self.judge, sample)
            self.manual_backward(loss)
            self.bank.close_row(i)
            losses.append(loss.detach())
        self.flat.release_gradients()
        return self.bank, torch.stack(losses)

    def inner_step(
        self, inner: JudgeBatch, bank: GradientBank | GradientSum, losses: Tensor, weights: Tensor
    ) -> Window:
        """Move the judge along the weighted gradient; returns what the hypergradient needs of the step."""
        optimizer = self._optimizers()[0]
        window = Window(
            sample_ids=inner.sample_ids,
            losses=losses,
            bank=bank.rows,
            gradient=bank.combine(weights),
            max_norm=self.max_norm,
            update=snapshot(optimizer.optimizer, self.flat),
        )
        self._check_finite(window, weights)
        self.flat.point_gradients_at(window.clipped_gradient)
        optimizer.step()
        self._schedules()[0].step()
        self.flat.release_gradients()
        return window

    def meta_is_due(self) -> bool:
        done = self.num_windows + 1  # with the inner step just taken
        return self.learns_weights and done > self.outer_warmup_windows and done % self.meta_every == 0

    def meta_gradient(self, meta: JudgeBatch) -> MetaGradient:
        """Gradient of the mean meta loss at the moved judge, by halves of the batch."""
        samples = list(meta.micro_batches())
        middle = len(samples) // 2
        halves = [half for half in (samples[:middle], samples[middle:]) if half]
        gradients, losses = [], []
        for half in halves:
            gradients.append(self.flat.new_zeros())
            self.flat.point_gradients_at(gradients[-1])
            for sample in half:
                (loss,) = self.objective(self.judge, sample)
                self.manual_backward(loss / len(half))
                losses.append(loss.detach())
        self.flat.release_gradients()
        shares = [len(half) / len(samples) for half in halves]
        return MetaGradient(gradients, shares, meta.sample_ids, torch.stack(losses))

    def outer_step(self, weights: Tensor, window: Window, meta: MetaGradient) -> Tensor:
        """Move the weights down the meta loss; returns d L_meta / d alpha (K,)."""
        by_half = [self.engine([window], gradient)[0] for gradient in meta.gradients]
        # The derivative is linear in q, so the halves' derivatives add up to the whole batch's.
        hypergradient = sum(share * half for share, half in zip(meta.shares, by_half, strict=True))
        assert isinstance(hypergradient, Tensor)
        if not (hypergradient.isfinite().all() and meta.losses.isfinite().all()):
            raise NonFiniteError(
                f"window {self.num_windows}: after the inner step the meta loss of meta samples "
                f"{meta.sample_ids[~meta.losses.isfinite()].tolist()} or d alpha of samples "
                f"{window.sample_ids[~hypergradient.isfinite()].tolist()} is not finite. The weights did not move; "
                f"resume from the last checkpoint with a lower model.inner.lr or a smaller model.max_norm."
            )
        optimizer = self._optimizers()[1]
        optimizer.zero_grad()
        weights.backward(gradient=hypergradient)
        optimizer.step()
        self._schedules()[1].step()
        self.num_outer_steps += 1
        self._log_meta(meta, by_half)
        return hypergradient

    # Setting up ------------------------------------------------------------------------------------

    @property
    def learns_weights(self) -> bool:
        return any(True for _ in self.reweighter.parameters())

    @property
    def data(self) -> JudgeData:
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(datamodule, JudgeData)
        return datamodule

    def prepare_data(self) -> None:
        if self.cold_start is not None:
            self.cold_start.run(self.data.root / "train.jsonl", self.judge.base)

    def setup(self, stage: str) -> None:
        if self.trainer.world_size > 1:
            raise DajError(f"this version trains on one device; got {self.trainer.world_size}. Set trainer.devices=1.")
        self.judge.load()
        self._check_precision()
        if stage == "fit" and (self.trainer.max_epochs != 1 or self.trainer.max_steps != -1):
            raise DajError(
                "a run is one epoch of data.max_windows windows. Leave trainer.max_epochs and max_steps alone."
            )
        if stage == "fit":
            self.reweighter.build(TrainingSet(self.data.domains, len(self.data.train_pairs)))
            self.report = None

    def _check_precision(self) -> None:
        """The base has its own dtype; adapters, bank and weights stay float32, unscaled and outside autocast."""
        precision = str(self.trainer.precision)
        if precision == "bf16-true":
            check_adapter_dtype([nn.Parameter(p.detach().bfloat16()) for p in self.judge.adapter_parameters()])
        if precision not in ("32-true", "64-true"):
            raise DajError(
                f"trainer.precision is {precision}; the bank needs gradients that nothing casts or scales. Set it to "
                f"32-true, and model.judge.init_args.base_dtype to bfloat16 for a bfloat16 base."
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        inner = self.inner.make_optimizer(self.judge.adapter_parameters())
        check_optimizer(inner)
        num_windows = self.data.max_windows
        optimizers, schedules = [inner], [self.inner.make_schedule(inner, num_windows)]
        if self.learns_weights:
            outer = self.outer.make_optimizer(self.reweighter.parameters())
            num_outer = max(num_windows // self.meta_every - self.outer_warmup_windows // self.meta_every, 0)
            sparse = any(getattr(module, "sparse", False) for module in self.reweighter.modules())
            if sparse and self.outer.optimizer != "lazy_adam":
                raise DajError(
                    f"an instance table has sparse gradients, which {self.outer.optimizer} does not take. Set "
                    f"model.outer.optimizer to lazy_adam."
                )
            optimizers.append(outer)
            schedules.append(self.outer.make_schedule(outer, num_outer))
        return optimizers, schedules  # type: ignore[return-value]

    def on_fit_start(self) -> None:
        for dataset in (self.data.train_pairs, self.data.meta_pairs):
            dataset.reference_logp = reference_logps(self.judge, dataset, self.data.root / "reference", self.device)

    def on_train_start(self) -> None:
        self.judge.train()  # whatever was measured before: transformers checkpoints activations in train mode only
        self.flat = FlatView(self.judge.adapter_parameters())
        rows = GradientBank if self.learns_weights else GradientSum
        self.bank = rows(self.flat, self.data.num_inner, self.bank_dtype)
        self._start = (time.perf_counter(), self.num_windows)
        if self._rng_state is not None:
            restore_rng(self._rng_state)
            self._rng_state = None

    # Answering comparisons -------------------------------------------------------------------------

    def test_step(self, batch: Sequence[Comparison], batch_idx: int) -> dict[str, list[Judgment]]:  # type: ignore[override]
        return {"judgments": self.answer(batch)}

    validation_step = test_step

    def answer(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """What the judge says to each comparison."""
        return answer(self.judge, self.data.tokenizer, comparisons, self.sampling, self.num_windows)

    # Checkpoints: adapters, weights, both optimizers, counters and generators; the base stays where it is

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = {name: checkpoint["state_dict"][name] for name in self._trained_names()}
        checkpoint["daj"] = {
            "num_windows": self.num_windows,
            "num_outer_steps": self.num_outer_steps,
            "agreement": self._agreement,
            "data": self._data_facts(),
            "rng": capture_rng(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        wanted = set(self._trained_names())
        if not self.trainer.training:  # validate and test know no training set, so their reweighter is not built
            wanted = {name for name in wanted if name.startswith("judge.")}
            checkpoint["state_dict"] = {name: checkpoint["state_dict"].get(name) for name in wanted}
        missing = sorted(name for name in wanted if checkpoint["state_dict"].get(name) is None)
        if missing:
            raise DajError(
                f"the checkpoint lacks {len(missing)} of this run's trained tensors, first {missing[0]!r}: it is of "
                f"another judge or reweighter. Use the --config it was written with."
            )
        own = checkpoint["daj"]
        if self.trainer.training and own["data"] != self._data_facts():
            changed = sorted(key for key, value in self._data_facts().items() if own["data"].get(key) != value)
            raise DajError(
                f"the checkpoint is of a run with another {', '.join(changed)}; resumed on this data it would not be "
                f"that run. Use its --config, or leave --ckpt_path out."
            )
        self.num_windows, self.num_outer_steps = own["num_windows"], own["num_outer_steps"]
        self._agreement = own["agreement"]
        self._rng_state = own["rng"]

    def _data_facts(self) -> dict[str, Any]:
        """What must not change between a run and its resumption."""
        data = self.data
        if not self.trainer.training:
            return {}
        return {
            "domains": list(data.domains),
            "num_inner": data.num_inner,
            "num_meta": data.num_meta,
            "max_windows": data.max_windows,
            "seed": data.seed,
            "training pairs": data.train_pairs.fingerprint(),
            "meta pairs": data.meta_pairs.fingerprint(),
        }

    def _trained_names(self) -> list[str]:
        return [name for name, parameter in self.named_parameters() if parameter.requires_grad]

    # Logs and checks -------------------------------------------------------------------------------

    def _check_finite(self, window: Window, weights: Tensor) -> None:
        """Stop before the update, naming the samples."""
        if window.gradient.isfinite().all() and window.losses.isfinite().all():
            return
        bad = ~(window.losses.isfinite() & weights.isfinite())
        if self.learns_weights:
            bad |= ~torch.stack([row.isfinite().all() for row in window.bank])
        raise NonFiniteError(
            f"window {self.num_windows}: loss or gradient is not finite for samples "
            f"{window.sample_ids[bad].tolist()} (losses {window.losses[bad].tolist()}). Nothing was updated; look at "
            f"these rows of train.jsonl, lower model.inner.lr or set model.max_norm."
        )

    def _log_step(self, report: StepReport) -> None:
        start, first = self._start
        rate = (self.num_windows - first) * len(report.losses) / (time.perf_counter() - start)
        loss, spread = float(report.losses.mean()), float(report.weights.std(correction=0))
        bar = {"window": float(self.num_windows), "loss": loss, "weight_spread": spread, "samples_per_s": rate}
        self.log_dict(bar, prog_bar=True, logger=False, batch_size=1)
        logged = {"inner/loss": loss, "inner/weight_spread": spread, "inner/samples_per_s": rate}
        logged["lr/inner"] = float(self._optimizers()[0].param_groups[0]["lr"])
        logged |= {f"weight/{name}": weight for name, weight in self.reweighter.named_weights().items()}
        self.log_dict(logged, batch_size=1)

    def _log_meta(self, meta: MetaGradient, by_half: Sequence[Tensor]) -> None:
        loss = float(meta.losses.mean())
        self.log("meta_loss", loss, prog_bar=True, logger=False, batch_size=1)
        agreement = split_half_correlation(*by_half) if len(by_half) == 2 else math.nan
        for logger in self.loggers:  # self.log would skip the outer steps between two of log_every_n_steps
            logger.log_metrics({"meta/loss": loss, "meta/split_half": agreement}, step=self.num_windows)
        if math.isnan(agreement):
            return
        self._agreement = [*self._agreement, agreement][-_AGREEMENT_OVER:]
        mean = sum(self._agreement) / len(self._agreement)
        if self.num_outer_steps % _AGREEMENT_WARN_EVERY == _AGREEMENT_OVER and mean < _AGREEMENT_WANTED:
            rank_zero_warn(
                f"the two halves of the meta batch correlate only {mean:.2f} in d alpha (mean of {_AGREEMENT_OVER} "
                f"outer steps; below {_AGREEMENT_WANTED} the weights mostly follow noise). Raise data.num_meta, or "
                f"use fewer weights (domains instead of a table).",
                stacklevel=2,
            )

    def _optimizers(self) -> list[Any]:
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]

    def _schedules(self) -> list[Any]:
        schedules = self.lr_schedulers()
        return schedules if isinstance(schedules, list) else [schedules]
