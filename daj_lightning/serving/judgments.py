"""Every answer of the judge on disk as soon as it is known: no comparison is asked twice, whatever kills the run.

One JSON object a line, with the judge's text, so that the file is worth having: `evaluate` reads it too.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from daj_lightning.data.journal import Journal, read_checked
from daj_lightning.judge.selection import Answer
from daj_lightning.records import Comparison, DajError, Judgment

_KEYS = ("problem_id", "candidate_ids", "selection", "response", "made_by", "repeat", "prompt", "crc")
_BEGINS = '{"problem_id'


class Question(NamedTuple):
    """A comparison that is asked for the first, second, ... time."""

    comparison: Comparison
    repeat: int
    """How often the same pair was asked about in the same order before."""

    @property
    def key(self) -> tuple[str, tuple[str, ...], int]:
        return self.comparison.problem_id, self.comparison.candidate_ids, self.repeat

    @property
    def digest(self) -> str:
        """Changes with what the judge is shown."""
        return hashlib.sha256(self.comparison.prompt.encode()).hexdigest()[:16]


class Known(NamedTuple):
    """An answer that was given before."""

    answer: Answer
    too_long: bool
    """It was not asked, because the prompt does not fit into the judge's context; the answer is None."""


class Judgments:
    """The journal of answers beside a file of selections; a context manager.

    Args:
        path: of the file, new or to be continued.
        made_by: the judge. Answers do not depend on the strategy.
    Raises:
        DajError: answers of another judge, a damaged line, or another process that writes the file.
    """

    def __init__(self, path: Path, made_by: str) -> None:
        self.journal = Journal(path, "judgments", _KEYS, _BEGINS)
        self.made_by = made_by
        self.known: dict[tuple[str, tuple[str, ...], int], tuple[Known, str]] = {}
        """With the digest; the texts stay on disk."""

    def __enter__(self) -> Self:
        self.journal.__enter__()
        try:
            self._read()
        except BaseException:
            self.journal.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.journal.__exit__(kind, error, traceback)

    def _read(self) -> None:
        path = self.journal.path
        for number, row in read_checked(path, "judgments"):
            if row["made_by"] != self.made_by:
                raise DajError(
                    f"{path}, line {number} is a judgment of {row['made_by']!r}, and this is {self.made_by!r}. Name "
                    f"another output, or remove that file."
                )
            key = (row["problem_id"], tuple(row["candidate_ids"]), row["repeat"])
            self.known[key] = Known(row["selection"], row.get("too_long", False)), row["prompt"]

    def recall(self, question: Question) -> Known | None:
        """The answer, if it was given before.

        Raises:
            DajError: it was given to another text of the same problem.
        """
        if question.key not in self.known:
            return None
        known, digest = self.known[question.key]
        if digest != question.digest:
            raise DajError(
                f"{self.journal.path} holds judgments of {question.comparison.problem_id!r} about other programs, "
                f"another statement or another template. Name another output, or remove that file."
            )
        return known

    def keep(self, question: Question, judgment: Judgment | None) -> None:
        """An answer; None where the prompt was too long to ask."""
        self.journal.append(
            {
                "problem_id": question.comparison.problem_id,
                "candidate_ids": list(question.comparison.candidate_ids),
                "selection": judgment and judgment.selection,
                "response": judgment.response if judgment else "",
                "made_by": self.made_by,
                "repeat": question.repeat,
                "prompt": question.digest,
                **({} if judgment else {"too_long": True}),
            }
        )
