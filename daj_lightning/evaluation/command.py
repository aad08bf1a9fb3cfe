"""`evaluate`: files in; tables on the terminal, evaluation.json and a report out."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from daj_lightning.data.problems import Benchmark
from daj_lightning.evaluation.clustering import cluster_picks
from daj_lightning.evaluation.evaluate import CLUSTERING, evaluate, read_judges, stamp
from daj_lightning.evaluation.field import Field, labelled_field, prepared_field
from daj_lightning.evaluation.results import Evaluation, TrainingSample, WeightHistory
from daj_lightning.evaluation.score import write_json
from daj_lightning.evaluation.tables import evaluation_tables
from daj_lightning.execution import Sandbox
from daj_lightning.records import DajError, Unit

if TYPE_CHECKING:
    from daj_lightning.data import JudgeData


@dataclass(frozen=True, slots=True)
class Run:
    """What a configuration says of a training run."""

    data: JudgeData
    unit: Unit
    """What its objective calls a sample."""
    max_new_tokens: int
    """Of the responses that it draws while it trains; 0: it draws none."""


@dataclass(frozen=True, slots=True)
class Given:
    """The options of the command line."""

    output: str
    data: str | None
    side: str
    problems: Sequence[str]
    candidates: str | None
    verdicts: str | None
    benchmark: Benchmark
    judgments: Sequence[str]
    selections: Sequence[str]
    scores: Sequence[str]
    pairs: Sequence[str]
    pairs_source: str
    influence: str | None
    execute: bool
    num_workers: int
    unsafe_local: bool
    python: str | None
    title: str


def evaluate_files(given: Given, run: Run | None, console: Console) -> Evaluation:
    """Measure, print the tables, and write evaluation.json; the report is the caller's.

    Raises:
        DajError: options that do not go together, or a file that is wrong.
    """
    output = Path(given.output)
    there = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not there.is_dir():
        raise DajError(f"output {given.output!r}: {str(there)!r} is a file. Name a directory.")
    if given.num_workers < 1:
        raise DajError(f"num_workers={given.num_workers} must be >= 1.")
    files = [given.candidates, given.verdicts]
    if any(files) != all(files) or any(files) != bool(given.problems):
        raise DajError("--problems, --candidates and --verdicts belong together: name all three, or none.")
    root = given.data or (str(run.data.root) if run else None)
    if run and root:
        run.data.root = Path(root)  # the directory that is named wins, for the samples as well
    if root and any(files):
        raise DajError("--data (or --config) is prepared data, --candidates are files: name one of the two.")
    if given.execute and not (run or any(files)):
        raise DajError("--execute needs the problems' public tests: give --config of the data, or --problems.")
    field: Field | None = None
    if root:
        field = prepared_field(root, given.side, run.data.preparation.source.load()[0] if run else ())
    elif given.candidates and given.verdicts:
        field = labelled_field(given.problems, given.candidates, given.verdicts, given.benchmark)
    judges, facts = read_judges(field, given.judgments, given.scores, given.pairs, given.pairs_source, given.selections)
    facts = {"command": f"python -m daj_lightning {shlex.join(sys.argv[1:])}", **facts}
    if root:
        facts["data"] = f"{stamp(Path(root) / 'candidates.jsonl')}, side {given.side}"
    if given.candidates:
        facts["data"] = f"{stamp(given.candidates)}, verdicts {stamp(str(given.verdicts))}"
    weights, samples = _influence(given.influence, root, run)
    clusters = None
    if given.execute and field:
        clusters = cluster_picks(field, _sandbox(given, run), given.num_workers)
        if len(clusters) < len(field.graded):
            lacking = len(field.graded) - len(clusters)
            facts[CLUSTERING] = (
                f"{lacking} of {len(field.graded)} problems have no public input, and are left out of it"
            )
    evaluation = evaluate(given.title, field, judges, facts, clusters, weights, samples)
    for judge in judges:
        for note in judge.notes:
            console.print(f"{judge.name}: {note}", markup=False, highlight=False, soft_wrap=True)
    for table in evaluation_tables(evaluation):
        console.print(table)
    write_json(Path(given.output) / "evaluation.json", evaluation)
    return evaluation


def _sandbox(given: Given, run: Run | None) -> Sandbox:
    if run:
        return run.data.preparation.sandbox()
    return Sandbox(None, "unsafe-local" if given.unsafe_local else None, given.python)


def _influence(
    path: str | None, root: str | None, run: Run | None
) -> tuple[WeightHistory | None, tuple[list[TrainingSample], list[TrainingSample]]]:
    if path is None:
        return None, ([], [])
    if root is None:
        raise DajError("--influence names samples by number: give --data (and the run's --config) for their texts.")
    from daj_lightning.evaluation.influence_records import (
        read_influence,
        singled_out,
        texts_of_pairs,
        texts_of_run,
        weight_history,
    )

    table = read_influence(path)
    texts = texts_of_run(run.data, run.unit, run.max_new_tokens) if run else texts_of_pairs(root)
    return weight_history(table), singled_out(table, texts)
