"""Checkpoints that survive `kill -9`: written whole or not at all, verified before they are used."""

from __future__ import annotations

import hashlib
import os
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn

from daj_lightning.records import DajError

_NAME = re.compile(r"window-(\d+)\.ckpt\Z")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint writer, with a rename at the end: a reader sees all of a file or none of it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(path.name + ".part")
        with beside.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        _digest_path(path).write_text(_digest(beside), encoding="ascii")  # before the rename: never a file without it
        beside.replace(path)


def checkpoint_path(directory: Path, num_windows: int) -> Path:
    """Of the state after so many windows."""
    return directory / f"window-{num_windows:06d}.ckpt"


def checkpoints(directory: str | Path) -> list[Path]:
    """The checkpoints in a directory, newest first."""
    found = [path for path in Path(directory).glob("window-*.ckpt") if _NAME.search(path.name)]
    return sorted(found, reverse=True)


def last_checkpoint(directory: str | Path) -> Path:
    """The newest undamaged checkpoint; names every damaged one it passes over.

    Raises:
        DajError: there is none.
    """
    found = checkpoints(directory)
    for path in found:
        if is_whole(path):
            return path
        rank_zero_warn(
            f"checkpoint {path} is damaged or half-written; falling back to the one before it.", stacklevel=2
        )
    damaged = f", only {len(found)} damaged" if found else ""
    raise DajError(
        f"--ckpt_path last: no usable checkpoint in {str(directory)!r}{damaged}. Leave --ckpt_path out to start anew."
    )


def remove_checkpoint(path: Path) -> None:
    path.unlink()
    _digest_path(path).unlink(missing_ok=True)


def is_whole(path: str | Path) -> bool:
    """Whether a checkpoint is the bytes that were written, by the digest beside it."""
    path = Path(path)
    digest = _digest_path(path)
    return path.is_file() and digest.is_file() and digest.read_text(encoding="ascii") == _digest(path)


def _digest_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def capture_rng() -> dict[str, Any]:
    """State of every generator a step could draw from."""
    python_version, python_words, python_gauss = random.getstate()
    name, words, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        # Of this process's device alone: a run may come back on another number of them.
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],
        "python": (python_version, list(python_words), python_gauss),
        "numpy": (str(name), torch.from_numpy(words.astype(np.int64)), int(position), int(has_gauss), float(gauss)),  # type: ignore[union-attr]
    }


def restore_rng(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"][0].cpu())
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, numpy_words, *rest = state["numpy"]
    np.random.set_state((name, numpy_words.cpu().numpy().astype(np.uint32), *rest))
