"""The problems of a benchmark's files, for commands that take files rather than a configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Literal

from daj_lightning.data.bigcodebench import Variant, problem_from_task
from daj_lightning.data.bigcodebench_files import read_tasks, task_files
from daj_lightning.data.jsonl import sha256_of
from daj_lightning.data.livecodebench import PLATFORMS
from daj_lightning.data.official_files import local_files
from daj_lightning.data.sources import LiveCodeBenchSource
from daj_lightning.records import DajError, Problem

Benchmark = Literal["livecodebench", "bigcodebench"]


def read_problems(
    files: Sequence[str], benchmark: Benchmark, variant: Variant = "instruct"
) -> tuple[dict[str, Problem], str]:
    """The problems by id, on no side, and a digest of the files' content; of rows from the hub, of the rows.

    Args:
        files: or patterns of files, or "hub:" and the name of a data set.
        variant: BigCodeBench: which prompt is the statement.

    Raises:
        DajError: a file is missing, or a row is not one of the benchmark's.
    """
    digest = hashlib.sha256()
    if benchmark == "livecodebench":
        paths = [str(path) for path in local_files(list(files), download=True)]
        problems = LiveCodeBenchSource(paths, "", PLATFORMS).load_problems()
        for path in paths:
            digest.update(bytes.fromhex(sha256_of(path) or ""))
    else:
        problems = []
        for name in (path for given in files for path in task_files(given)):
            rows = list(read_tasks(name).values())
            problems += [problem_from_task(row, variant=variant, topic="", split="none") for row in rows]
            content = json.dumps(rows, sort_keys=True, default=str).encode()
            digest.update(bytes.fromhex(sha256_of(name) or hashlib.sha256(content).hexdigest()))
    by_id = {problem.problem_id: problem for problem in problems}
    if len(by_id) < len(problems):
        raise DajError(f"{len(problems) - len(by_id)} problems stand in {', '.join(files)} twice. Name each file once.")
    return by_id, digest.hexdigest()[:16]
