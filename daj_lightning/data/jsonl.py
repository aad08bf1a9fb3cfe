"""JSON Lines: read with the line named where it is wrong, written whole or not at all."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from daj_lightning.records import DajError


def read_jsonl(path: str | Path, what: str) -> list[dict[str, Any]]:
    """All rows of a JSON Lines file; errors as `iterate_jsonl`."""
    return [row for _, row in iterate_jsonl(path, what)]


def iterate_jsonl(path: str | Path, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a JSON Lines file, packed by gzip or not, one at a time, each with the number of its line.

    Raises:
        DajError: the file is missing or cannot be unpacked, or a line is not a JSON object; names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise DajError(f"{what}: no file {str(path)!r}. Give the path of a JSON Lines file.")
    number = 0
    try:
        with gzip.open(path) if is_gzip(path) else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise DajError(f"{what}: {path}, line {number} holds a {type(row).__name__}, wanted an object.")
                yield number, row
    except DajError:
        raise
    except (ValueError, RecursionError) as error:  # of a number of thousands of digits a ValueError and no more
        why = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise DajError(f"{what}: {path}, line {number} is not JSON ({why}).") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DajError(f"{what}: {path} cannot be unpacked: {error}. Make or download it again.") from error


def is_gzip(path: Path) -> bool:
    """By its first bytes, whatever its name."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def sha256_of(path: str | Path) -> str | None:
    """Of a file's bytes, in hexadecimal; None without such a file."""
    if not Path(path).is_file():
        return None
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_jsonl(path: Path, records: Iterable[Any]) -> int:
    """All records or no file, one at a time; returns how many."""
    number = 0
    with written_whole(path) as beside, beside.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(dataclasses.asdict(record), default=str) + "\n")
            number += 1
    return number


def write_whole(path: Path, text: str) -> None:
    """All of the file or none of it."""
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` once it is written, and goes if it cannot be.

    Raises:
        OSError: of whoever writes, with the name of the file.
    """
    beside = path.with_name(path.name + ".part")
    try:
        yield beside
        shutil.move(beside, path)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # a failed write does not say of which file
            error.strerror, error.filename = os.strerror(error.errno), str(path)
        raise
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
