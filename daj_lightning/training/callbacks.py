"""What training leaves behind: checkpoints to go on from, and which data mattered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_info

from daj_lightning.data import BilevelLoader
from daj_lightning.records import DajError
from daj_lightning.rollout import RolloutError
from daj_lightning.training.checkpoint import checkpoint_path, checkpoints, remove_checkpoint
from daj_lightning.training.module import DataReweightedJudge


class WindowCheckpoint(Checkpoint):
    """Saves every `every_n_windows` bi-level steps, at the end, and when the rollouts fail a run.

    Lightning's ModelCheckpoint counts optimizer steps, of which a window has one or two. Lightning calls a
    `Checkpoint` after all other callbacks, so that their state is of the same window.

    A fresh run moves what an earlier one left there out of its way, so that "last" always means this run.

    Args:
        dirpath: directory of the checkpoints.
        every_n_windows: distance between two.
        keep: newest ones kept, >= 2: if the newest is damaged, the one before it is used.
    """

    def __init__(self, dirpath: str, every_n_windows: int = 100, keep: int = 2) -> None:
        if every_n_windows < 1 or keep < 2:
            raise DajError(
                f"WindowCheckpoint needs every_n_windows >= 1 and keep >= 2, got {every_n_windows} and {keep}."
            )
        self.dirpath = Path(dirpath)
        self.every_n_windows = every_n_windows
        self.keep = keep

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and trainer.ckpt_path is None and checkpoints(self.dirpath):
            number = 1
            while (aside := self.dirpath.with_name(f"{self.dirpath.name}.{number}")).exists():
                number += 1
            self.dirpath.rename(aside)
            rank_zero_info(f"moved the checkpoints of an earlier run to {aside}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, DataReweightedJudge)
        done = pl_module.num_windows
        if done % self.every_n_windows == 0 or done == pl_module.data.max_windows:
            self._save(trainer, done)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """No rollouts, so no window: what stands is the state between two, and nothing of it is lost."""
        if not isinstance(exception, RolloutError) or not trainer.training or trainer.train_dataloader is None:
            return
        assert isinstance(pl_module, DataReweightedJudge)
        assert isinstance(trainer.train_dataloader, BilevelLoader)
        trainer.train_dataloader.next_window = pl_module.num_windows  # the batch in hand was not trained on
        self._save(trainer, pl_module.num_windows)
        rank_zero_info(f"saved {checkpoint_path(self.dirpath, pl_module.num_windows)}: go on with --ckpt_path last")

    def _save(self, trainer: Trainer, num_windows: int) -> None:
        trainer.save_checkpoint(checkpoint_path(self.dirpath, num_windows), weights_only=False)
        if not trainer.is_global_zero:
            return
        for old in checkpoints(self.dirpath)[self.keep :]:
            remove_checkpoint(old)


class InfluenceRecorder(Callback):
    """Writes every sample's loss, weight and hypergradient, window by window.

    `influence.parquet` is a directory of part files that any parquet reader opens as one table, with
    columns window, sample, domain, loss, weight, hypergradient (null where no credit was due, or where the engine
    credits whole domains). A part is written every `every_n_windows`; parts that a resumed run will write again
    are removed.

    Args:
        path: of the directory.
        every_n_windows: rows of so many windows go into one part.
    """

    def __init__(self, path: str, every_n_windows: int = 100) -> None:
        if every_n_windows < 1:
            raise DajError(f"InfluenceRecorder needs every_n_windows >= 1, got {every_n_windows}.")
        self.path = Path(path)
        self.every_n_windows = every_n_windows
        self._rows: list[dict[str, Any]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DataReweightedJudge)
        if not trainer.is_global_zero:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        for part in self.path.glob("part-*.parquet"):
            if int(part.stem.removeprefix("part-")) > pl_module.num_windows:
                part.unlink()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, DataReweightedJudge)
        assert pl_module.report is not None
        report, names = pl_module.report, pl_module.data.domains
        unknown = [None] * len(report.losses)
        columns = zip(
            report.sample_ids.tolist(),
            report.domains.tolist(),
            report.losses.tolist(),
            report.weights.tolist(),
            unknown if report.hypergradient is None else report.hypergradient.tolist(),
            strict=True,
        )
        window = pl_module.num_windows
        self._rows += [
            {"window": window, "sample": i, "domain": names[k], "loss": loss, "weight": weight, "hypergradient": d}
            for i, k, loss, weight, d in columns
        ]
        if window % self.every_n_windows == 0:
            self._flush(trainer, window)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DataReweightedJudge)
        self._flush(trainer, pl_module.num_windows)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._rows = list(state_dict["rows"])

    def _flush(self, trainer: Trainer, window: int) -> None:
        rows, self._rows = self._rows, []
        if not rows or not trainer.is_global_zero:
            return
        path = self.path / f"part-{window:06d}.parquet"
        beside = path.with_suffix(".partial")
        pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), beside)
        beside.replace(path)


_SCHEMA = pa.schema(
    [
        ("window", pa.int64()),
        ("sample", pa.int64()),
        ("domain", pa.string()),
        ("loss", pa.float64()),
        ("weight", pa.float64()),
        ("hypergradient", pa.float64()),
    ]
)
