"""The problems of a benchmark's files, for commands that take files rather than a configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

from daj_lightning.data.bigcodebench import Variant, problem_from_task
from daj_lightning.data.bigcodebench_files import read_tasks
from daj_lightning.data.livecodebench import PLATFORMS
from daj_lightning.data.official_files import local_files
from daj_lightning.data.sources import LiveCodeBenchSource
from daj_lightning.records import DajError, Problem

Benchmark = Literal["livecodebench", "bigcodebench"]


def read_problems(
    files: Sequence[str], benchmark: Benchmark, variant: Variant = "instruct"
) -> tuple[dict[str, Problem], str]:
    """The problems by id, on no side, and a digest of the files' content.

    Args:
        variant: BigCodeBench: which prompt is the statement.

    Raises:
        DajError: a file is missing, or a row is not one of the benchmark's.
    """
    if benchmark == "livecodebench":
        problems = LiveCodeBenchSource(list(files), "", PLATFORMS).load_problems()
    else:
        rows = [row for file in files for row in read_tasks(file).values()]
        problems = [problem_from_task(row, variant=variant, topic="", split="none") for row in rows]
    digest = hashlib.sha256()
    for path in local_files(list(files), download=False):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    by_id = {problem.problem_id: problem for problem in problems}
    if len(by_id) < len(problems):
        raise DajError(f"{len(problems) - len(by_id)} problems stand in {', '.join(files)} twice. Name each file once.")
    return by_id, digest.hexdigest()[:16]
