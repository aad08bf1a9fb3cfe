"""LiveCodeBench's row schema: official rows, and the bundled bank's, become problems.

Every row is checked as a whole when it is read: what a grader would stumble over in the middle of a run (tests
that cannot be unpacked, none at all, two kinds of them) is refused here, with the row named. How tests are
unpacked is told in packing.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime
from typing import Any

from daj_lightning.data.candidates import candidate_of, has_code
from daj_lightning.data.hidden_tests import HiddenTests, TestCache
from daj_lightning.data.official_files import OfficialRow
from daj_lightning.data.packing import DEFAULT_CAP_MIB, MIB, read_tests
from daj_lightning.records import Candidate, DajError, Problem, TestCase

PLATFORMS = ("atcoder", "codeforces", "leetcode")
DIFFICULTIES = ("easy", "medium", "hard")
MAX_METADATA_CHARS = 2**16
_TEXTS = (
    "question_title",
    "question_content",
    "platform",
    "question_id",
    "difficulty",
    "public_test_cases",
)
_FIELDS = [*_TEXTS, "contest_date", "starter_code", "private_test_cases", "metadata"]


def problem_from_row(row: Mapping[str, Any]) -> Problem:
    """A row of LiveCodeBench's code_generation data set as a Problem, its tests in memory.

    Raises:
        DajError: a field is missing or wrong, tests cannot be read, or there are none.
    """

    def hidden(kinds: set[str]) -> tuple[TestCase, ...]:
        text = row["private_test_cases"]
        if not isinstance(text, str):
            raise ValueError(f"private_test_cases is a {type(text).__name__}, wanted text")
        return _kept([text], DEFAULT_CAP_MIB * MIB, kinds)

    return _checked(row, "", hidden)


def problem_on_disk(row: OfficialRow, cap_bytes: int, cache: TestCache) -> Problem:
    """The same for a row of a file: its hidden tests are read once, for what is wrong with them, and left there."""
    pieces = row.private_tests
    fields = row.fields if pieces is None else {**row.fields, "private_test_cases": ""}

    def hidden(kinds: set[str]) -> HiddenTests:
        if pieces is None:
            raise ValueError("private_test_cases is no text")
        num_tests, num_chars = 0, 0
        for test in _read("private", pieces(), cap_bytes, keep=False):
            kinds.add(test.testtype)
            num_tests += 1
            num_chars += test.num_chars
        return HiddenTests(str(fields["question_id"]), pieces, cap_bytes, num_tests, num_chars, cache)

    return _checked(fields, f"{row.where}: ", hidden)


def _checked(row: Mapping[str, Any], where: str, hidden: Callable[[set[str]], Any]) -> Problem:
    name = row.get("question_id", "?")
    missing = [field for field in _FIELDS if field not in row]
    if missing:
        raise DajError(f"{where}row {name!r} lacks {missing}; wanted LiveCodeBench's fields {_FIELDS}.")
    try:
        return _problem(row, hidden)
    except ValueError as error:
        raise DajError(f"{where}row {name!r}: {str(error).rstrip('.')}.") from error


def _problem(row: Mapping[str, Any], hidden_tests: Callable[[set[str]], Any]) -> Problem:
    for field in _TEXTS:
        if not isinstance(row[field], str):
            raise ValueError(f"{field} is {_shown(row[field])}, wanted text")
    if not row["question_id"].strip():
        raise ValueError("question_id is empty")
    for field, known in (("platform", PLATFORMS), ("difficulty", DIFFICULTIES)):
        if row[field] not in known:
            raise ValueError(f"{field} is {_shown(row[field])}, wanted one of {', '.join(known)}")
    if not isinstance(row["starter_code"], str | None):
        raise ValueError(f"starter_code is {_shown(row['starter_code'])}, wanted text")
    released = _release_date(row["contest_date"])
    metadata = _metadata(row["metadata"])
    kinds: set[str] = set()
    public = _kept([row["public_test_cases"]], DEFAULT_CAP_MIB * MIB, kinds, "public")
    hidden = hidden_tests(kinds)
    _check_tests(len(public) + len(hidden), kinds, metadata.get("func_name"))
    bank = metadata.get("bank")
    return Problem(
        problem_id=row["question_id"],
        title=row["question_title"],
        statement=row["question_content"],
        platform=row["platform"],
        difficulty=row["difficulty"],
        release_date=released,
        starter_code=row["starter_code"] or "",
        function_name=metadata.get("func_name"),
        public_tests=public,
        hidden_tests=hidden,
        split="unseen" if isinstance(bank, dict) and bank.get("unseen") else None,
    )


def _release_date(value: object) -> date:
    if isinstance(value, datetime):  # parquet has dates of its own
        return value.date()
    if isinstance(value, date):
        return value
    try:
        return datetime.fromisoformat(value).date()  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(
            f"contest_date is {_shown(value)}, wanted an ISO date such as 2025-02-01 or 2025-02-01T07:30:00"
        ) from None


def _metadata(value: object) -> dict[str, Any]:
    try:
        if isinstance(value, str) and len(value) > MAX_METADATA_CHARS:  # as lists, they would take 20 times the memory
            raise ValueError
        metadata = json.loads(value or "{}")  # type: ignore[arg-type]
    except (TypeError, ValueError, RecursionError):
        raise ValueError(
            f"metadata is {_shown(value)}, wanted the JSON text of an object, at most {MAX_METADATA_CHARS} characters"
        ) from None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("func_name"), str | None):
        raise ValueError(f"metadata is {_shown(value)}, wanted an object whose func_name is text")
    return metadata


def _check_tests(number: int, kinds: set[str], function_name: str | None) -> None:
    if not number:
        raise ValueError("no test at all; every program would pass. Remove the row or restore its tests")
    if len(kinds) > 1:
        raise ValueError(f"its tests are of the types {', '.join(sorted(kinds))}; a problem has one")
    if "functional" in kinds and not function_name:
        raise ValueError("functional tests, and no func_name in metadata to call")


def _kept(pieces: Iterable[str], cap_bytes: int, kinds: set[str], which: str = "private") -> tuple[TestCase, ...]:
    raw = list(_read(which, pieces, cap_bytes))
    kinds.update(test.testtype for test in raw)
    return tuple(TestCase(test.input, test.output) for test in raw)


def _read(which: str, pieces: Iterable[str], cap_bytes: int, *, keep: bool = True) -> Iterator[Any]:
    try:
        yield from read_tests(pieces, cap_bytes, keep=keep)
    except ValueError as error:
        raise ValueError(f"{which} tests: {error}") from error


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}... ({type(value).__name__})"


def candidate_from_row(row: Mapping[str, Any], where: str) -> Candidate:
    """A row {problem_id, policy, code, candidate_id?} as a Candidate; without code only if there is a response."""
    candidate = candidate_of(row, where, where.rpartition(", ")[2])
    if not has_code(candidate) and "response" not in row:
        raise DajError(
            f"{where}: candidate {candidate.candidate_id!r} has no code. Remove the row, or store the program; "
            f"if the policy's response has none, store the response beside the empty code."
        )
    return candidate
