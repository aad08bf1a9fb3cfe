"""A file of JSON rows that outlives the process which writes it.

Rows are only ever appended, each in one write, so that a killed process leaves whole rows and at most
one torn line, which the next one cuts off. A row may carry a checksum (`crc`: CRC-32 of the row
without it, as compact JSON with sorted keys): then a line that was damaged later is found, and named.
One process holds a journal at a time.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from daj_lightning.records import DajError

BLOCK = 1 << 16


class Journal:
    """Rows appended to a file that this process alone holds; a context manager. Threads may share it.

    Args:
        path: of the file; made if absent, its torn last line is cut off.
        what: the rows, in words, for errors.
    Raises:
        DajError: another process holds the file, or it cannot be opened.
    """

    def __init__(self, path: str | Path, what: str) -> None:
        self.path = Path(path)
        self.what = what
        self.lock = threading.Lock()

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise DajError(f"{self.what}: cannot write {str(self.path)!r}: {error.strerror}.") from error
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self.fd)
            raise DajError(
                f"{self.what}: another process writes {str(self.path)!r}. Wait for it, or name another output."
            ) from error
        os.ftruncate(self.fd, whole_length(self.fd))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.fsync(self.fd)
        os.close(self.fd)  # and with it the lock

    def append(self, row: Mapping[str, Any], *, checked: bool = True) -> None:
        """Add a row, with its checksum or as it is."""
        line = (json.dumps({**row, "crc": checksum(row)} if checked else row) + "\n").encode()
        with self.lock:
            written = os.write(self.fd, line)
        if written < len(line):
            raise OSError(f"{self.path}: only {written} of {len(line)} bytes could be written; is the disk full?")

    def clear(self) -> None:
        """Drop all rows."""
        os.ftruncate(self.fd, 0)


def read_checked(path: str | Path, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and row, without its checksum, of every whole line; a torn last line is left out.

    Raises:
        DajError: no file, or a line that is damaged; names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise DajError(f"{what}: no file {str(path)!r}.")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return  # its writer was killed, or is writing it
            yield number, checked_row(line, f"{what}: {path}, line {number}")


def checked_row(line: bytes, where: str) -> dict[str, Any]:
    remedy = "Delete that line if its row may be lost (a rerun makes it again), or restore the file."
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DajError(f"{where} is damaged: it is not JSON. {remedy}") from error
    if not isinstance(row, dict) or "crc" not in row:
        raise DajError(f"{where} is damaged: it carries no checksum. {remedy}")
    found = row.pop("crc")
    if found != checksum(row):
        raise DajError(f"{where} is damaged: its checksum is {found!r}, its content's {checksum(row)!r}. {remedy}")
    return row


def checksum(row: Mapping[str, Any]) -> str:
    """CRC-32 of the row as compact JSON with sorted keys, 8 hexadecimal digits."""
    return f"{zlib.crc32(json.dumps(row, sort_keys=True, separators=(',', ':')).encode()):08x}"


def whole_length(fd: int) -> int:
    """Bytes up to and with the last line break."""
    end = os.fstat(fd).st_size
    while end:
        start = max(0, end - BLOCK)
        found = os.pread(fd, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
