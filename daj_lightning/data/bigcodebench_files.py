"""The files that BigCodeBench needs beside its rows, and the rows themselves, read and checked.

    tasks        the benchmark's rows           .jsonl, .jsonl.gz, .parquet, or hub:bigcode/bigcodebench
    hard_ids     which are BigCodeBench-Hard    text, an id a line; a JSON list; or rows with a task_id, as tasks
    domains      of the tasks or the libraries  JSON: analysis/task2domain.json or lib2domain.json @ 47eff25
    pass_rates   of the policies                JSON {task: {policy: rate}}; JSON Lines {task_id, policy, pass_rate};
                                                or the official grader's *_eval_results.json, one a policy

Rows come one at a time, none longer than MAX_ROW_BYTES, so that a packed file cannot unfold into memory.
"""

from __future__ import annotations

import glob
import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from daj_lightning.data.bigcodebench import BCB_DOMAINS, libraries, listed
from daj_lightning.records import DajError

HUB = "hub:"
HUB_SPLIT = "v0.1.4"
"""Version of the data set that bigcodebench @ 47eff25 pins."""
MAX_ROW_BYTES = 4 * 2**20
"""Of a line; the longest row of BigCodeBench has less than a hundredth of it."""
WANTED = {
    "tasks": "the rows of hub:bigcode/bigcodebench as .jsonl, .jsonl.gz or .parquet, or that name itself",
    "hard_ids": "the 148 task ids of hub:bigcode/bigcodebench-hard, as text or JSON, or that name itself",
    "domains": "analysis/task2domain.json or analysis/lib2domain.json of bigcode-project/bigcodebench @ 47eff25",
    "pass_rates": "how often each policy passes each task that is not Hard, or the official grader's "
    "*_eval_results.json of each policy",
}
"""What to give where a file is not there."""
_ID = re.compile(rb'"task_id"[ \t]*:[ \t]*"([^"\\]{1,80})"')


def task_files(name: str) -> list[str]:
    """The files that a pattern names; anything else, such as a data set of the hub, as it is."""
    if name.startswith(HUB) or Path(name).is_file():
        return [name]
    return sorted(path for path in glob.glob(name) if Path(path).is_file()) or [name]


def read_tasks(name: str) -> dict[str, dict[str, Any]]:
    """task id -> row of the benchmark, in the file's order.

    Raises:
        DajError: no file, one that cannot be read, or a task that stands there twice.
    """
    tasks: dict[str, dict[str, Any]] = {}
    for where, row in _rows(name, "tasks"):
        task = task_id_of(row, where)
        if task in tasks:
            raise DajError(f"{where}: task {task!r} stands there twice. Remove one of its rows.")
        tasks[task] = row
    return tasks


def read_hard_ids(path: str) -> list[str]:
    """Ids of BigCodeBench-Hard: a text file with an id a line, a JSON list, or rows with a task_id.

    Raises:
        DajError: no file, no id, or one that stands twice.
    """
    if path.endswith(".json"):
        ids = _json(path, "hard_ids")
        if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
            raise DajError(f'hard_ids: {path} holds no list of task ids; wanted ["BigCodeBench/13", ...].')
    elif path.startswith(HUB) or path.endswith((".jsonl", ".jsonl.gz", ".parquet")):
        ids = [task_id_of(row, where) for where, row in _rows(path, "hard_ids")]
    else:
        text = _text(path, "hard_ids")
        ids = [line.strip() for line in text.splitlines() if line.strip()]
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    if not ids or repeated:
        found = f"{listed(repeated)} twice" if ids else "no id"
        raise DajError(f"hard_ids: {path} holds {found}; wanted each id once.")
    return ids


def read_pass_rates(source: str | Mapping[str, str]) -> dict[str, dict[str, float]]:
    """task id -> policy -> share of its programs that pass.

    Raises:
        DajError: no file, or one that is none of the three kinds; names the task.
    """
    rates: dict[str, dict[str, float]] = {}
    if not isinstance(source, str):
        for model, path in source.items():
            for name, rate in _rates_of_results(path).items():
                rates.setdefault(name, {})[model] = rate
        return rates
    if source.endswith((".jsonl", ".jsonl.gz", ".parquet")):
        for where, row in _rows(source, "pass_rates"):
            name, policy = task_id_of(row, where), row.get("policy")
            if not isinstance(policy, str) or policy in rates.get(name, {}):
                raise DajError(f"{where}: task {name!r} has policy {policy!r}; wanted a name, once for each task.")
            rates.setdefault(name, {})[policy] = _rate(row.get("pass_rate"), f"{where}: task {name!r}")
        return rates
    held = _json(source, "pass_rates")
    if isinstance(held, dict) and isinstance(held.get("eval"), dict):
        raise DajError(
            f"pass_rates: {source} is a result file of the official grader, of one policy. Give one for each: "
            f"pass_rates: {{POLICY: {source}, ...}}."
        )
    if not isinstance(held, dict) or not all(isinstance(of_task, dict) for of_task in held.values()):
        raise DajError(f"pass_rates: {source} is no object of the form {{task id: {{policy: rate}}}}.")
    return {
        name: {policy: _rate(rate, f"{source}: task {name!r}, {policy}") for policy, rate in of_task.items()}
        for name, of_task in held.items()
    }


def _rates_of_results(path: str) -> dict[str, float]:
    """Of the official grader's file: {"eval": {task: [{"status": "pass", "fail" or "timeout"}, ...]}}."""
    held = _json(path, "pass_rates")
    results = held.get("eval") if isinstance(held, dict) else None
    if not isinstance(results, dict):
        raise DajError(f'pass_rates: {path} has no object "eval"; wanted the official grader\'s *_eval_results.json.')
    rates = {}
    for name, programs in results.items():
        graded = programs if isinstance(programs, list) and programs else [None]
        statuses = [program.get("status") if isinstance(program, dict) else None for program in graded]
        wrong = [status for status in statuses if status not in ("pass", "fail", "timeout")]
        if wrong:
            raise DajError(f"pass_rates: {path}: task {name!r} has status {wrong[0]!r}; wanted pass, fail or timeout.")
        rates[name] = statuses.count("pass") / len(statuses)
    return rates


def _rate(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DajError(f"{where} has pass rate {value!r}; wanted a number from 0 to 1.")
    return float(value)


def read_domains(path: str, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """task id -> the domain of each of its libraries, from a map of tasks or one of libraries.

    Raises:
        DajError: no file, no such map, or a task for which it does not give seven-domain names.
    """
    held = _json(path, "domains")
    if not isinstance(held, dict) or not held:
        raise DajError(f"domains: {path} is no object; wanted {{task id: [domain, ...]}} or {{library: domain}}.")
    of_libraries = all(isinstance(value, str) for value in held.values())
    found: dict[str, list[str]] = {}
    for name, row in rows.items():
        named = [held.get(lib) for lib in libraries(row)] if of_libraries else held.get(name)
        if not isinstance(named, list) or not named or not set(map(str, named)) <= set(BCB_DOMAINS):
            raise DajError(
                f"domains: {path} gives {named} for task {name!r}{f' of {libraries(row)}' if of_libraries else ''}; "
                f"wanted one of {', '.join(BCB_DOMAINS)} for each library. Add what is missing to the map."
            )
        found[name] = named
    return found


def task_id_of(row: Mapping[str, Any], where: str) -> str:
    name = row.get("task_id")
    if not isinstance(name, str) or not name:
        raise DajError(f'{where}: task_id is {name!r}; wanted text such as "BigCodeBench/13".')
    return name


def _rows(name: str, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each row stands, for errors, and the row."""
    if name.startswith(HUB):
        yield from _hub_rows(name, what)
    elif not Path(name).is_file():
        raise _absent(name, what)
    elif name.endswith(".parquet"):
        yield from _parquet_rows(name, what)
    else:
        yield from _jsonl_rows(name, what)


def _jsonl_rows(name: str, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    with Path(name).open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    number = 0
    try:
        with gzip.open(name) if packed else Path(name).open("rb") as file:
            while line := file.readline(MAX_ROW_BYTES + 1):
                number += 1
                where = f"{what}: {name}, line {number}"
                if len(line) > MAX_ROW_BYTES:
                    task = _ID.search(line, 0, 4096)
                    which = f" (task {task[1].decode(errors='replace')!r})" if task else ""
                    raise DajError(f"{where}{which} has more than {MAX_ROW_BYTES} bytes; refused.")
                if line.strip():
                    row = _loads(line, where)
                    if not isinstance(row, dict):
                        raise DajError(f"{where} holds a {type(row).__name__}, wanted an object.")
                    yield where, row
    except (EOFError, OSError, zlib.error) as error:
        raise DajError(f"{what}: {name} breaks off behind line {number}: {error}. Download it again.") from error


def _parquet_rows(name: str, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(name).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DajError(f"{what}: {name} cannot be read as parquet: {error}. Download it again.") from error
    yield from ((f"{what}: {name}, row {number}", row) for number, row in enumerate(rows, start=1))


def _hub_rows(name: str, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    from datasets import load_dataset

    repository = name.removeprefix(HUB)
    try:
        rows = load_dataset(repository, split=HUB_SPLIT)
    except (OSError, ValueError) as error:  # OSError: no network, no such data set; ValueError: no such split
        reason = " ".join(str(error).split())[:200]
        raise DajError(
            f"{what}: the data set {repository!r}, split {HUB_SPLIT}, cannot be had from the hub "
            f"({type(error).__name__}: {reason}). Check name and network, or give a file that was downloaded elsewhere."
        ) from error
    yield from ((f"{what}: {name}, row {number}", row) for number, row in enumerate(rows, start=1))


def _json(path: str, what: str) -> Any:
    return _loads(_text(path, what), f"{what}: {path}")


def _loads(text: str | bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        task = _ID.search(text.encode(errors="replace") if isinstance(text, str) else text)
        which = f" (task {task[1].decode(errors='replace')!r})" if task else ""
        raise DajError(f"{where}{which} is not JSON: {error}.") from error


def _text(path: str, what: str) -> str:
    if not Path(path).is_file():
        raise _absent(path, what)
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DajError(f"{what}: {path} is no text: {error}.") from error


def _absent(name: str, what: str) -> DajError:
    return DajError(f"{what}: no file {name!r}. Give {WANTED[what]}.")
