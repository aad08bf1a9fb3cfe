"""`audit`: which rows of a preference file help the meta set, and which harm it?

Reads both files, trains the model's adapters shortly on all rows alike, has the bank engine credit every row in every
window that sees it (training/auditor.py), and writes what it found (evaluation/audit_report.py).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer, seed_everything
from rich.console import Console

from daj_lightning.bilevel import BankEngine
from daj_lightning.data import PairDataset
from daj_lightning.data.jsonl import sha256_of
from daj_lightning.data.preference_data import PreferenceData, fitting
from daj_lightning.data.preferences import Preference, read_preferences
from daj_lightning.data.progress import Meter
from daj_lightning.evaluation.audit_report import AuditFacts, print_report, write_report
from daj_lightning.evaluation.influence import AuditedRow, audited_rows
from daj_lightning.judge import PROJECTIONS, Judge, load_tokenizer
from daj_lightning.objectives import DPO
from daj_lightning.records import DajError
from daj_lightning.training import Auditor, Level

WARMUP_WINDOWS = 5
MAX_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Of the short training run that the audit watches."""

    base_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    lora_r: int = 16
    lora_targets: Sequence[str] | None = None
    """None: the paper's seven projections."""
    gradient_checkpointing: bool = False
    beta: float = 0.1
    lr: float = 5e-5
    looks: int = 4
    unroll_windows: int = 8
    num_inner: int = 16
    num_meta: int = 8
    max_length: int = 2048
    seed: int = 0


def audit(
    data: str,
    meta: str,
    model: str,
    output: str | Path,
    settings: Settings,
    id_column: str | None = None,
    domain_column: str | None = None,
    show: int = 20,
    console: Console | None = None,
) -> list[AuditedRow]:
    """Every row of `data` with what was found; writes audit.md and audit.parquet into `output`.

    Raises:
        DajError: a file, a row or the model cannot be read, or nothing in a file can be used.
    """
    if not model:
        raise DajError("which model? Influence is that on a model: give --model, a directory or a hub name.")
    if min(show, settings.lora_r, settings.num_meta) < 1:
        raise DajError(f"show={show}, lora_r={settings.lora_r} and num_meta={settings.num_meta} must be >= 1.")
    console = console or Console()
    rows = read_preferences(data, "data", id_column, domain_column)
    meta_rows = read_preferences(meta, "meta")
    asks_in_chat = any(not isinstance(of_file[0].prompt, str) for of_file in (rows, meta_rows))
    tokenizer = load_tokenizer(model, chat=asks_in_chat)
    rows, meta_rows = (fitting(of_file, tokenizer, settings.max_length) for of_file in (rows, meta_rows))
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise DajError(f"--output {str(output)!r} is a file; name a directory, new or there already.")
    output.mkdir(parents=True, exist_ok=True)
    prepared = PreferenceData(
        _usable(rows, data),
        _usable(meta_rows, meta),
        tokenizer,
        settings.max_length,
        output,
        settings.num_inner,
        settings.num_meta,
        settings.looks,
        WARMUP_WINDOWS,
        settings.seed,
    )
    auditor = _train(model, settings, prepared, console)
    assert isinstance(prepared.train_set, PairDataset)
    audited = audited_rows(rows, prepared.meta, auditor, prepared.train_set)
    facts = AuditFacts(
        facts={
            "data": f"{data}, sha256 {sha256_of(data)}",
            "meta": f"{meta}, sha256 {sha256_of(meta)}",
            "model": model,
            "settings": str(settings),
            "windows": f"{prepared.max_windows}, the first {WARMUP_WINDOWS} not counted",
        },
        unusable_meta={row.row: row.problem for row in meta_rows if row.problem},
        num_meta=len(prepared.meta),
        meta_loss=float(F.softplus(-auditor.meta_margins).mean()),
    )
    write_report(audited, facts, Path(data).name, output, show)
    print_report(audited, facts, output, console)
    return audited


def _usable(rows: Sequence[Preference], path: str) -> list[Preference]:
    usable = [row for row in rows if not row.problem]
    if not usable:
        raise DajError(f"{path} has no row that can be used; the first, row {rows[0].row}: {rows[0].problem}.")
    return usable


def _train(model: str, settings: Settings, data: PreferenceData, console: Console) -> Auditor:
    seed_everything(settings.seed, verbose=False)  # of the adapters' start
    judge = Judge(
        model,
        settings.base_dtype,
        lora_r=settings.lora_r,
        lora_alpha=2 * settings.lora_r,
        lora_targets=settings.lora_targets or PROJECTIONS,
        gradient_checkpointing=settings.gradient_checkpointing,
    )
    inner = Level(settings.lr, warmup_steps=WARMUP_WINDOWS)
    # Rows as exact as the gradients: what a bfloat16 base computes needs no float32.
    engine = BankEngine(dtype=settings.base_dtype, unroll_windows=settings.unroll_windows)
    auditor = Auditor(judge, inner, DPO(settings.beta), engine, MAX_NORM, WARMUP_WINDOWS)
    with _quiet():
        trainer = Trainer(
            accelerator="auto",
            devices=1,
            max_epochs=1,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[_Progress(data.max_windows, console)],
            default_root_dir=data.root,
        )
        trainer.fit(auditor, datamodule=data)
    return auditor


@contextmanager
def _quiet() -> Iterator[None]:
    """Without which devices there are, and what libraries say of each other: nothing a user could do."""
    talk = logging.getLogger("lightning.pytorch")
    level = talk.level
    talk.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for theirs in ("LeafSpec", "is_gradient_checkpointing", "many workers", "validation_step", "in eval mode"):
                warnings.filterwarnings("ignore", message=f".*{theirs}")
            yield
    finally:
        talk.setLevel(level)


class _Progress(Callback):
    """Windows done."""

    def __init__(self, num_windows: int, console: Console) -> None:
        self.meter = Meter("auditing", num_windows, "windows", console)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.meter.__enter__()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.meter.advance()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.meter.done:
            self.meter.__exit__(None, None, None)


__all__ = ["Settings", "audit"]
