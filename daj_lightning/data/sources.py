"""Where problems and candidates come from: the bundled bank, or LiveCodeBench's files."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from daj_lightning.data import bank
from daj_lightning.data.bank import bank_candidates, bank_rows, unseen_rows
from daj_lightning.data.hidden_tests import TestCache
from daj_lightning.data.jsonl import iterate_jsonl, sha256_of
from daj_lightning.data.livecodebench import PLATFORMS, candidate_from_row, problem_from_row, problem_on_disk
from daj_lightning.data.official_files import local_files, official_rows
from daj_lightning.data.packing import DEFAULT_CAP_MIB, MIB
from daj_lightning.data.splits import META_START
from daj_lightning.records import Candidate, DajError, Problem


class Source(ABC):
    """The seam: everything that `prepare` needs of a benchmark."""

    @abstractmethod
    def load(self) -> tuple[list[Problem], list[Candidate]]:
        """All problems, and all candidates for them."""

    @abstractmethod
    def description(self) -> dict[str, object]:
        """What identifies this data, for the manifest: prepared data of another description is stale."""

    def problems_description(self) -> dict[str, object]:
        """What identifies the problems and their tests: verdicts on programs hold as long as it is the same."""
        return {key: value for key, value in self.description().items() if key != "candidates"}

    def report(self) -> tuple[dict[str, Any], RenderableType] | None:
        """What decided sides and domains, as JSON for the manifest and as a table; None where dates alone do."""
        return None


class BankSource(Source):
    """The bundled problem bank; a weak policy wrote the training candidates, a strong one the others.

    Args:
        num_problems: instances over the families of train, meta and test.
        num_unseen: instances over families of their own, for the second test set.
        num_candidates: per problem.
        train_policy: writes candidates for problems before 2024-08-01 (the paper: Qwen coders).
        other_policy: writes the rest (the paper: o4-mini, DeepSeek V3.2 Speciale).
        unseen_policy: writes those of the second test set, with mistakes of its own.
        seed: of the instances and of the mutations.
    """

    def __init__(
        self,
        num_problems: int = 300,
        num_unseen: int = 60,
        num_candidates: int = 8,
        train_policy: str = "weak",
        other_policy: str = "strong",
        unseen_policy: str = "foreign",
        seed: int = 0,
    ) -> None:
        self.num_problems = num_problems
        self.num_unseen = num_unseen
        self.num_candidates = num_candidates
        self.train_policy = train_policy
        self.other_policy = other_policy
        self.unseen_policy = unseen_policy
        self.seed = seed

    def load(self) -> tuple[list[Problem], list[Candidate]]:
        rows = bank_rows(num_problems=self.num_problems, seed=self.seed)
        if self.num_unseen:
            rows += unseen_rows(num_problems=self.num_unseen, seed=self.seed)
        problems, candidates = [], []
        for row in rows:
            problem = problem_from_row(row)
            policy = self._policy(problem)
            problems.append(problem)
            candidates += bank_candidates(row, policy=policy, num_candidates=self.num_candidates, seed=self.seed)
        return problems, candidates

    def _policy(self, problem: Problem) -> str:
        if problem.split == "unseen":
            return self.unseen_policy
        assert problem.release_date
        return self.train_policy if problem.release_date < META_START else self.other_policy

    def description(self) -> dict[str, object]:
        return {"source": "bank", "code": _bank_fingerprint(), **vars(self)}


def _bank_fingerprint() -> str:
    """Changes with the bank's own code, which its problems and programs come from."""
    files = sorted(Path(bank.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


class LiveCodeBenchSource(Source):
    """LiveCodeBench from local files or the hub: official rows, and candidates sampled beforehand.

    Args:
        problems: files in the official schema (code_generation_lite; release_v6 is test.jsonl .. test6.jsonl,
            1,055 problems): .jsonl, .jsonl.gz or .parquet, patterns of them, or "hub:" and a data set's name.
            Their private tests stay there until a problem is graded.
        candidates: JSON Lines of {problem_id, policy, code}.
        platforms: kept; the paper leaves Codeforces out "due to insufficient samples" (App. A). The problems
            of others are on no side, and without candidates.
        max_tests_mib: of one problem's tests when unpacked; a row with more is refused.
    """

    def __init__(
        self,
        problems: str | list[str],
        candidates: str,
        platforms: tuple[str, ...] = ("atcoder", "leetcode"),
        max_tests_mib: int = DEFAULT_CAP_MIB,
    ) -> None:
        unknown = sorted(set(platforms) - set(PLATFORMS))
        if unknown:
            raise DajError(f"platforms holds {', '.join(unknown)}; LiveCodeBench has {', '.join(PLATFORMS)}.")
        if max_tests_mib < 1:
            raise DajError(f"max_tests_mib is {max_tests_mib}; wanted at least 1.")
        self.problems = problems
        self.candidates = candidates
        self.platforms = tuple(platforms)
        self.max_tests_mib = max_tests_mib
        self._hashes: dict[tuple[str, int, int], str] = {}

    def load(self) -> tuple[list[Problem], list[Candidate]]:
        problems = self.load_problems()
        known = {problem.problem_id for problem in problems if problem.platform in self.platforms}
        candidates, written = [], 0
        for number, row in iterate_jsonl(self.candidates, "candidates"):
            written += 1
            if row.get("problem_id") in known:
                candidates.append(candidate_from_row(row, f"{self.candidates}, line {number}"))
        if not candidates:
            raise DajError(
                f"none of the {written} candidates in {self.candidates} belongs to one of the {len(known)} "
                f"problems in {self.problems}: compare problem_id with question_id."
            )
        return problems, candidates

    def load_problems(self) -> list[Problem]:
        """Every row, checked, its private tests left on disk; those of other platforms are on no side."""
        problems: list[Problem] = []
        where: dict[str, str] = {}
        cache = TestCache()
        for path in local_files(self.problems, download=True):
            for row in official_rows(path):
                problem = problem_on_disk(row, self.max_tests_mib * MIB, cache)
                name = problem.problem_id
                if name in where:
                    raise DajError(f"row {name!r} stands twice: {where[name]}, and {row.where}. Remove one of them.")
                where[name] = row.where
                left_out = problem.platform not in self.platforms
                problems.append(replace(problem, split="none") if left_out else problem)
        return problems

    def description(self) -> dict[str, object]:
        """Names and hashes of the files; not whether their rows are any good."""
        try:
            problems = local_files(self.problems, download=False)
        except DajError:
            problems = []
        return {
            "source": "livecodebench",
            "problems": self.problems,
            "files": {path.name: self._sha256(path) for path in problems},
            "candidates": {self.candidates: self._sha256(Path(self.candidates))},
            "platforms": list(self.platforms),
        }

    def _sha256(self, path: Path) -> str | None:
        """Of a file as it stands; gigabytes are not read twice."""
        if not path.is_file():
            return None
        state = path.stat()
        key = (str(path), state.st_size, state.st_mtime_ns)
        if key not in self._hashes:
            self._hashes[key] = sha256_of(path) or ""
        return self._hashes[key]
