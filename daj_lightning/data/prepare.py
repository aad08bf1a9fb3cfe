"""The chain from a source to training files: sample, label, pairs.

    problems + candidates --less near-duplicates, execute--> verdicts
                          --compare, respond--> train / meta pairs, test / unseen comparisons

Everything lands in one directory with a manifest. The manifest is written last and names what the
files were made from, so that half-prepared or stale data is recognised.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console

from daj_lightning.data.duplicates import PAIRS, Deduplicated, deduplicate
from daj_lightning.data.jsonl import write_jsonl, write_whole
from daj_lightning.data.labels import label
from daj_lightning.data.pairs import write_splits
from daj_lightning.data.preparation import Preparation
from daj_lightning.data.splits import split_of, summary_table
from daj_lightning.judge import PromptTemplate
from daj_lightning.records import DajError

MANIFEST = "manifest.json"
NUM_LISTED = 200
"""Near-duplicates that the manifest lists; duplicates.jsonl has them all."""


def prepare(preparation: Preparation, root: str | Path, console: Console | None = None) -> dict[str, Any]:
    """Run the whole chain into `root` and return the manifest; existing files there are replaced."""
    console = console or Console()
    root = Path(root)
    (root / MANIFEST).unlink(missing_ok=True)
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
        [candidate for candidate in candidates if candidate.problem_id in side_of],
        side_of,
        preparation.statement_similarity,
    )
    console.print(duplicates_line(left))
    write_jsonl(root / "duplicates.jsonl", left.repeats)
    by_id, candidates = {problem.problem_id: problem for problem in left.problems}, left.candidates
    verdicts = label(by_id, candidates, preparation, console)
    write_jsonl(root / "candidates.jsonl", candidates)
    write_jsonl(root / "verdicts.jsonl", verdicts)
    passed = {verdict.candidate_id: verdict.passed for verdict in verdicts}
    counts = write_splits(by_id, candidates, passed, preparation, root)
    manifest = {
        "description": preparation.description(),
        "counts": counts,
        "outcomes": dict(sorted(Counter(v.outcome.value for v in verdicts).items())),
        "duplicates": {
            "counts": left.counts(),
            "removed": [repeat for repeat in map(dataclasses.asdict, left.repeats) if repeat["removed"]][:NUM_LISTED],
        },
        "execution": {key: sorted({getattr(v, key) for v in verdicts}) for key in ("grader", "sandbox", "python")},
    }
    write_whole(root / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    console.print(summary_table(by_id.values(), candidates, passed, counts))
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
    wanted = json.loads(json.dumps(preparation.description()))
    changed = sorted(key for key in wanted if wanted[key] != manifest["description"].get(key))
    if changed:
        raise DajError(
            f"the data in {str(root)!r} was prepared with another {', '.join(changed)}. Run `python -m "
            f"daj_lightning prepare` with this --config again, or name another data.root."
        )
    return manifest


def duplicates_line(left: Deduplicated) -> str:
    """How many problems and programs repeat something of another side, e.g. "train/test 3"."""
    parts = [
        f"{kind}s {', '.join(f'{pair} {of_kind[pair]}' for pair in PAIRS if of_kind[pair])}"
        for kind, of_kind in left.counts().items()
        if any(of_kind.values())
    ]
    kept = " (those of unseen/test stay)" if any(not repeat.removed for repeat in left.repeats) else ""
    return f"near-duplicates removed{kept}: {'; '.join(parts) or 'none'}"
