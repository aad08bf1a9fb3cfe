"""JSON Lines: read with the line named where it is wrong, written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from daj_lightning.records import DajError


def read_jsonl(path: str | Path, what: str) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file.

    Raises:
        DajError: the file is missing or a line is not a JSON object; names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise DajError(f"{what}: no file {str(path)!r}. Give the path of a JSON Lines file.")
    rows = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DajError(f"{what}: {path}, line {number} is not JSON ({error.msg}).") from error
            if not isinstance(row, dict):
                raise DajError(f"{what}: {path}, line {number} holds a {type(row).__name__}, wanted an object.")
            rows.append(row)
    return rows


def write_jsonl(path: Path, records: Iterable[Any]) -> None:
    lines = (json.dumps(dataclasses.asdict(record), default=str) for record in records)
    write_whole(path, "".join(line + "\n" for line in lines))


def write_whole(path: Path, text: str) -> None:
    """All of the file or none of it: written beside it, then renamed."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(text, encoding="utf-8")
    shutil.move(beside, path)
