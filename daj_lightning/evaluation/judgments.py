"""Files of judgments: what a judge answered, a row an answer.

`test`, `validate` and `select` write them, and another judge's answers in the same form stand in the same table:

    {"problem_id": ..., "candidate_ids": [first, second], "selection": 0 | 1 | null, "response": ..., "made_by": ...}

candidate_ids stand in the order in which the judge saw them; selection is the position of the one it selected, null a
format error. "kind" is optional: "mixed" (asked for the selection accuracy) or "round" (asked for Best-of-N); answers
without it serve both, so they must not be of mixed pairs alone. Further fields are left alone.

Most votes among them need not be what a strategy made of them. `select` says whom it picked, null where it abstained:

    {"problem_id": ..., "candidate_id": ... | null}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daj_lightning.data.jsonl import iterate_jsonl, write_jsonl
from daj_lightning.records import DajError, Judgment

KINDS = ("mixed", "round", "")


@dataclass(frozen=True, slots=True)
class Answer:
    """One row of a file of judgments."""

    problem_id: str
    candidate_ids: tuple[str, str]
    """In the order shown."""
    selection: int | None
    """0 or 1; None: a format error."""
    response: str
    made_by: str
    kind: str = ""
    """"mixed", "round", or empty: not said."""


def write_judgments(path: str | Path, judgments: Iterable[Judgment], made_by: str) -> int:
    """Judgments of comparisons of two candidates, in order; all of the file or none. Returns their number."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return write_jsonl(
        Path(path),
        (
            Answer(c.problem_id, (c.candidate_ids[0], c.candidate_ids[1]), j.selection, j.response, made_by, c.kind)
            for j in judgments
            if len((c := j.comparison).candidate_ids) == 2
        ),
    )


def read_judgments(path: str | Path) -> list[Answer]:
    """The rows of a file of judgments.

    Raises:
        DajError: no file, no row, or a row that is none; names the line.
    """
    answers = [answer_from_row(row, f"{path}, line {n}") for n, row in iterate_jsonl(path, "judgments")]
    if not answers:
        raise DajError(f"judgments: {str(path)!r} has no row.")
    return answers


def read_selections(path: str | Path) -> dict[str, str | None]:
    """problem id -> the candidate that was picked; None: it abstained.

    Raises:
        DajError: no file, no row, a row that is none, or a problem with two; names the line.
    """
    picked: dict[str, str | None] = {}
    for number, row in iterate_jsonl(path, "selections"):
        where = f"{path}, line {number}"
        name, candidate = row.get("problem_id"), row.get("candidate_id", 0)
        if not isinstance(name, str) or not (candidate is None or isinstance(candidate, str)):
            raise DajError(f"{where}: wanted problem_id and candidate_id (null: abstained), as `select` writes them.")
        if name in picked:
            raise DajError(f"{where}: there is a selection for problem {name!r} already.")
        picked[name] = candidate
    if not picked:
        raise DajError(f"selections: {str(path)!r} has no row.")
    return picked


def answer_from_row(row: Mapping[str, Any], where: str) -> Answer:
    missing = [key for key in ("problem_id", "candidate_ids", "selection") if key not in row]
    if missing:
        raise DajError(f"{where} lacks {missing}; wanted problem_id, candidate_ids ([first, second]) and selection.")
    ids, selection, kind = row["candidate_ids"], row["selection"], row.get("kind", "")
    if not isinstance(ids, list) or len(ids) != 2 or ids[0] == ids[1] or not all(isinstance(i, str) for i in ids):
        raise DajError(f"{where}: candidate_ids is {ids!r:.200}, wanted the ids of two candidates, in the order shown.")
    if selection is not None and (type(selection) is not int or selection not in (0, 1)):
        raise DajError(f"{where}: selection is {selection!r:.200}, wanted 0 (the first), 1 (the second) or null.")
    if kind not in KINDS:
        raise DajError(f"{where}: kind is {kind!r:.200}, wanted 'mixed' or 'round', or none.")
    response = row.get("response") or ""
    return Answer(str(row["problem_id"]), (ids[0], ids[1]), selection, str(response), str(row.get("made_by", "")), kind)
