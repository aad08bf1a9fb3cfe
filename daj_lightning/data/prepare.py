"""The chain from a source to training files: sample, label, pairs.

    problems + candidates --less near-duplicates, execute--> verdicts
                          --compare, respond--> train / meta pairs, test / unseen comparisons

Everything lands in one directory with a manifest. The manifest is written last and names what the
files were made from, so that half-prepared or stale data is recognised. labels.json is the same for the
first half, written when every candidate has its verdict: `pairs` starts there, and executes nothing.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from daj_lightning.data.candidates import has_code
from daj_lightning.data.duplicates import PAIRS, Deduplicated, deduplicate
from daj_lightning.data.jsonl import sha256_of, write_jsonl, write_whole
from daj_lightning.data.labelling import label
from daj_lightning.data.labels import read_graded
from daj_lightning.data.pairs import write_splits
from daj_lightning.data.preparation import OF_PAIRS, Preparation
from daj_lightning.data.splits import (
    RULE,
    boundary_lines,
    boundary_problems,
    split_of,
    summary_table,
    where_problems_went,
    where_table,
)
from daj_lightning.judge import PromptTemplate
from daj_lightning.records import Candidate, DajError, Problem

MANIFEST = "manifest.json"
LABELS = "labels.json"
LABELLED = ("candidates.jsonl", "verdicts.jsonl")
EXECUTION = ("grader", "sandbox", "python", "limits", "forgeable")
NUM_LISTED = 200
"""Near-duplicates that the manifest lists; duplicates.jsonl has them all."""


def prepare(preparation: Preparation, root: str | Path, console: Console | None = None) -> dict[str, Any]:
    """Run the whole chain into `root` and return the manifest; existing files there are replaced."""
    console = console or Console()
    root = Path(root)
    for name in (MANIFEST, LABELS):
        (root / name).unlink(missing_ok=True)
    root.mkdir(parents=True, exist_ok=True)
    PromptTemplate(preparation.template)  # mistakes in it show before anything is executed
    problems, candidates = preparation.source.load()
    for kind, ids in (
        ("problem", [p.problem_id for p in problems]),
        ("candidate", [c.candidate_id for c in candidates]),
    ):
        repeated = [name for name, count in Counter(ids).items() if count > 1]
        if repeated:
            raise DajError(f"{len(repeated)} {kind} ids occur twice, first {repeated[0]!r}. Give each {kind} its own.")
    side_of = {problem.problem_id: split for problem in problems if (split := split_of(problem))}
    left = deduplicate(
        [problem for problem in problems if problem.problem_id in side_of],
        [candidate for candidate in candidates if candidate.problem_id in side_of and has_code(candidate)],
        side_of,
        preparation.statement_similarity,
    )
    console.print(duplicates_line(left))
    write_jsonl(root / "duplicates.jsonl", left.repeats)
    by_id = {problem.problem_id: problem for problem in left.problems}
    kept = {candidate.candidate_id for candidate in left.candidates}
    # A response without code is no copy of another: it stays where its problem does.
    candidates = [c for c in candidates if c.candidate_id in kept or (c.problem_id in by_id and not has_code(c))]
    write_jsonl(root / "candidates.jsonl", candidates)
    verdicts = label(by_id, candidates, preparation, root, console)
    passed = {verdict.candidate_id: verdict.passed for verdict in verdicts}
    groups, boundaries = where_problems_went(problems, by_id, candidates, passed), boundary_problems(problems)
    console.print(where_table(groups))
    for line in boundary_lines(boundaries):
        console.print(line, soft_wrap=True)
    reported = preparation.source.report()
    if reported:
        console.print(reported[1])
    labels = {
        "description": preparation.labels_description(),
        "files": {name: sha256_of(root / name) for name in LABELLED},
        "outcomes": dict(sorted(Counter(v.outcome.value for v in verdicts).items())),
        "splits": {"rule": RULE, "boundaries": boundaries, "groups": [dataclasses.asdict(group) for group in groups]},
        "duplicates": {
            "counts": left.counts(),
            "removed": [repeat for repeat in map(dataclasses.asdict, left.repeats) if repeat["removed"]][:NUM_LISTED],
        },
        "source": reported[0] if reported else {},
        "execution": {key: sorted({getattr(v, key) for v in verdicts}) for key in EXECUTION},
    }
    write_whole(root / LABELS, json.dumps(labels, indent=2) + "\n")
    return _pairs(by_id, candidates, passed, labels, preparation, root, console)


def prepare_pairs(preparation: Preparation, root: str | Path, console: Console | None = None) -> dict[str, Any]:
    """The last link of the chain alone: responses and pairs for the verdicts that `prepare` left in `root`.

    Raises:
        DajError: the candidates there are not labelled, were labelled for another configuration, or changed since.
    """
    root = Path(root)
    path = root / LABELS
    if not path.is_file():
        raise DajError(
            f"no labelled candidates in {str(root)!r}. Run `python -m daj_lightning prepare` with the same --config."
        )
    labels = json.loads(path.read_text(encoding="utf-8"))
    changed = _changed(preparation.labels_description(), labels["description"])
    changed += [name for name in LABELLED if sha256_of(root / name) != labels["files"][name]]
    if changed:
        raise DajError(
            f"the candidates in {str(root)!r} were labelled with another {', '.join(changed)}. Run `python -m "
            f"daj_lightning prepare` with this --config, which executes them again."
        )
    (root / MANIFEST).unlink(missing_ok=True)
    graded = read_graded(root)
    problems = {p.problem_id: p for p in preparation.source.load()[0] if p.problem_id in graded}
    candidates = [candidate for group in graded.values() for candidate, _ in group]
    passed = {candidate.candidate_id: ok for group in graded.values() for candidate, ok in group}
    return _pairs(problems, candidates, passed, labels, preparation, root, console or Console())


def _pairs(
    problems: Mapping[str, Problem],
    candidates: Sequence[Candidate],
    passed: Mapping[str, bool],
    labels: Mapping[str, Any],
    preparation: Preparation,
    root: Path,
    console: Console,
) -> dict[str, Any]:
    shown = [candidate for candidate in candidates if has_code(candidate)]  # nothing to judge in the others
    counts, report = write_splits(problems, shown, passed, preparation, root, console)
    manifest = {
        "description": preparation.description(),
        "counts": counts,
        **{key: labels[key] for key in ("outcomes", "splits", "source", "duplicates", "execution")},
        "responses": report.as_json(),
    }
    write_whole(root / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    console.print(summary_table(problems.values(), candidates, passed, counts))
    console.print(report.table())
    for line in report.lines():
        console.print(line, soft_wrap=True)
    return manifest


def check_prepared(preparation: Preparation, root: str | Path) -> dict[str, Any]:
    """The manifest of data prepared in `root` as `preparation` says.

    Raises:
        DajError: nothing is there, or it was prepared differently.
    """
    path = Path(root) / MANIFEST
    if not path.is_file():
        raise DajError(
            f"no prepared data in {str(root)!r}. Run `python -m daj_lightning prepare` with the same --config."
        )
    manifest = json.loads(path.read_text(encoding="utf-8"))
    changed = _changed(preparation.description(), manifest["description"])
    if changed:
        enough = "" if set(changed) - set(OF_PAIRS) else " (`pairs` is enough: the verdicts still hold)"
        raise DajError(
            f"the data in {str(root)!r} was prepared with another {', '.join(changed)}. Run `python -m "
            f"daj_lightning prepare` with this --config again{enough}, or name another data.root."
        )
    return manifest


def _changed(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Keys of `wanted` that `found` lacks or has another value for."""
    wanted = json.loads(json.dumps(wanted))
    return sorted(key for key in wanted if wanted[key] != found.get(key))


def duplicates_line(left: Deduplicated) -> str:
    """How many problems and programs repeat something of another side, e.g. "train/test 3"."""
    parts = [
        f"{kind}s {', '.join(f'{pair} {of_kind[pair]}' for pair in PAIRS if of_kind[pair])}"
        for kind, of_kind in left.counts().items()
        if any(of_kind.values())
    ]
    kept = " (those of unseen/test stay)" if any(not repeat.removed for repeat in left.repeats) else ""
    return f"near-duplicates removed{kept}: {'; '.join(parts) or 'none'}"
