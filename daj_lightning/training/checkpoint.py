"""Checkpoints that survive `kill -9`: written whole or not at all, verified before they are used."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn
from lightning_utilities.core.apply_func import apply_to_collection

from daj_lightning.records import DajError

_NAME = re.compile(r"window-(\d+)\.ckpt\Z")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Disk, quota or file-size limit is full."""


class UnwrittenError(DajError):
    """A checkpoint could not be written. Nothing of it is left, and those before it are as they were.

    Args:
        text: what came, what was wanted, what to do.
        no_room: the disk or the quota is full; otherwise the directory cannot be written to.
    """

    def __init__(self, text: str, no_room: bool = False) -> None:
        super().__init__(text)
        self.no_room = no_room


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint writer, with a rename at the end: a reader sees all of a file or none of it.

    Raises:
        UnwrittenError: the operating system refused.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        path = Path(path)
        beside, digest = _beside(path), _digest_path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            # Where a checkpoint of this name is replaced, its own digest too: whichever is there is whole.
            digests = [_digest(beside), *([_digest(path)] if path.is_file() else [])]
            _beside(digest).write_text("\n".join(digests), encoding="ascii")
            _beside(digest).replace(digest)  # before the other: never a file without it
            beside.replace(path)
        except (OSError, RuntimeError) as error:  # torch.save turns one into the other
            refused = os_error(error)
            if refused is None:
                raise
            raise UnwrittenError(_why(refused, path, checkpoint), refused.errno in NO_ROOM) from error
        finally:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
                _beside(digest).unlink(missing_ok=True)


def os_error(error: BaseException | None) -> OSError | None:
    """The operating system's refusal behind an error, if there is one."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _why(refused: OSError, path: Path, checkpoint: dict[str, Any]) -> str:
    reason = os.strerror(refused.errno) if refused.errno else str(refused)
    if refused.errno not in NO_ROOM:
        return f"cannot write checkpoint {path}: {reason}. Make its directory writable"
    sizes: list[int] = []
    apply_to_collection(checkpoint, torch.Tensor, lambda tensor: sizes.append(tensor.nbytes))
    free = shutil.disk_usage(next(parent for parent in path.parents if parent.exists())).free
    return (
        f"no room for checkpoint {path} ({reason}): it needs some {_mib(sum(sizes))} and {_mib(free)} are free. Free "
        f"some of this disk"
    )


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB"


def checkpoint_path(directory: Path, num_windows: int) -> Path:
    """Of the state after so many windows."""
    return directory / f"window-{num_windows:06d}.ckpt"


def checkpoints(directory: str | Path) -> list[Path]:
    """The checkpoints in a directory, newest first."""
    numbered = {path: _NAME.search(path.name) for path in Path(directory).glob("window-*.ckpt")}
    numbers = {path: int(match[1]) for path, match in numbered.items() if match}
    return sorted(numbers, key=numbers.__getitem__, reverse=True)  # by windows: no clock is asked, names may grow


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
        f"--ckpt_path last: no usable checkpoint in {str(directory)!r}{damaged}. Leave --ckpt_path out to start anew, "
        f"or say --ckpt_path last-or-new in scripts that do both."
    )


def last_or_new(directory: str | Path) -> Path | None:
    """The same; None where no checkpoint was ever written, so that one command starts a run and goes on with it.

    Raises:
        DajError: there are checkpoints, and all are damaged: to start anew would throw a run away.
    """
    return last_checkpoint(directory) if checkpoints(directory) else None


def remove_leftovers(directory: str | Path) -> None:
    """What a process that was killed while it wrote a checkpoint left of it."""
    for part in Path(directory).glob("window-*.part"):
        part.unlink()


def remove_checkpoint(path: Path) -> None:
    path.unlink()
    _digest_path(path).unlink(missing_ok=True)


def is_whole(path: str | Path) -> bool:
    """Whether a checkpoint is the bytes that were written, by the digest beside it."""
    path = Path(path)
    digest = _digest_path(path)
    return path.is_file() and digest.is_file() and _digest(path) in digest.read_text(encoding="ascii").split()


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".part")


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
