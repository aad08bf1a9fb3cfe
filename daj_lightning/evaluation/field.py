"""The problems of an evaluation, with their candidates and what these passed."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from daj_lightning.data.candidates import fingerprint, has_code, read_candidates
from daj_lightning.data.labels import read_graded, read_labels
from daj_lightning.data.prepare import MANIFEST
from daj_lightning.data.problems import Benchmark, read_problems
from daj_lightning.data.rows import read_comparisons
from daj_lightning.evaluation.baselines import Graded, baseline_rules
from daj_lightning.evaluation.pass_at_1 import PassAt1
from daj_lightning.evaluation.score import Score
from daj_lightning.judge.prompts import before_candidates
from daj_lightning.records import Candidate, DajError, Problem

BENCHMARKS = {"livecodebench": "LiveCodeBench", "bigcodebench": "BigCodeBench"}
"""Source of the data -> its name; others are called what they call themselves."""
SIDES = {"meta": "validation.jsonl", "test": "test.jsonl", "unseen": "unseen.jsonl"}
"""Side of prepared data -> the file that asks about it."""


@dataclass(frozen=True)
class Field:
    """What every judge of an evaluation chooses from."""

    graded: Graded
    """problem id -> its candidates in order, with whether they pass; the problems that count."""
    difficulty: Mapping[str, str]
    """problem id -> "easy", "medium" or "hard"; the same problems."""
    problems: Mapping[str, Problem] = field(default_factory=dict)
    """As far as the problems themselves are at hand: their statements, their public tests."""
    shown: Mapping[str, str] = field(default_factory=dict)
    """problem id -> what a judge was told of it; where the problem is not at hand."""
    everything: Graded = field(default_factory=dict)
    """Also of the problems that do not count here: what is known of the policies."""
    benchmark: str = ""
    """Whose problems they are; empty where nothing says so."""

    def passed(self, name: str) -> list[bool]:
        return [passed for _, passed in self.graded[name]]

    def index(self, name: str) -> dict[str, int]:
        """candidate id -> its place among the problem's candidates."""
        return {candidate.candidate_id: i for i, (candidate, _) in enumerate(self.graded[name])}

    def with_code(self, name: str) -> list[int]:
        """The candidates that a judge can be asked about."""
        return [i for i, (candidate, _) in enumerate(self.graded[name]) if has_code(candidate)]

    def mixed_pairs(self, name: str) -> list[tuple[int, int]]:
        """Of a right and a wrong program, lower index first."""
        passed = self.passed(name)
        return [(i, j) for i, j in itertools.combinations(self.with_code(name), 2) if passed[i] != passed[j]]

    def statement(self, name: str) -> str:
        problem = self.problems.get(name)
        return problem.statement if problem else self.shown.get(name, "")

    def pass_at_1(self, values: Mapping[str, float]) -> dict[str, Score]:
        """Mean of a value of each problem, overall and by difficulty."""
        metric = PassAt1()
        metric.update(list(values), [self.difficulty[name] for name in values], list(values.values()))
        return metric.scores()

    def baselines(self) -> dict[str, dict[str, Score]]:
        """Rule -> pass@1; see baselines.py."""
        rules = baseline_rules({**self.everything, **self.graded})
        return {
            name: self.pass_at_1({problem: rule(problem) for problem in self.graded}) for name, rule in rules.items()
        }

    def facts(self) -> dict[str, str]:
        """What the page says of them."""
        levels = Counter(self.difficulty.values())
        total = sum(len(group) for group in self.graded.values())
        passing = sum(sum(self.passed(name)) for name in self.graded)
        mixed = sum(len(set(self.passed(name))) == 2 for name in self.graded)
        policies = sorted({candidate.policy for group in self.graded.values() for candidate, _ in group})
        return {
            **({"benchmark": self.benchmark} if self.benchmark else {}),
            "policy": ", ".join(policies),
            "problems": f"{len(self.graded)} ({', '.join(f'{n} {level}' for level, n in sorted(levels.items()))})",
            "problems with right and wrong candidates": str(mixed),
            "candidates": f"{total}, {passing} of them passing",
        }

    @property
    def num_candidates(self) -> int:
        """The most common number of candidates; the smallest of several such."""
        counts = Counter(len(group) for group in self.graded.values())
        return min(n for n, times in counts.items() if times == max(counts.values()))


def prepared_field(root: str | Path, side: str, problems: Iterable[Problem] = ()) -> Field:
    """One side of a directory that `prepare` wrote.

    Args:
        problems: those of its source, where they are at hand; the directory does not hold them.
    Raises:
        DajError: the directory or the side is not there.
    """
    root = Path(root)
    if side not in SIDES:
        raise DajError(f"side is {side!r}, wanted one of {', '.join(SIDES)}.")
    if not (root / MANIFEST).is_file():
        raise DajError(f"no prepared data in {str(root)!r}: it has no {MANIFEST}. Run `prepare` first.")
    try:
        difficulty = json.loads((root / "problems.json").read_text(encoding="utf-8"))[side]
        manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        source = str(manifest["description"]["source"].get("source", ""))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DajError(
            f"{str(root)!r}: problems.json or {MANIFEST} is damaged, or of another version ({error!r:.200}). Run "
            f"`prepare` again."
        ) from error
    everything = read_graded(root)
    if not difficulty:
        raise DajError(f"{str(root)!r} has no problem on the side {side!r}. Name another --side.")
    codes = {c.candidate_id: c.code for name in difficulty for c, _ in everything[name]}
    shown: dict[str, str] = {}
    for comparison in read_comparisons(root / SIDES[side]):
        # What stands before the first program is the same in every prompt about the problem.
        first = codes[comparison.candidate_ids[0]]
        shown.setdefault(comparison.problem_id, before_candidates(comparison.prompt, first))
    at_hand = {problem.problem_id: problem for problem in problems if problem.problem_id in difficulty}
    graded = {name: everything[name] for name in difficulty}
    return Field(graded, difficulty, at_hand, shown, everything, BENCHMARKS.get(source, source))


def labelled_field(
    problems: Sequence[str], candidates: str | Path, verdicts: str | Path, benchmark: Benchmark
) -> Field:
    """A benchmark's problems with the candidates that `label` or `import` gave verdicts to.

    Raises:
        DajError: a file is missing, a candidate comes twice or has no verdict on this program, or its problem is not
            in the files.
    """
    found, _ = read_problems(problems, benchmark)
    labels = read_labels([verdicts])
    graded: dict[str, list[tuple[Candidate, bool]]] = {}
    names = set()
    for candidate in read_candidates(candidates):
        if candidate.candidate_id in names:
            raise DajError(f"candidate {candidate.candidate_id!r} stands twice in {str(candidates)!r}. Name each once.")
        names.add(candidate.candidate_id)
        label = labels.get(candidate.candidate_id)
        if label is None or candidate.problem_id not in found:
            lacks = f"has no verdict in {str(verdicts)!r}" if label is None else "is of no problem in the files"
            raise DajError(
                f"candidate {candidate.candidate_id!r} of {str(candidates)!r} {lacks}. Label all candidates (`label` "
                f"goes on where it stopped), and name all files of the problems."
            )
        if (label.problem_id, label.program) != (candidate.problem_id, fingerprint(candidate)):
            raise DajError(
                f"candidate {candidate.candidate_id!r}: the verdict in {str(verdicts)!r} is on another program of that "
                f"name. Label these candidates anew."
            )
        graded.setdefault(candidate.problem_id, []).append((candidate, label.verdict.passed))
    if not graded:
        raise DajError(f"candidates: {str(candidates)!r} has no row; nothing to evaluate.")
    own = {name: found[name] for name in graded}
    difficulty = {name: problem.difficulty for name, problem in own.items()}
    return Field(graded, difficulty, own, benchmark=BENCHMARKS[benchmark])
