"""What training leaves behind for whoever asks which data mattered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback

from daj_lightning.records import DajError
from daj_lightning.training.module import DataReweightedJudge


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
            self._flush(window)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DataReweightedJudge)
        self._flush(pl_module.num_windows)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._rows = list(state_dict["rows"])

    def _flush(self, window: int) -> None:
        if not self._rows:
            return
        path = self.path / f"part-{window:06d}.parquet"
        beside = path.with_suffix(".partial")
        pq.write_table(pa.Table.from_pylist(self._rows, _SCHEMA), beside)
        beside.replace(path)
        self._rows = []


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
