"""Comparisons with their judged responses, on disk: responses-train.jsonl and responses-meta.jsonl.

One row a comparison: the comparison whole (prompt, candidates, which of them passed), who wrote the
responses, and each response with its selection and reward. Pairs are picked from these rows; an objective
of single responses reads the same rows through `read_judged`.

Sampling costs hours, so a row is written once its batch is there, and never sampled again: a killed run
goes on where it stopped, and rows that the configuration no longer asks for move to
responses-<split>.unused.jsonl, from where another configuration takes them back. A row is found by a hash of
the comparison and of the source's description, so that nothing of another model or prompt passes for it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from daj_lightning.data.journal import Journal, read_checked
from daj_lightning.data.responses import Responses, ResponseSource
from daj_lightning.data.rows import comparison_from_row, from_row
from daj_lightning.judge import judge_response
from daj_lightning.records import Comparison, DajError

_KEY = re.compile(rb'\{"key": "([0-9a-f]{24})", .*\}\n')


@dataclass(frozen=True, slots=True)
class JudgedResponse:
    """One response with what it selected and earned."""

    text: str
    finish_reason: str
    """"stop", or "length": cut off at the limit of new tokens."""
    selection: int | None
    """0-based index into the comparison's candidates; None for a format error."""
    reward: float
    """1, 0.5 or 0 (paper, Eq. 1)."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A comparison and all responses to it: one row of responses-<split>.jsonl."""

    key: str
    """Of the comparison and the source."""
    comparison: Comparison
    source: str
    """"templated", or the judge model's name."""
    sampling: str
    """How the model decoded; empty for templates."""
    too_long: str
    """Why the comparison was not asked; empty mostly."""
    responses: tuple[JudgedResponse, ...]


def ask(comparisons: Sequence[Comparison], source: ResponseSource) -> list[Judged]:
    """One batch: respond, parse, reward."""
    description = source.description()
    name = str(description.get("model", description["responses"]))
    sampling = str(description.get("sampling", ""))
    return [
        Judged(key_of(comparison, description), comparison, name, sampling, answer.too_long, _judge(comparison, answer))
        for comparison, answer in zip(comparisons, source.respond(comparisons), strict=True)
    ]


def _judge(comparison: Comparison, answer: Responses) -> tuple[JudgedResponse, ...]:
    judgments = [judge_response(comparison, response.text) for response in answer.responses]
    return tuple(
        JudgedResponse(response.text, response.finish_reason, judgment.selection, judgment.reward)
        for response, judgment in zip(answer.responses, judgments, strict=True)
    )


def key_of(comparison: Comparison, description: Mapping[str, object]) -> str:
    named = json.dumps([description, dataclasses.asdict(comparison)], sort_keys=True)
    return hashlib.sha256(named.encode()).hexdigest()[:24]


def read_judged(path: str | Path) -> Iterator[Judged]:
    """The rows of responses-<split>.jsonl, one at a time.

    Raises:
        DajError: no such file, a damaged row, or one of another version.
    """
    for number, row in read_checked(path, "responses"):
        yield judged_from_row(row, f"{path}, line {number}")


def judged_from_row(row: Mapping[str, Any], where: str) -> Judged:
    judged = from_row(Judged, row, where)
    responses = tuple(from_row(JudgedResponse, response, where) for response in row["responses"])
    return dataclasses.replace(judged, comparison=comparison_from_row(row["comparison"], where), responses=responses)


class ResponseLog:
    """The journal of one split, and beside it what earlier configurations asked; a context manager.

    Holds the place of each row in memory, never the rows.

    Args:
        directory: of the prepared files.
        split: "train" or "meta".
    Raises:
        DajError: another process writes the file, or a line is no row; only the last may be torn, and is cut off.
    """

    def __init__(self, directory: Path, split: str) -> None:
        self.path = directory / f"responses-{split}.jsonl"
        self.unused = directory / f"responses-{split}.unused.jsonl"

    def __enter__(self) -> Self:
        self._open = ExitStack()
        self._journal = self._open.enter_context(Journal(self.path, "responses"))
        self._order = [key for key, _ in _places(self.path)]
        self._places = {key: (path, offset) for path in (self.unused, self.path) for key, offset in _places(path)}
        self._readers: dict[Path, BinaryIO] = {}
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def append(self, judged: Judged) -> None:
        self._places[judged.key] = (self.path, self.path.stat().st_size)
        self._order.append(judged.key)
        self._journal.append(dataclasses.asdict(judged))

    def _line(self, key: str) -> bytes:
        path, offset = self._places[key]
        if path not in self._readers:
            self._readers[path] = self._open.enter_context(path.open("rb"))
        self._readers[path].seek(offset)
        return self._readers[path].readline()

    def settle(self, asked: Sequence[str]) -> None:
        """Leave exactly the rows of `asked`, in that order, and close; the others move to the unused ones."""
        if self._order != list(asked):
            wanted = set(asked)
            rest = [key for key in self._places if key not in wanted]
            # First the unused ones: a kill between the two leaves a row twice, never nowhere.
            for path, keys in ((self.unused, rest), (self.path, asked)):
                with _beside(path).open("wb") as file:
                    file.writelines(self._line(key) for key in keys)
            for path in (self.unused, self.path):
                os.replace(_beside(path), path)
            if not rest:
                self.unused.unlink()
        self._open.close()


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _places(path: Path) -> Iterator[tuple[str, int]]:
    """Key and offset of each row."""
    if not path.is_file():
        return
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            found = _KEY.fullmatch(line)
            if found is None:
                raise DajError(
                    f"responses: {path}, line {number} is no row of `pairs`. Delete that line, and it is sampled "
                    f"again; or move the file away, and all are."
                )
            yield found[1].decode(), offset
            offset += len(line)
