"""The chain from a source to training files: sample, label, pairs.

    problems + candidates --less near-duplicates, execute--> verdicts
                          --compare, respond--> train / meta pairs, test / unseen comparisons

Everything lands in one directory with a manifest. The manifest is written last and names what the
files were made from, so that half-prepared or stale data is recognised.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from daj_lightning.data.comparisons import (
    ResponseSource,
    mixed_comparisons,
    preference_pairs,
    voting_comparisons,
)
from daj_lightning.data.duplicates import PAIRS, Deduplicated, deduplicate
from daj_lightning.data.livecodebench import read_jsonl
from daj_lightning.data.sources import META_START, TEST_END, TEST_START, Source
from daj_lightning.execution import Limits, Sandbox, grade_all
from daj_lightning.judge import PromptTemplate, Voting
from daj_lightning.records import Candidate, Comparison, DajError, Outcome, Pair, Problem, Verdict

SPLITS = ("train", "meta", "test", "unseen")
MANIFEST = "manifest.json"
NUM_LISTED = 200
"""Near-duplicates that the manifest lists; duplicates.jsonl has them all."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """What `prepare` needs; part of the data module's arguments."""

    source: Source
    responses: ResponseSource
    template: str
    max_pairs_per_problem: int
    """(right, wrong) pairs of a training or meta problem; each is asked in both orders."""
    max_asked_pairs_per_problem: int
    """Of these, asked in `validate` and `test` for the selection accuracy."""
    voting: Voting
    num_workers: int
    """Candidates executed at once."""
    limits: Limits
    statement_similarity: float
    """Problems on two sides whose statements are at least this much alike are one problem; 0 < it <= 1."""
    seed: int

    def description(self) -> dict[str, Any]:
        """JSON that changes whenever the prepared files would."""
        return {
            "format": 3,  # of the files below; raise it whenever they change
            "source": self.source.description(),
            "responses": self.responses.description(),
            "template": PromptTemplate(self.template).text,
            "max_pairs_per_problem": self.max_pairs_per_problem,
            "max_asked_pairs_per_problem": self.max_asked_pairs_per_problem,
            "voting": vars(self.voting),
            "limits": dataclasses.asdict(self.limits),
            "statement_similarity": self.statement_similarity,
            "seed": self.seed,
        }


def split_of(problem: Problem) -> str | None:
    """train, meta or test by release date; None after the test period (paper, App. A).

    Half-open intervals: a problem of 2024-08-01 is meta, one of 2025-02-01 is test. The paper says that
    no problem falls on these days; 12 do on the second. Of the test period, those marked so are unseen.

    Raises:
        DajError: a problem marked as unseen is of another time.
    """
    if problem.unseen:
        if not TEST_START <= problem.release_date < TEST_END:
            raise DajError(
                f"{problem.problem_id} is marked as unseen and was released on {problem.release_date}; the second "
                f"test set lies in [{TEST_START}, {TEST_END}) as the first does. Change its date, or unmark it."
            )
        return "unseen"
    if problem.release_date < META_START:
        return "train"
    if problem.release_date < TEST_START:
        return "meta"
    return "test" if problem.release_date < TEST_END else None


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


def label(
    problems: Mapping[str, Problem], candidates: Sequence[Candidate], preparation: Preparation, console: Console
) -> list[Verdict]:
    """Execute every candidate, one process each."""
    sandbox = Sandbox(limits=preparation.limits)
    jobs = [(problems[candidate.problem_id], candidate) for candidate in candidates]
    verdicts = grade_all(jobs, sandbox, num_workers=preparation.num_workers)
    return list(track(verdicts, f"executing ({sandbox.mode})", total=len(jobs), console=console))


def write_splits(
    problems: Mapping[str, Problem],
    candidates: Sequence[Candidate],
    passed: Mapping[str, bool],
    preparation: Preparation,
    root: Path,
) -> dict[str, int]:
    """train and meta hold pairs, validation (the meta problems), test and unseen comparisons; returns row counts."""
    template = PromptTemplate(preparation.template)
    of_problem: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        of_problem.setdefault(candidate.problem_id, []).append(candidate)
    mixed: dict[str, list[Comparison]] = {split: [] for split in SPLITS}
    asked: dict[str, list[Comparison]] = {split: [] for split in SPLITS}
    for problem in problems.values():
        split, own = split_of(problem), of_problem.get(problem.problem_id, [])
        if split is None or not own:
            continue
        pairs = mixed_comparisons(problem, own, passed, template, preparation.max_pairs_per_problem, preparation.seed)
        mixed[split] += pairs
        asked[split] += pairs[: 2 * preparation.max_asked_pairs_per_problem]
        asked[split] += voting_comparisons(problem, own, passed, template, preparation.voting)
    rows: dict[str, Sequence[Pair | Comparison]] = {
        "train": preference_pairs(mixed["train"], preparation.responses),
        "meta": preference_pairs(mixed["meta"], preparation.responses),
        "validation": asked["meta"],
        "test": asked["test"],
        "unseen": asked["unseen"],
    }
    check_splits(problems.values(), rows)
    write_whole(root / "problems.json", json.dumps(sides(problems.values(), of_problem), indent=2) + "\n")
    for name, records in rows.items():
        write_jsonl(root / f"{name}.jsonl", records)
    return {name: len(records) for name, records in rows.items()}


def sides(problems: Iterable[Problem], candidates: Mapping[str, Sequence[Candidate]]) -> dict[str, dict[str, str]]:
    """split -> problem id -> difficulty, of every problem with a candidate: also where there is nothing to ask."""
    found: dict[str, dict[str, str]] = {split: {} for split in SPLITS}
    for problem in problems:
        split = split_of(problem)
        if split is not None and candidates.get(problem.problem_id):
            found[split][problem.problem_id] = problem.difficulty
    return found


def check_splits(problems: Iterable[Problem], rows: Mapping[str, Sequence[Any]]) -> None:
    """Refuse to go on without a training or a meta sample."""
    dates = sorted(problem.release_date for problem in problems)
    wanted = {"train": f"before {META_START}", "meta": f"in [{META_START}, {TEST_START})"}
    for split, when in wanted.items():
        if not rows[split]:
            covered = f"{dates[0]} to {dates[-1]}" if dates else "nothing"
            raise DajError(
                f"{split} set is empty: no problem released {when} has both a passing and a failing candidate; "
                f"the problems cover {covered}. Add problems of that time, or candidates for them; "
                f"duplicates.jsonl lists what was removed as a repeat of another side."
            )


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


def read_pairs(path: str | Path) -> list[Pair]:
    rows = read_jsonl(path, "pairs")
    return [Pair(**{**row, "candidate_ids": tuple(row["candidate_ids"])}) for row in rows]


def read_comparisons(path: str | Path) -> list[Comparison]:
    rows = read_jsonl(path, "comparisons")
    return [
        Comparison(**{**row, "candidate_ids": tuple(row["candidate_ids"]), "passed": tuple(row["passed"])})
        for row in rows
    ]


def read_graded(root: str | Path) -> dict[str, list[tuple[Candidate, bool]]]:
    """problem id -> its candidates in order, each with whether it passed every test."""
    verdicts = read_jsonl(Path(root) / "verdicts.jsonl", "verdicts")
    passed = {row["candidate_id"]: row["outcome"] == Outcome.PASSED for row in verdicts}
    graded: dict[str, list[tuple[Candidate, bool]]] = {}
    for row in read_jsonl(Path(root) / "candidates.jsonl", "candidates"):
        graded.setdefault(row["problem_id"], []).append((Candidate(**row), passed[row["candidate_id"]]))
    return graded


def write_jsonl(path: Path, records: Iterable[Any]) -> None:
    lines = (json.dumps(dataclasses.asdict(record), default=str) for record in records)
    write_whole(path, "".join(line + "\n" for line in lines))


def write_whole(path: Path, text: str) -> None:
    """All of the file or none of it: written beside it, then renamed."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(text, encoding="utf-8")
    shutil.move(beside, path)


def duplicates_line(left: Deduplicated) -> str:
    """How many problems and programs repeat something of another side, e.g. "train/test 3"."""
    parts = [
        f"{kind}s {', '.join(f'{pair} {of_kind[pair]}' for pair in PAIRS if of_kind[pair])}"
        for kind, of_kind in left.counts().items()
        if any(of_kind.values())
    ]
    kept = " (those of unseen/test stay)" if any(not repeat.removed for repeat in left.repeats) else ""
    return f"near-duplicates removed{kept}: {'; '.join(parts) or 'none'}"


def summary_table(
    problems: Iterable[Problem], candidates: Sequence[Candidate], passed: Mapping[str, bool], counts: Mapping[str, int]
) -> Table:
    """Problems, candidates, pass rate and rows of each split."""
    split = {problem.problem_id: split_of(problem) for problem in problems}
    table = Table("split", "problems", "candidates", "policy", "passing", "rows", title="prepared data")
    for name in SPLITS:
        own = [c for c in candidates if split[c.problem_id] == name]
        if name == "unseen" and not own:
            continue
        rate = sum(passed[c.candidate_id] for c in own) / max(len(own), 1)
        policies = ", ".join(sorted({c.policy for c in own}))
        number = sum(s == name for s in split.values())
        table.add_row(name, str(number), str(len(own)), policies, f"{rate:.1%}", str(counts[name]))
    return table
