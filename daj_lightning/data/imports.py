"""Verdicts that somebody else's grader gave, as candidates and labels of ours.

lcb_eval_all   LiveCodeBench's *_eval_all.json: a list of problems, each with its outputs, programs and grades
bigcodebench   BigCodeBench's *_eval_results.json: task -> the programs that ran, each with its status
evalplus       EvalPlus' eval_results.json: the same with a status for the base and one for the added tests

Such a verdict is what its file says. Its grader is named "...-import", its sandbox "unknown".
"""

from __future__ import annotations

import ast
import dataclasses
import gzip
import json
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from daj_lightning.data.candidates import NO_CODE, ROW_BEGINS, ROW_KEYS, fingerprint, has_code
from daj_lightning.data.journal import Journal
from daj_lightning.data.jsonl import iterate_jsonl
from daj_lightning.data.labels import FIRST_BEGINS, FIRST_KEYS, IMPORTED, Label, Making
from daj_lightning.records import Candidate, DajError, Outcome, Verdict

Format = Literal["lcb_eval_all", "bigcodebench", "evalplus"]
UNKNOWN = "unknown"
DETAIL_CHARS = 200
LCB_OUTCOMES = {-3: Outcome.TIMED_OUT, -2: Outcome.WRONG_ANSWER}
"""By the grader's error code; the others are programs that broke off."""
STATUSES = {"pass": Outcome.PASSED, "fail": Outcome.WRONG_ANSWER, "timeout": Outcome.TIMED_OUT}
CALIBRATION = "\n    pass\n"
"""Ends what BigCodeBench puts before a program: the task's signature, as a function of its own."""
ENTRY_POINT = "task_func"
"""Of every task of BigCodeBench."""


class Graded(NamedTuple):
    """One program with its grade."""

    where: str
    """File and row, for errors."""
    problem_id: str
    code: str
    response: str | None
    """What the code was taken from, where the file has it."""
    outcome: Outcome
    detail: str


def import_graded(
    graded: str | Path, format: Format, policy: str, output_dir: str | Path, samples: str | Path | None = None
) -> tuple[int, int]:
    """Write candidates.jsonl and verdicts.jsonl; returns the numbers of candidates and of those that pass.

    Args:
        graded: the file, .json or .json.gz.
        policy: name of the model that wrote the programs; these files do not say.
        output_dir: gets the two files, which must not be there yet.
        samples: BigCodeBench, EvalPlus: the JSON Lines that were graded; their programs are taken, in place of those
            in `graded`, which BigCodeBench has put the task's signature before.
    Raises:
        DajError: the files are there, or `graded` is not what `format` says; names the row.
    """
    read, grader = READERS[format]
    paths = [Path(output_dir) / name for name in ("candidates.jsonl", "verdicts.jsonl")]
    there = [str(path) for path in paths if path.exists()]
    if there:
        raise DajError(f"there is {' and '.join(there)}. Import into another directory, and join the files with `cat`.")
    if samples is not None and format == "lcb_eval_all":
        raise DajError(f"samples={str(samples)!r}: lcb_eval_all holds its programs itself. Leave it out.")
    rows = list(read(load_json(graded), str(graded)))
    if not rows:
        raise DajError(f"{graded} holds no graded program.")
    rows = with_samples(rows, samples) if samples is not None else without_calibration(rows, format)
    numbered: dict[str, int] = {}
    num_passed = 0
    parts = [path.with_name(path.name + ".part") for path in paths]
    for part in parts:
        part.unlink(missing_ok=True)
    with (
        Journal(parts[0], "candidates", ROW_KEYS, ROW_BEGINS) as candidates,
        Journal(parts[1], "verdicts", FIRST_KEYS, FIRST_BEGINS) as verdicts,
    ):
        verdicts.append(Making(UNKNOWN, IMPORTED, UNKNOWN, UNKNOWN, UNKNOWN).row())
        for row in rows:
            number = numbered[row.problem_id] = numbered.get(row.problem_id, -1) + 1
            candidate = Candidate(f"{row.problem_id}/{policy}/{number}", row.problem_id, policy, row.code)
            response = {} if row.response is None else {"response": row.response}
            if not has_code(candidate):
                response.setdefault("response", "")  # says that the code is not missing by mistake
            candidates.append({**dataclasses.asdict(candidate), **response})
            verdict = verdict_of(candidate, row, grader)
            verdicts.append(Label(verdict, row.problem_id, fingerprint(candidate)).row())
            num_passed += verdict.passed
    for part, path in zip(parts, paths, strict=True):
        part.rename(path)
    return len(rows), num_passed


def verdict_of(candidate: Candidate, row: Graded, grader: str) -> Verdict:
    passed = row.outcome is Outcome.PASSED
    if passed and not has_code(candidate):
        raise DajError(f"{row.where} has no code, and is graded as passing.")
    empty = not has_code(candidate)
    return Verdict(
        candidate_id=candidate.candidate_id,
        outcome=Outcome.CRASHED if empty else row.outcome,
        num_passed=0,
        num_tests=0,
        detail=""
        if passed
        else NO_CODE
        if empty
        else " ".join(row.detail.split())[:DETAIL_CHARS] or "graded as failing",
        cpu_s=0.0,
        grader=grader,
        sandbox=UNKNOWN,
        python=UNKNOWN,
        limits=UNKNOWN,
        forgeable=True,  # all three graders run the tests in the program's own process
    )


def load_json(path: str | Path) -> Any:
    """A JSON file, packed by gzip if its name says so."""
    path = Path(path)
    if not path.is_file():
        raise DajError(f"graded: no file {str(path)!r}.")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return json.load(file)
    except (OSError, EOFError, zlib.error) as error:
        raise DajError(f"graded: {path} cannot be unpacked: {error}.") from error
    except (ValueError, RecursionError) as error:
        raise DajError(f"graded: {path} is not JSON ({error}).") from error


def lcb_rows(data: Any, path: str) -> Iterator[Graded]:
    """LiveCodeBench: [{question_id, output_list, code_list, graded_list, metadata}, ...]."""
    for number, row in enumerate(expect(data, list, path)):
        where = f"{path}, row {number}"
        name = field(row, "question_id", str, where)
        where = f"{where} ({name})"
        codes, grades = (field(row, key, list, where) for key in ("code_list", "graded_list"))
        outputs = row.get("output_list", [None] * len(codes))
        notes = row.get("metadata", ["{}"] * len(codes))
        if not len(codes) == len(grades) == len(outputs) == len(notes):
            raise DajError(
                f"{where} has {len(codes)} programs, {len(grades)} grades, {len(outputs)} outputs and {len(notes)} "
                f"notes; wanted as many of each."
            )
        for code, grade, output, note in zip(codes, grades, outputs, notes, strict=True):
            expect(code, str, f"{where}, code_list")
            expect(grade, bool, f"{where}, graded_list")
            outcome, detail = (Outcome.PASSED, "") if grade else lcb_failure(note)
            yield Graded(where, name, code, output, outcome, detail)


def lcb_failure(note: Any) -> tuple[Outcome, str]:
    """What the grader noted on a failing program; older files have no error code."""
    try:
        note = json.loads(note) if isinstance(note, str) else note
    except ValueError:
        note = {}
    note = note if isinstance(note, dict) else {}
    code = note.get("error_code", -2)
    reason = f"{note.get('error_message', '')} {note.get('error', '')}"
    return LCB_OUTCOMES.get(code, Outcome.CRASHED), reason


def bigcodebench_rows(data: Any, path: str) -> Iterator[Graded]:
    """BigCodeBench: {"eval": {task_id: [{solution, status, details}, ...]}}."""
    for where, task, row in evaluated(data, path):
        status = field(row, "status", str, where)
        details = row.get("details") or {}
        first = next(iter(details.items()), ("", "")) if isinstance(details, dict) else ("", "")
        last_line = str(first[1]).strip().rpartition("\n")[2]
        yield Graded(
            where, task, field(row, "solution", str, where), None, outcome_of(status, where), f"{first[0]} {last_line}"
        )


def evalplus_rows(data: Any, path: str) -> Iterator[Graded]:
    """EvalPlus: {"eval": {task_id: [{solution, base_status, plus_status}, ...]}}; both must pass where both are."""
    for where, task, row in evaluated(data, path):
        base = outcome_of(field(row, "base_status", str, where), where)
        plus = row.get("plus_status")
        added = Outcome.PASSED if plus is None else outcome_of(plus, where)
        outcome = added if base is Outcome.PASSED else base
        detail = "the base tests" if base is not Outcome.PASSED else "the added tests"
        yield Graded(where, task, field(row, "solution", str, where), None, outcome, detail)


def evaluated(data: Any, path: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Place, task and row of each program under "eval"."""
    tasks = field(data, "eval", dict, path)
    for task, rows in tasks.items():
        for number, row in enumerate(expect(rows, list, f"{path}, {task}")):
            yield f"{path}, {task}, row {number}", task, row


def outcome_of(status: object, where: str) -> Outcome:
    if status not in STATUSES:
        raise DajError(f"{where} has the status {status!r}; wanted one of {', '.join(STATUSES)}.")
    return STATUSES[str(status)]


def without_calibration(rows: list[Graded], format: Format) -> list[Graded]:
    """Programs of BigCodeBench less the signature before them, if the file was graded that way: then all have one."""
    if format != "bigcodebench":
        return rows
    cuts = [calibration_end(row.code) for row in rows]
    if not all(cuts):
        return rows
    return [row._replace(code=row.code[cut:]) for row, cut in zip(rows, cuts, strict=True)]


def calibration_end(code: str) -> int:
    """Where the program begins behind the task's signature: imports, and at last a `def` that does nothing; 0: none."""
    start = code.find(CALIBRATION)
    while start >= 0:
        end = start + len(CALIBRATION)
        if code[end:].strip() and is_signature(code[:end]):
            return end
        start = code.find(CALIBRATION, start + 1)
    return 0


def is_signature(code: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in other people's strings
            last = ast.parse(code).body[-1]
    except (SyntaxError, ValueError, RecursionError, MemoryError, IndexError):
        return False
    return (
        isinstance(last, ast.FunctionDef)
        and last.name == ENTRY_POINT
        and len(last.body) == 1
        and isinstance(last.body[0], ast.Pass)
    )


def with_samples(rows: list[Graded], path: str | Path) -> list[Graded]:
    """The programs of the samples, which were graded in their order, task by task."""
    programs: dict[str, list[str]] = {}
    for number, sample in iterate_jsonl(path, "samples"):
        where = f"{path}, line {number}"
        programs.setdefault(field(sample, "task_id", str, where), []).append(field(sample, "solution", str, where))
    taken: dict[str, int] = {}
    found = []
    for row in rows:
        number = taken[row.problem_id] = taken.get(row.problem_id, -1) + 1
        own = programs.get(row.problem_id, [])
        if number >= len(own) or not row.code.endswith(own[number]):
            raise DajError(f"{row.where} is not sample {number} of {row.problem_id} in {path}: are these its samples?")
        found.append(row._replace(code=own[number]))
    return found


def field(row: Any, key: str, kind: type, where: str) -> Any:
    """A field of a row, of that type."""
    if not isinstance(row, dict):
        raise DajError(f"{where} holds a {type(row).__name__}, wanted an object.")
    if key not in row:
        raise DajError(f"{where} lacks {key!r}; it has {sorted(row)[:8]}. Is --format right?")
    return expect(row[key], kind, f"{where}, {key}")


def expect(value: Any, kind: type, where: str) -> Any:
    if not isinstance(value, kind):
        raise DajError(f"{where} holds a {type(value).__name__}, wanted a {kind.__name__}. Is --format right?")
    return value


READERS: dict[str, tuple[Callable[[Any, str], Iterator[Graded]], str]] = {
    "lcb_eval_all": (lcb_rows, "lcb-import"),
    "bigcodebench": (bigcodebench_rows, "bigcodebench-import"),
    "evalplus": (evalplus_rows, "evalplus-import"),
}
"""Format -> who reads it, and the grader's name in the verdicts."""
