"""LiveCodeBench's row schema: official rows, and the bundled bank's, become problems.

Private tests arrive as JSON, or as base64 of zlib of a pickle of JSON. A pickle of a download can run
code and a zlib stream can unfold to gigabytes, so the first is read without any class and the second
up to a cap.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import pickle
import zlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from daj_lightning.records import Candidate, DajError, Problem, TestCase

PRIVATE_TESTS_CAP_BYTES = 256 * 2**20
_FIELDS = [
    "question_title",
    "question_content",
    "platform",
    "question_id",
    "contest_date",
    "starter_code",
    "difficulty",
    "public_test_cases",
    "private_test_cases",
    "metadata",
]


def problem_from_row(row: Mapping[str, Any]) -> Problem:
    """A row of LiveCodeBench's code_generation data set as a Problem.

    Raises:
        DajError: a field is missing, tests cannot be read, or there are none.
    """
    missing = [field for field in _FIELDS if field not in row]
    if missing:
        raise DajError(f"row {row.get('question_id', '?')!r} lacks {missing}; wanted LiveCodeBench's fields {_FIELDS}.")
    try:
        return _problem(row)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise DajError(f"row {row['question_id']!r} cannot be read: {type(error).__name__}: {error}.") from error
    except ValueError as error:
        if isinstance(error, DajError):
            raise
        raise DajError(f"row {row['question_id']!r}: {error}.") from error


def _problem(row: Mapping[str, Any]) -> Problem:
    name = row["question_id"]
    public, hidden = (_tests(name, row[key]) for key in ("public_test_cases", "private_test_cases"))
    if not public and not hidden:
        raise DajError(f"{name}: no test at all; every program would pass. Remove the row or restore its tests.")
    return Problem(
        problem_id=name,
        title=row["question_title"],
        statement=row["question_content"],
        platform=row["platform"],
        difficulty=row["difficulty"],
        release_date=datetime.fromisoformat(row["contest_date"]).date(),
        starter_code=row["starter_code"],
        function_name=json.loads(row["metadata"] or "{}").get("func_name"),
        public_tests=public,
        hidden_tests=hidden,
    )


def _tests(name: str, text: str) -> tuple[TestCase, ...]:
    try:
        decoded = json.loads(text)
    except json.JSONDecodeError:
        try:
            decoded = json.loads(_unpack(name, text))
        except json.JSONDecodeError as error:
            raise DajError(f"{name}: private tests unpack to text that is not JSON ({error.msg}).") from error
    return tuple(TestCase(test["input"], test["output"]) for test in decoded)


def _unpack(name: str, text: str) -> str:
    """base64 -> zlib -> pickle of a str, with the two gates."""
    try:
        inflate = zlib.decompressobj()
        raw = inflate.decompress(base64.b64decode(text.encode()), PRIVATE_TESTS_CAP_BYTES)
        if inflate.unconsumed_tail:
            raise DajError(f"{name}: private tests unfold to more than {PRIVATE_TESTS_CAP_BYTES} bytes; refused.")
        unpacked = _NoClasses(io.BytesIO(raw)).load()
    except (binascii.Error, zlib.error, pickle.UnpicklingError, EOFError) as error:
        raise DajError(f"{name}: private tests are neither JSON nor the official packing: {error}.") from error
    if not isinstance(unpacked, str):
        raise DajError(f"{name}: private tests unpack to {type(unpacked).__name__}, wanted JSON text.")
    return unpacked


class _NoClasses(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"the pickle names {module}.{name}; plain text needs no class")


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


def candidate_from_row(row: Mapping[str, Any], where: str) -> Candidate:
    """A row {problem_id, policy, code, candidate_id?} as a Candidate."""
    missing = [field for field in ("problem_id", "policy", "code") if field not in row]
    if missing:
        raise DajError(f"{where}: a candidate lacks {missing}; wanted problem_id, policy and code.")
    candidate_id = str(row.get("candidate_id", f"{row['problem_id']}/{row['policy']}/{where}"))
    if not isinstance(row["code"], str) or not row["code"].strip():
        raise DajError(f"{where}: candidate {candidate_id!r} has no code. Remove the row, or store the program.")
    return Candidate(candidate_id, row["problem_id"], row["policy"], row["code"])
