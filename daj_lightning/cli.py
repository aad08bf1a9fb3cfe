"""LightningCLI with DAJ's classes: one configuration file for fit, validate, test, prepare and export.

Turns three traps into one-line errors: a misspelt key names its nearest neighbour, `--ckpt_path last`
never starts from scratch by itself, and nothing in a checkpoint overrides the command line.
"""

from __future__ import annotations

import difflib
import inspect
import re
import warnings
from collections.abc import Sequence
from typing import Any

import jsonargparse
from jsonargparse import ArgumentError
from jsonargparse.util import import_object
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback

from daj_lightning.data import JudgeData
from daj_lightning.records import DajError
from daj_lightning.training import (
    AtomicCheckpointIO,
    DataReweightedJudge,
    StopRequests,
    WindowCheckpoint,
    check_strategy,
    failure,
    is_whole,
    last_checkpoint,
    last_or_new,
)

warnings.filterwarnings("ignore", message="LightningCLI's args parameter")  # our commands do mean to pass them
for _theirs in (
    ".*functional.all_gather is deprecated",
    ".*LeafSpec",
    ".*is_gradient_checkpointing",
    ".*does not have many workers",
):
    warnings.filterwarnings("ignore", message=_theirs)  # libraries about each other: nothing a user could do

_PARSER = {"exit_on_error": False, "default_env": True, "env_prefix": "DAJ"}


class Cli(LightningCLI):
    """`python -m daj_lightning fit|validate|test`; with run=False, fit's classes for our own commands."""

    def __init__(self, args: ArgsType = None, run: bool = True) -> None:
        self._runs = run
        parser_kwargs: dict[str, Any] = {**_PARSER, **{name: dict(_PARSER) for name in self.subcommands()}}
        try:
            super().__init__(
                DataReweightedJudge,
                JudgeData,
                save_config_callback=_SaveFitConfig,
                save_config_kwargs={"overwrite": True, "config_filename": "resolved_config.yaml"},
                trainer_defaults={"max_epochs": 1, "num_sanity_val_steps": 0},
                seed_everything_default=0,
                parser_kwargs=parser_kwargs,
                args=args,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
            )
        except ArgumentError as error:
            raise DajError(_one_line(str(error), self.parser)) from error

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"},
            "validate": {"model", "dataloaders", "datamodule"},
            "test": {"model", "dataloaders", "datamodule"},
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("model.judge.init_args.base", "data.tokenizer")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Checkpoints are written whole or not at all, whatever else the configuration plugs in.

        A strategy is refused before it is made: one whose library is missing would say only that.
        """
        strategy = self._get(self.config_init, "trainer.strategy")
        check_strategy(strategy if isinstance(strategy, str) else type(strategy).__name__)
        named = self._get(self.config_init, "trainer.plugins") or []
        plugins = [*(named if isinstance(named, list) else [named]), AtomicCheckpointIO()]
        return super().instantiate_trainer(**{**kwargs, "plugins": plugins})

    def _parse_ckpt_path(self) -> None:
        """Does nothing: Lightning would let a checkpoint's hyper-parameters beat the command line."""

    def _run_subcommand(self, subcommand: str) -> None:
        if not self._runs:
            return
        saver = self._saver() if subcommand == "fit" else None
        try:
            with saver.stop_requests if saver else StopRequests():
                super()._run_subcommand(subcommand)
        except (OSError, RuntimeError, MemoryError) as error:
            if (told := failure(error, self.model.num_windows, saver.dirpath if saver else None)) is None:
                raise
            raise told from error

    def _saver(self) -> WindowCheckpoint | None:
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        return next((callback for callback in callbacks if isinstance(callback, WindowCheckpoint)), None)

    def before_fit(self) -> None:
        self._find_checkpoint(may_start=True)

    def before_validate(self) -> None:
        self._find_checkpoint()

    def before_test(self) -> None:
        self._find_checkpoint()

    def _find_checkpoint(self, may_start: bool = False) -> None:
        arguments = self.config_init[self.config["subcommand"]]
        arguments["ckpt_path"] = self.resolve_checkpoint(arguments.get("ckpt_path"), may_start)

    def resolve_checkpoint(self, ckpt_path: str | None, may_start: bool = False) -> str | None:
        """The file that `--ckpt_path` means.

        "last" is the newest undamaged one in the run's directory. "last-or-new", for scripts that are run again and
        again, is the same, or None where there is none yet and the command `may_start` a run.
        """
        if ckpt_path is None:
            return None
        if ckpt_path not in ("last", "last-or-new"):
            if not is_whole(ckpt_path):
                raise DajError(f"--ckpt_path {ckpt_path!r} is missing or damaged. Name a whole one, or use 'last'.")
            return ckpt_path
        if (saver := self._saver()) is None:
            raise DajError(
                f"--ckpt_path {ckpt_path}: the configuration has no WindowCheckpoint in trainer.callbacks. Name the "
                f"file."
            )
        if ckpt_path == "last":
            return str(last_checkpoint(saver.dirpath))
        if not may_start:
            raise DajError("--ckpt_path last-or-new is for fit, which can start anew. Use 'last'.")
        found = last_or_new(saver.dirpath)
        return None if found is None else str(found)


class _SaveFitConfig(SaveConfigCallback):
    """resolved_config.yaml is what trained the judge; a later `test` does not write over it."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            super().setup(trainer, pl_module, stage)


_UNKNOWN = re.compile(
    r"[Kk]ey '([\w.]+)' is not expected|unrecognized arguments: --([\w.]+)|ption '([\w.]+)' is not accepted"
    r"|does not accept option '([\w.]+)'"
)
_CLASS_PATH = re.compile(r"class_path '([\w.]+)'")


def _one_line(message: str, parser: jsonargparse.ArgumentParser) -> str:
    """jsonargparse's message on one line; an unknown key gets its nearest known neighbour."""
    text = re.sub(r"\s+", " ", message.replace("error:", "")).strip()[:600]
    unknown = _UNKNOWN.search(text)
    if unknown is None:
        return text
    parts = next(group for group in unknown.groups() if group).split(".")
    named = _CLASS_PATH.search(text)
    known = list(inspect.signature(import_object(named[1])).parameters) if named else _known_names(parser)
    key = next((part for part in parts if part not in known), parts[-1])
    near = difflib.get_close_matches(key, known, n=1)
    return f"{text.rstrip('.')}. Did you mean {near[0]!r}?" if near else text


def _known_names(parser: jsonargparse.ArgumentParser) -> list[str]:
    """Every option name that the parser and its subcommands know, without the dotted path before it."""
    subparsers = [p for action in parser._actions for p in (getattr(action, "_name_parser_map", None) or {}).values()]
    return sorted({part for p in (parser, *subparsers) for action in p._actions for part in action.dest.split(".")})


def load(config: Sequence[str]) -> Cli:
    """The classes that configuration files describe, without running anything."""
    if not config:
        raise DajError("no --config given. Name a file, e.g. --config configs/quickstart.yaml.")
    return Cli(["fit", *(part for path in config for part in ("--config", path))], run=False)


__all__ = ["Cli", "load"]
