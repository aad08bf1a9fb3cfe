"""LiveCodeBench's row schema: official rows, and the bundled bank's, become problems.

Private tests arrive as JSON, or as base64 of zlib of a pickle of JSON. A pickle of a download can run
code and a zlib stream can unfold to gigabytes, so the first is read without any class and the second
up to a cap.
"""

from __future__ import annotations

import base64
import binascii
import json
import pickle
import pickletools
import zlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from daj_lightning.records import Candidate, DajError, Problem, TestCase

PRIVATE_TESTS_CAP_BYTES = 256 * 2**20
_TEXT_OPERATIONS = {
    "PROTO",
    "FRAME",
    "UNICODE",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
    "MEMOIZE",
    "BINPUT",
    "STOP",
}
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
    except (KeyError, TypeError, AttributeError, RecursionError, json.JSONDecodeError) as error:
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
    metadata = json.loads(row["metadata"] or "{}")
    return Problem(
        problem_id=name,
        title=row["question_title"],
        statement=row["question_content"],
        platform=row["platform"],
        difficulty=row["difficulty"],
        release_date=datetime.fromisoformat(row["contest_date"]).date(),
        starter_code=row["starter_code"],
        function_name=metadata.get("func_name"),
        public_tests=public,
        hidden_tests=hidden,
        split="unseen" if metadata.get("bank", {}).get("unseen") else None,
    )


def _tests(name: str, text: str) -> tuple[TestCase, ...]:
    try:
        decoded = json.loads(text)
    except json.JSONDecodeError:
        try:
            decoded = json.loads(_text_of_pickle(name, _inflate(name, text)))
        except json.JSONDecodeError as error:
            raise DajError(f"{name}: private tests unpack to text that is not JSON ({error.msg}).") from error
    tests = tuple(TestCase(test["input"], test["output"]) for test in decoded)
    if not all(isinstance(part, str) for test in tests for part in (test.input, test.output)):
        raise DajError(f"{name}: a test's input or output is not text.")
    return tests


def _inflate(name: str, text: str) -> bytes:
    """base64 -> zlib, up to the cap."""
    try:
        stream = zlib.decompressobj()
        raw = stream.decompress(base64.b64decode(text.encode()), PRIVATE_TESTS_CAP_BYTES)
    except (binascii.Error, zlib.error) as error:
        raise DajError(f"{name}: private tests are neither JSON nor the official packing: {error}.") from error
    if stream.unconsumed_tail:
        raise DajError(f"{name}: private tests unfold to more than {PRIVATE_TESTS_CAP_BYTES} bytes; refused.")
    return raw


def _text_of_pickle(name: str, raw: bytes) -> str:
    """The one string in a pickle, whose operations are read before any is carried out.

    A class could run code, and a put at memo index 2**31 asks for all memory: text needs neither.
    """
    try:
        foreign = {operation.name for operation, _, _ in pickletools.genops(raw)} - _TEXT_OPERATIONS
        unpacked = None if foreign else pickle.loads(raw)
    except (ValueError, pickle.UnpicklingError, EOFError, IndexError) as error:
        raise DajError(f"{name}: private tests are neither JSON nor the official packing: {error}.") from error
    if not isinstance(unpacked, str):
        found = f"the operations {sorted(foreign)}" if foreign else f"a {type(unpacked).__name__}"
        raise DajError(f"{name}: private tests hold {found}, wanted a pickle of JSON text and nothing else.")
    return unpacked


def candidate_from_row(row: Mapping[str, Any], where: str) -> Candidate:
    """A row {problem_id, policy, code, candidate_id?} as a Candidate."""
    missing = [field for field in ("problem_id", "policy", "code") if field not in row]
    if missing:
        raise DajError(f"{where}: a candidate lacks {missing}; wanted problem_id, policy and code.")
    candidate_id = str(row.get("candidate_id", f"{row['problem_id']}/{row['policy']}/{where}"))
    if not isinstance(row["code"], str) or not row["code"].strip():
        raise DajError(f"{where}: candidate {candidate_id!r} has no code. Remove the row, or store the program.")
    return Candidate(candidate_id, row["problem_id"], row["policy"], row["code"])
