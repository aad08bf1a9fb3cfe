"""What a user can meet in the middle of a run, in one line: what happened, what stands, what to do.

Errors that are not here are bugs of ours, and keep their traceback.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch.distributed import DistError

from daj_lightning.records import DajError, LostPeerError
from daj_lightning.training.checkpoint import NO_ROOM, checkpoints, is_whole, os_error

_LESS_MEMORY = (
    "model.judge.init_args.gradient_checkpointing=true, with which this run can go on; in a new run "
    "model.engine.init_args.dtype=bfloat16 or a smaller data.max_length (`plan` shows what each saves)"
)

_REFUSED = re.compile(
    r"\w+ out of memory\. Tried to allocate [\d.]+ \w+|\w+: can't allocate memory: you tried .*? bytes"
)
"""What torch's allocators say that a user understands."""

_LOST = re.compile(r"gloo.*(closed by peer|reset by peer|Broken pipe|Connection refused|Timed out)", re.DOTALL)


def failure(error: BaseException, num_windows: int, directory: str | Path | None) -> DajError | None:
    """What to tell of an error that broke a run off; None if no user can do anything about it.

    Args:
        error: as it left Lightning's loops.
        num_windows: that were done.
        directory: of the checkpoints, if any are written.
    """
    if is_lost_peer(error):
        return LostPeerError(lost_peer(_first_line(error), num_windows, directory))
    refused = os_error(error)
    if refused is not None and refused.errno in NO_ROOM:
        return DajError(f"window {num_windows}: the disk is full: {refused}. Free some of it. {standing(directory)}")
    if is_out_of_memory(error):
        said = _REFUSED.search(str(error))
        what = said[0] if said else _first_line(error) or "out of memory"
        return DajError(f"window {num_windows}: {what}. To need less, set {_LESS_MEMORY}. {standing(directory)}")
    return None


def is_lost_peer(error: BaseException) -> bool:
    """Another process of the run is gone, or does not answer within the strategy's timeout."""
    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and bool(_LOST.search(str(error))))


def lost_peer(what: str, num_windows: int, directory: str | Path | None) -> str:
    """The line for it: what was seen of it, and what stands."""
    return (
        f"window {num_windows}: a process of this run was lost ({what}); why is in its own output or the system's log. "
        f"{standing(directory)} Another number of processes may go on with it."
    )


def _first_line(error: BaseException) -> str:
    """Without the place in torch's or gloo's source that it may begin with."""
    return re.sub(r"^\[\S+\] ", "", str(error).partition("\n")[0])


def is_out_of_memory(error: BaseException) -> bool:
    """On a GPU, or on the CPU, where torch has no class of its own for it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def standing(directory: str | Path | None) -> str:
    """A sentence on the checkpoint that a run goes on from."""
    whole = next((path for path in checkpoints(directory) if is_whole(path)), None) if directory is not None else None
    if whole is None:
        return "No checkpoint is written yet: start anew."
    return f"{whole} stands: go on with --ckpt_path last."
