"""What a checkpoint holds: all that trains, both optimizers, counters, generators, the engine's memory.

The base stays where it is. A checkpoint of another run is refused by name, before anything is loaded.
"""

from __future__ import annotations

from typing import Any

from lightning import LightningModule
from lightning.fabric.utilities import move_data_to_device

from daj_lightning.bilevel import HypergradientEngine, MetaAverage, Reweighter
from daj_lightning.data import BilevelData
from daj_lightning.objectives import Objective
from daj_lightning.records import DajError
from daj_lightning.training.agreement import Agreement
from daj_lightning.training.checkpoint import capture_rng, restore_rng
from daj_lightning.training.ranks import Ranks
from daj_lightning.training.rollouts import Rollouts


class Resumable(LightningModule):
    """The part of the module that goes into checkpoints and comes back."""

    objective: Objective
    reweighter: Reweighter
    engine: HypergradientEngine
    meta_average: MetaAverage
    agreement: Agreement
    rollouts: Rollouts | None
    meta_every: int
    outer_accumulation: int
    outer_warmup_windows: int
    num_windows: int
    num_outer_steps: int
    num_derivatives: int
    _resumed: dict[str, Any] | None = None

    @property
    def learns_weights(self) -> bool:
        return any(True for _ in self.reweighter.parameters())

    @property
    def credits_samples(self) -> bool:
        """The engine watches the windows, and meta batches are drawn."""
        return self.learns_weights

    @property
    def ranks(self) -> Ranks:
        """The processes that train together."""
        return Ranks(self.trainer)

    @property
    def data(self) -> BilevelData:
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(datamodule, BilevelData)
        return datamodule

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = {name: checkpoint["state_dict"][name] for name in self._trained_names()}
        parts = self.engine.parts() if self.credits_samples else []
        checkpoint["daj"] = {
            "num_windows": self.num_windows,
            "num_outer_steps": self.num_outer_steps,
            "num_derivatives": self.num_derivatives,
            "agreement": self.agreement.values,
            "run": self._run_facts(),
            "rng": capture_rng(),
            "engine": self.engine.state() if self.credits_samples else {},
            "engine_parts": [self.ranks.gather(part) for part in parts],  # of each tensor, every process's
            "meta_average": self.meta_average.state(),
            "derivatives": {
                name: parameter.grad for name, parameter in self.reweighter.named_parameters() if self.num_derivatives
            },
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
        if self.trainer.training and own["run"] != self._run_facts():
            changed = sorted(key for key, value in self._run_facts().items() if own["run"].get(key) != value)
            raise DajError(
                f"the checkpoint is of a run with another {', '.join(changed)}; resumed like this it would not be "
                f"that run. Use its --config, or leave --ckpt_path out."
            )
        self.num_windows, self.num_outer_steps = own["num_windows"], own["num_outer_steps"]
        self.num_derivatives = own["num_derivatives"]
        self.agreement.values = own["agreement"]
        self._resumed = own if self.trainer.training else None

    def resume(self) -> None:
        """Restore what needs the adapters and the engine in place; nothing to do in a fresh run."""
        own, self._resumed = self._resumed, None
        if own is None:
            return
        restore_rng(own["rng"])
        if self.credits_samples:
            parts = own["engine_parts"]
            if any(len(of_each) != self.ranks.number for of_each in parts):
                parts = self.engine.regroup(parts)
            else:
                parts = [of_each[self.ranks.rank] for of_each in parts]
            if not self.engine.parts_on_host:  # the own parts alone: a device need not hold those of all processes
                parts = move_data_to_device(parts, self.device)
            self.engine.load_state(move_data_to_device(own["engine"], self.device), parts)
        self.meta_average.load_state(move_data_to_device(own["meta_average"], self.device))
        for name, parameter in self.reweighter.named_parameters():
            parameter.grad = move_data_to_device(own["derivatives"].get(name), self.device)

    def _run_facts(self) -> dict[str, Any]:
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
            "meta_every": self.meta_every,
            "meta_decay": self.meta_average.decay,
            "outer_accumulation": self.outer_accumulation,
            "outer_warmup_windows": self.outer_warmup_windows,
            **self.engine.description(),
            **(self.rollouts.description() if self.rollouts is not None else {}),
            "objective": type(self.objective).__name__,
            "reweighter": self.reweighter.description(),
            "training samples": data.train_set.fingerprint(),
            "meta samples": data.meta_set.fingerprint(),
        }

    def _trained_names(self) -> list[str]:
        trained = [name for name, parameter in self.named_parameters() if parameter.requires_grad]
        return trained + [f"reweighter.{name}" for name, _ in self.reweighter.named_buffers()]

    def _optimizers(self) -> list[Any]:
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]

    def _schedules(self) -> list[Any]:
        schedules = self.lr_schedulers()
        return schedules if isinstance(schedules, list) else [schedules]
