"""The rows of LiveCodeBench's files, less their private tests, of which only the place is kept.

*.jsonl       read in pieces: a line may be 100 MB, nearly all of it private tests
*.jsonl.gz    unpacked into a temporary file without a name, then the same
*.parquet     a row at a time
hub:NAME      the data set's test*.jsonl, downloaded: its loading script is refused by datasets >= 4
"""

from __future__ import annotations

import codecs
import glob
import gzip
import os
import re
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from daj_lightning.data.json_stream import JsonScanner, flat_object
from daj_lightning.data.jsonl import is_gzip
from daj_lightning.records import DajError

HUB = "hub:"
HUB_FILES = "test*.jsonl"
MAX_ROW_BYTES = 16 * 2**20
"""Of a row less its private tests."""
_PIECE = 2**20
_KEY = "private_test_cases"
_BEGINNING = re.compile(rb'(?<!\\)"private_test_cases"[ \t]*:[ \t]*"')
_BEGINNING_BYTES = 64
_STEP = 2**16
_ID = re.compile(rb'"question_id"[ \t]*:[ \t]*"([^"\\]{1,80})"')


@dataclass(frozen=True, slots=True)
class OfficialRow:
    """A row of the file, its private tests aside."""

    where: str
    """File and place, for errors."""
    fields: dict[str, Any]
    private_tests: Callable[[], Iterable[str]] | None
    """Their text in pieces, from its beginning with each call; None where the row has none."""


def local_files(problems: str | Sequence[str], *, download: bool) -> list[Path]:
    """The files that `problems` names: paths, patterns, or the hub's name of a data set.

    Args:
        download: False: of the hub's files only those that are here already.
    Raises:
        DajError: there is no such file, or the hub does not answer.
    """
    found: list[Path] = []
    for name in [problems] if isinstance(problems, str) else problems:
        paths = _from_hub(name, download) if name.startswith(HUB) else _matching(name)
        if not paths:
            raise DajError(
                f"problems: no file {name!r}. Give files in the official schema (.jsonl, .jsonl.gz, .parquet), a "
                f"pattern such as data/test*.jsonl, or hub:livecodebench/code_generation_lite."
            )
        found += paths
    return found


def _matching(name: str) -> list[Path]:
    if Path(name).is_file():
        return [Path(name)]
    return [Path(path) for path in sorted(glob.glob(name)) if Path(path).is_file()]


def _from_hub(name: str, download: bool) -> list[Path]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    repository = name.removeprefix(HUB)
    try:
        folder = snapshot_download(
            repository, repo_type="dataset", allow_patterns=HUB_FILES, local_files_only=not download
        )
    except (OSError, HFValidationError) as error:
        raise DajError(
            f"problems: the data set {repository!r} cannot be had from the hub ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}). Check name and network, or download its {HUB_FILES} elsewhere "
            f"and give the files."
        ) from error
    return sorted(Path(folder).glob(HUB_FILES))


def official_rows(path: Path) -> Iterator[OfficialRow]:
    """The rows of one file, in order.

    Raises:
        DajError: the file, or a row, cannot be read; names the row.
    """
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
        return
    scanner = _LineScanner(str(path), _unpacked(path) if is_gzip(path) else _OnDisk.opened(path))
    yield from scanner.rows()


class _OnDisk:
    """A file that is read by place, from any thread; closed with its last reader."""

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self._descriptor = descriptor
        self._stamp = self._now()
        weakref.finalize(self, os.close, descriptor)

    @classmethod
    def opened(cls, path: Path) -> _OnDisk:
        return cls(str(path), os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def _now(self) -> tuple[int, int]:
        state = os.fstat(self._descriptor)
        return state.st_size, state.st_mtime_ns

    def read(self, place: int, number: int) -> bytes:
        return os.pread(self._descriptor, number, place)

    def string(self, start: int, end: int) -> Iterator[str]:
        """The JSON string whose quotes stand at start and end - 1, unescaped, in pieces."""
        if self._now() != self._stamp:
            raise DajError(f"{self.name} changed while it was in use. Start again.")
        decoder = codecs.getincrementaldecoder("utf-8")()
        places = range(start, end, _PIECE)
        text = (decoder.decode(self.read(place, min(_PIECE, end - place))) for place in places)
        return JsonScanner(text).pieces_of_string()


def _unpacked(path: Path) -> _OnDisk:
    with tempfile.TemporaryFile() as spool:
        try:
            with gzip.open(path) as file:
                shutil.copyfileobj(file, spool, _PIECE)
        except (EOFError, OSError, zlib.error) as error:
            raise DajError(f"{path} cannot be unpacked: {error}. Download it again.") from error
        spool.flush()
        return _OnDisk(str(path), os.dup(spool.fileno()))


class _LineScanner:
    """JSON Lines, read through a window of a megabyte."""

    def __init__(self, name: str, file: _OnDisk) -> None:
        self.name = name
        self.file = file
        self._window, self._start = b"", 0

    def rows(self) -> Iterator[OfficialRow]:
        number, place = 0, 0
        while self._at(place)[0]:
            number += 1
            outside = bytearray()
            where = f"{self.name}, line {number}"
            try:
                place, span = self._line(place, outside)
                if not outside.strip():
                    continue
                fields = flat_object(outside.decode())
                if span and fields.pop(_KEY, None) != "":
                    raise ValueError(f"{_KEY} stands within another field")
            except ValueError as error:
                name = _ID.search(outside)
                row = f"row {name[1].decode(errors='replace')!r}" if name else "the row"
                raise DajError(f"{where}: {row} cannot be read: {error}.") from None
            yield OfficialRow(where, fields, partial(self.file.string, *span) if span else None)

    def _line(self, place: int, outside: bytearray) -> tuple[int, tuple[int, int] | None]:
        """Reads a line: where the next begins and where its private tests stand; the rest goes to `outside`."""
        begin, span = place, None
        while True:
            window, at = self._at(place)
            newline = window.find(b"\n", at)
            end = newline if newline >= 0 else len(window)
            seen = max(0, len(outside) - _BEGINNING_BYTES)
            outside += window[at:end]
            place += end - at
            found = None if span else _BEGINNING.search(outside, seen)
            if found:
                del outside[found.end() :]
                span = (begin + found.end() - 1, self._end_of_string(begin + found.end()))
                place = span[1] - 1  # the closing quote is read again, as that of an empty string
            elif len(outside) > MAX_ROW_BYTES:
                raise ValueError(f"it holds more than {MAX_ROW_BYTES} bytes besides its private tests")
            elif newline >= 0 or end == at:
                return place + 1, span

    def _end_of_string(self, place: int) -> int:
        """The place behind the closing quote of the string whose text begins at `place`."""
        while True:
            window, at = self._at(place, at_least=2)
            part = window[at : at + _STEP].replace(b"\\\\", b"__").replace(b'\\"', b"__")  # as JsonScanner
            quote, newline = part.find(b'"'), part.find(b"\n")
            if quote >= 0 and not 0 <= newline < quote:
                return place + quote + 1
            part = part.removesuffix(b"\\")
            if newline >= 0 or not part:
                raise ValueError("the line ends within its private tests")
            place += len(part)

    def _at(self, place: int, at_least: int = 1) -> tuple[bytes, int]:
        """The window, moved if it does not reach so far, and the place's index in it."""
        if place + at_least > self._start + len(self._window) or place < self._start:
            self._window, self._start = self.file.read(place, _PIECE), place
        return self._window, place - self._start


def _parquet_rows(path: Path) -> Iterator[OfficialRow]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            groups = range(file.num_row_groups)
        for group in groups:
            for index, fields in enumerate(_parquet_group(path, group, None)):
                where = f"{path}, row {index + 1} of row group {group + 1}"
                tests = fields.pop(_KEY, None)
                text = partial(_parquet_cell, path, group, index) if isinstance(tests, str) else None
                del tests
                yield OfficialRow(where, fields, text)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DajError(f"{path} cannot be read as parquet: {error}. Download it again.") from error


def _parquet_group(path: Path, group: int, columns: list[str] | None) -> Iterator[dict[str, Any]]:
    from pyarrow import parquet

    with parquet.ParquetFile(path, pre_buffer=False, buffer_size=_PIECE) as file:
        for batch in file.iter_batches(batch_size=1, row_groups=[group], columns=columns, use_threads=False):
            yield batch.to_pylist()[0]


def _parquet_cell(path: Path, group: int, index: int) -> Iterator[str]:
    for number, row in enumerate(_parquet_group(path, group, [_KEY])):
        if number == index:
            text = row[_KEY]
            return (text[place : place + _PIECE] for place in range(0, len(text), _PIECE))
    raise DajError(f"{path} changed while it was in use. Start again.")
