"""Preference files of any origin: prompt, chosen, rejected as text or as chat messages, or our own prepared pairs.

The columns are those of TRL's preference data, with or without a prompt of its own; without one the prompt is what
chosen and rejected begin with. A row that is no preference stops the reading; one that says nothing (both answers
alike, an empty answer) stays, with the reason why it cannot be used, so that no row is lost on the way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from daj_lightning.data.jsonl import iterate_jsonl
from daj_lightning.records import DajError, Pair

_DOMAIN_COLUMNS = ("domain", "source")
_PREPARED = {field.name for field in fields(Pair)}
NO_DOMAIN = "(none)"


class Message(NamedTuple):
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Preference:
    """One row of a preference file."""

    row: int
    """From 1; of JSON Lines the number of the line."""
    id: str
    """The file's own name for it, else the row's number."""
    domain: str
    prompt: str | tuple[Message, ...]
    """Text that the answers go on from, or the chat that they answer."""
    chosen: str
    rejected: str
    problem: str = ""
    """Why the row cannot be used; empty mostly."""

    @property
    def prompt_text(self) -> str:
        """For a reader: of a chat every message under its role, of a single user message the content alone."""
        if isinstance(self.prompt, str):
            return self.prompt
        if len(self.prompt) == 1 and self.prompt[0].role == "user":
            return self.prompt[0].content
        return "\n\n".join(f"{message.role}: {message.content}" for message in self.prompt)


def read_preferences(
    path: str | Path, what: str, id_column: str | None = None, domain_column: str | None = None
) -> list[Preference]:
    """All rows of a JSON Lines or parquet file, in order.

    Args:
        what: the file's part, for errors: "data" or "meta".
        id_column: "id" unless given, if the file has it.
        domain_column: "domain" or "source" unless given, if the file has one.
    Raises:
        DajError: the file cannot be read or is empty, a row is no preference, or rows are of several kinds.
    """
    preferences: list[Preference] = []
    for number, row in _rows(Path(path), what):
        where = f"{what}: {path}, row {number}"
        try:
            json.dumps(row, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError as error:
            raise DajError(f"{where} holds half a character (a lone surrogate). Repair or remove it.") from error
        preference = _preference(row, number, where, id_column, domain_column)
        if preferences and isinstance(preference.prompt, str) != isinstance(preferences[0].prompt, str):
            kinds = ("text", "chat messages")
            first, this = (kinds[not isinstance(p.prompt, str)] for p in (preferences[0], preference))
            raise DajError(f"{where} holds {this}, and the rows before it {first}. Put them into files of their own.")
        preferences.append(preference)
    if not preferences:
        raise DajError(f"{what}: {path} has no row. Give a file of preferences: prompt, chosen, rejected.")
    return preferences


def _rows(path: Path, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    if not (path.is_file() and _is_parquet(path)):
        yield from iterate_jsonl(path, what)
        return
    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    # A column that a row leaves out comes as null.
                    yield number, {name: value for name, value in row.items() if value is not None}
    except (pa.ArrowException, OSError) as error:
        raise DajError(f"{what}: {path} is no parquet file that can be read: {error}.") from error


def _is_parquet(path: Path) -> bool:
    """By its first bytes, whatever its name."""
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _preference(
    row: Mapping[str, Any], number: int, where: str, id_column: str | None, domain_column: str | None
) -> Preference:
    for name in ("chosen", "rejected", *filter(None, (id_column, domain_column))):
        if name not in row:
            raise DajError(f"{where} has no {name!r}; it has {sorted(row)}. Every row needs chosen and rejected.")
    chosen, rejected, prompt = row["chosen"], row["rejected"], row.get("prompt")
    prepared = row.keys() == _PREPARED
    if isinstance(chosen, str) and isinstance(rejected, str):
        if not isinstance(prompt, str | None):
            raise DajError(f"{where}: chosen and rejected are text, but prompt is a {type(prompt).__name__}.")
        parts = _split_text(prompt, chosen, rejected)
        if prepared:  # the judge is asked in a chat message
            parts = parts._replace(prompt=(Message("user", row["prompt"]),))
    elif isinstance(chosen, list) and isinstance(rejected, list):
        # As TRL reads it: a text beside two chats repeats what these begin with.
        asked = _messages(prompt, f"{where}, prompt") if isinstance(prompt, list) else None
        parts = _split_chats(asked, *(_messages(row[name], f"{where}, {name}") for name in ("chosen", "rejected")))
    else:
        kinds = f"chosen is a {type(chosen).__name__} and rejected a {type(rejected).__name__}"
        raise DajError(f"{where}: {kinds}; wanted two texts, or two lists of {{role, content}}.")
    domain_column = domain_column or next((name for name in _DOMAIN_COLUMNS if name in row), None)
    id_column = id_column or ("problem_id" if prepared else "id")
    return Preference(
        row=number,
        id=str(row.get(id_column, number)),
        domain=NO_DOMAIN if domain_column is None else str(row[domain_column]),
        prompt=parts.prompt,
        chosen=parts.chosen,
        rejected=parts.rejected,
        problem=parts.problem or _says_nothing(parts),
    )


class _Parts(NamedTuple):
    prompt: str | tuple[Message, ...]
    chosen: str
    rejected: str
    problem: str = ""


def _split_text(prompt: str | None, chosen: str, rejected: str) -> _Parts:
    """Without a prompt of their own, both begin with it; a space before the difference belongs to the answers."""
    if prompt is not None:
        return _Parts(prompt, chosen, rejected)
    shared = chosen[: _num_shared(chosen, rejected)].removesuffix(" ")
    return _Parts(shared, chosen[len(shared) :], rejected[len(shared) :])


def _split_chats(
    asked: tuple[Message, ...] | None, chosen: tuple[Message, ...], rejected: tuple[Message, ...]
) -> _Parts:
    if asked is None:
        shared = _num_shared(chosen, rejected)
        if shared == min(len(chosen), len(rejected)) > 0:
            shared -= 1  # two equal chats still have answers, if equal ones
        asked, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    texts = ["\n\n".join(message.content for message in answer) for answer in (chosen, rejected)]
    problem = ""
    for answer in (chosen, rejected):
        roles = [message.role for message in answer]
        if roles != ["assistant"]:
            problem = f"after the prompt comes {roles or 'nothing'}; wanted one message of the assistant"
    return _Parts(asked, texts[0], texts[1], problem)


def _num_shared(a: Sequence[Any], b: Sequence[Any]) -> int:
    """What both begin with."""
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _messages(value: Any, where: str) -> tuple[Message, ...]:
    messages = []
    for k, turn in enumerate(value, start=1):
        role, content = (turn.get(key) for key in Message._fields) if isinstance(turn, dict) else (None, None)
        if not (isinstance(role, str) and isinstance(content, str)):
            raise DajError(f"{where}, message {k} is {str(turn)[:80]!r}; wanted {{role, content}}, both text.")
        messages.append(Message(role, content))
    return tuple(messages)


def _says_nothing(parts: _Parts) -> str:
    for name, answer in (("chosen", parts.chosen), ("rejected", parts.rejected)):
        if not answer.strip():
            return f"the {name} answer is empty"
    if parts.chosen == parts.rejected:
        return "chosen and rejected are the same"
    return "" if parts.prompt else "it has no prompt, and chosen and rejected share no beginning"
