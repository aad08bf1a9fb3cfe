"""A file of JSON rows that outlives the process which writes it.

Rows are only ever appended, each in one write, so that a killed process leaves whole rows and at most
one torn line, which the next one cuts off; a row that only lacks its line break gets it. A row may carry a
checksum (`crc`: CRC-32 of the row without it, as compact JSON with sorted keys): then a line that was damaged
later is found, and named. A file whose first line is no row of such a journal is somebody else's, and is left
as it is. One process holds a journal at a time.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
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
        keys: that the first row of such a file has; with "crc" among them all rows carry a checksum.
        begins: the first row of such a file, by which it is known when it is torn.
    Raises:
        DajError: another process holds the file, it cannot be opened, or it is no such file.
    """

    def __init__(self, path: str | Path, what: str, keys: tuple[str, ...] = ("crc",), begins: str = '{"') -> None:
        self.path = Path(path)
        self.what = what
        self.keys = keys
        self.begins = begins.encode()
        self.lock = threading.Lock()

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.fd = _opened(self.path)
        except OSError as error:
            raise DajError(f"{self.what}: cannot write {str(self.path)!r}: {error.strerror}.") from error
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(self.fd), os.stat(self.path)):
                raise BlockingIOError  # its holder has just put another file in its place
            self._mend()
        except (BlockingIOError, FileNotFoundError) as error:
            os.close(self.fd)
            raise DajError(
                f"{self.what}: another process writes {str(self.path)!r}. Wait for it, or name another output."
            ) from error
        except BaseException:
            os.close(self.fd)
            raise
        return self

    def _mend(self) -> None:
        """Give the last row its line break, or cut it off if it is torn."""
        end, length = os.fstat(self.fd).st_size, whole_length(self.fd)
        if not end:
            return
        first = tail = b""
        with self.path.open("rb") as file:
            if file.read(BLOCK).lstrip().startswith(b"{"):  # else there is no row, and it may be long
                file.seek(0)
                first = next(line for line in file if line.strip())
                file.seek(length)
                tail = file.read()
        whole = _object(first)
        if whole is None and length == 0:
            ours = tail.startswith(self.begins) or (tail != b"" and self.begins.startswith(tail))
        elif whole is None:
            ours = first.startswith(self.begins) and length == end  # damaged: who reads it says how
        else:
            ours = all(key in whole for key in self.keys)
        if not ours:
            raise DajError(
                f"{self.what}: {str(self.path)!r} is no file of {self.what}: its first line is no row of one"
                f" ({', '.join(self.keys)}). It is left as it is; name another output."
            )
        if length < end:
            if self._is_row(tail):
                os.write(self.fd, b"\n")
            else:
                os.ftruncate(self.fd, length)

    def _is_row(self, line: bytes) -> bool:
        row = _object(line)
        return row is not None and ("crc" not in self.keys or row.pop("crc", None) == checksum(row))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.fsync(self.fd)
        os.close(self.fd)  # and with it the lock

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row, with its checksum if this journal has them."""
        line = (json.dumps({**row, "crc": checksum(row)} if "crc" in self.keys else row) + "\n").encode()
        with self.lock:
            written = os.write(self.fd, line)
        if written < len(line):
            raise OSError(f"{self.path}: only {written} of {len(line)} bytes could be written; is the disk full?")

    def restart(self, rows: Iterable[Mapping[str, Any]], keep_as: Path | None = None) -> None:
        """Put these rows in place of all that are there: all of them, or after a kill none.

        Args:
            keep_as: what the file so far is renamed to; None to drop it.
        """
        beside = self.path.with_name(self.path.name + ".part")
        beside.unlink(missing_ok=True)
        with Journal(beside, self.what, self.keys, self.begins.decode()) as new:
            for row in rows:
                new.append(row)
        taken = _opened(beside)
        fcntl.flock(taken, fcntl.LOCK_EX)
        if keep_as is not None:
            os.replace(self.path, keep_as)
        os.replace(beside, self.path)
        os.close(self.fd)
        self.fd = taken


def read_checked(path: str | Path, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and row, without its checksum, of every line; a torn last line is left out.

    Raises:
        DajError: no file, or a line that is damaged; names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise DajError(f"{what}: no file {str(path)!r}.")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = checked_row(line, f"{what}: {path}, line {number}")
            except DajError:
                if not line.endswith(b"\n"):
                    return  # its writer was killed, or is writing it
                raise
            yield number, row


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


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)


def _object(line: bytes) -> dict[str, Any] | None:
    """The JSON object that the line is, if it is one."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


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
