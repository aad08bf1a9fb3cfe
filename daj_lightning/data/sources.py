"""Where problems and candidates come from: the bundled bank, or LiveCodeBench files on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

from daj_lightning.data import bank
from daj_lightning.data.bank import bank_candidates, bank_rows, unseen_rows
from daj_lightning.data.jsonl import read_jsonl
from daj_lightning.data.livecodebench import candidate_from_row, problem_from_row
from daj_lightning.data.splits import META_START
from daj_lightning.records import Candidate, DajError, Problem


class Source(Protocol):
    """The seam: everything that `prepare` needs of a benchmark."""

    def load(self) -> tuple[list[Problem], list[Candidate]]:
        """All problems, and all candidates for them."""
        ...

    def description(self) -> dict[str, object]:
        """What identifies this data, for the manifest: prepared data of another description is stale."""
        ...


class BankSource:
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


class LiveCodeBenchSource:
    """LiveCodeBench from local files: official rows, and candidates sampled beforehand.

    Args:
        problems: JSON Lines in the official schema (code_generation_lite, release_v6: 1,055 problems).
        candidates: JSON Lines of {problem_id, policy, code}.
        platforms: kept; the paper leaves Codeforces out "due to insufficient samples" (App. A).
    """

    def __init__(self, problems: str, candidates: str, platforms: tuple[str, ...] = ("atcoder", "leetcode")) -> None:
        self.problems = problems
        self.candidates = candidates
        self.platforms = tuple(platforms)

    def load(self) -> tuple[list[Problem], list[Candidate]]:
        rows = [row for row in read_jsonl(self.problems, "problems") if row.get("platform") in self.platforms]
        problems = [problem_from_row(row) for row in rows]
        known = {problem.problem_id for problem in problems}
        written = read_jsonl(self.candidates, "candidates")
        candidates = [
            candidate_from_row(row, f"{self.candidates}, line {n}")
            for n, row in enumerate(written, start=1)
            if row.get("problem_id") in known
        ]
        if not candidates:
            raise DajError(
                f"none of the {len(written)} candidates in {self.candidates} belongs to one of the {len(known)} "
                f"problems in {self.problems}: compare problem_id with question_id."
            )
        return problems, candidates

    def description(self) -> dict[str, object]:
        files = {path: _sha256(path) for path in (self.problems, self.candidates)}
        return {"source": "livecodebench", "files": files, "platforms": list(self.platforms)}


def _sha256(path: str) -> str | None:
    if not Path(path).is_file():
        return None
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
