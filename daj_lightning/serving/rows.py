"""A problem with its programs as a row of JSON, from a service's own log or from a request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import date
from typing import Any

from daj_lightning.records import Candidate, DajError, Problem, TestCase

Group = tuple[Problem, list[Candidate]]
_TEXTS = ("statement", "title", "platform", "difficulty", "starter_code", "function_name")


def group_from_row(row: Mapping[str, Any], where: str) -> Group:
    """A problem with its programs.

    Args:
        row: {problem_id, statement, candidates}; each candidate its code, or {candidate_id, code}. Without an id it is
            known by its place.
        where: the row, in words, for errors.
    Raises:
        DajError: says what is missing or of the wrong type.
    """
    missing = [field for field in ("problem_id", "statement", "candidates") if row.get(field) in (None, "", [])]
    if missing:
        raise DajError(f"{where} lacks {missing}; wanted problem_id, statement and a list of candidates (code).")
    if not isinstance(row["candidates"], list) or not isinstance(row["statement"], str):
        raise DajError(f"{where}: wanted statement as text and candidates as a list of programs.")
    for field in _TEXTS:
        _check_text(row.get(field) or "", f"{where}: {field}")
    problem_id = str(row["problem_id"])
    _check_text(problem_id, f"{where}: problem_id")
    problem = Problem(
        problem_id=problem_id,
        title=row.get("title") or "",
        statement=row["statement"],
        platform=row.get("platform") or "",
        difficulty=row.get("difficulty") or "",
        release_date=date.today(),
        starter_code=row.get("starter_code") or "",
        function_name=row.get("function_name") or None,
        public_tests=_tests(row.get("public_tests") or [], where),
        hidden_tests=(),
    )
    return problem, _candidates(row["candidates"], problem_id, where)


def _tests(tests: Any, where: str) -> tuple[TestCase, ...]:
    if not isinstance(tests, list):
        raise DajError(f"{where}: public_tests is a {type(tests).__name__}; wanted a list of input and output.")
    for test in tests:
        if not isinstance(test, dict) or not {"input", "output"} <= test.keys():
            raise DajError(f"{where}: each of public_tests needs input and output.")
        for name in ("input", "output"):
            _check_text(test[name], f"{where}: {name} of a public test")
    return tuple(TestCase(test["input"], test["output"]) for test in tests)


def _candidates(entries: list[Any], problem_id: str, where: str) -> list[Candidate]:
    candidates = []
    for place, entry in enumerate(entries):
        name, code = (entry.get("candidate_id"), entry.get("code")) if isinstance(entry, dict) else (None, entry)
        if not isinstance(code, str) or not code.strip():
            raise DajError(f"{where}: candidate {place} has no code. Remove it, or store the program's text.")
        _check_text(code, f"{where}: the code of candidate {place}")
        if name is not None and (not isinstance(name, str) or not name):
            raise DajError(f"{where}: candidate_id of candidate {place} is {name!r}; wanted text, or leave it out.")
        _check_text(name or "", f"{where}: candidate_id of candidate {place}")
        candidates.append(Candidate(str(place) if name is None else name, problem_id, "", code))
    (name, times), *_ = Counter(candidate.candidate_id for candidate in candidates).most_common()
    if times > 1:
        raise DajError(f"{where}: {times} candidates are called {name!r}; each needs an id of its own.")
    return candidates


def _check_text(value: Any, what: str) -> None:
    if not isinstance(value, str):
        raise DajError(f"{what} is a {type(value).__name__}; wanted text.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DajError(
            f"{what} holds half a character ({value[error.start]!a}), which has no UTF-8. Remove or replace it."
        ) from error
