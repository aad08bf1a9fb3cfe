"""Rows of JSON as records, field by field and strictly: a row of another version is an error, not a guess."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from daj_lightning.data.jsonl import read_jsonl
from daj_lightning.records import Comparison, DajError, Pair, Provenance, ReferenceUse

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")


def from_row(record: type[Record], row: Any, where: str) -> Record:
    """The record that a row spells out; lists and nested rows stay what JSON made of them.

    Raises:
        DajError: a field is missing or unknown, so that another version wrote the row.
    """
    if not isinstance(row, dict):
        raise DajError(f"{where} holds a {type(row).__name__}, wanted the fields of a {record.__name__}.")
    fields = {field.name for field in dataclasses.fields(record)}
    if row.keys() != fields:
        raise DajError(
            f"{where} is no {record.__name__} of this version: it lacks {sorted(fields - row.keys())} and has "
            f"{sorted(row.keys() - fields)} too many. Write the file again: `python -m daj_lightning pairs`."
        )
    return record(**row)


def comparison_from_row(row: Mapping[str, Any], where: str) -> Comparison:
    read = from_row(Comparison, row, where)
    return dataclasses.replace(
        read,
        candidate_ids=tuple(read.candidate_ids),
        passed=tuple(read.passed),
        reference_use=ReferenceUse(read.reference_use),
    )


def pair_from_row(row: Mapping[str, Any], where: str) -> Pair:
    """Of a prepared file: with its provenance."""
    read = from_row(Pair, row, where)
    came_from = from_row(Provenance, row["provenance"], f"{where}, provenance")
    came_from = dataclasses.replace(came_from, reference_use=ReferenceUse(came_from.reference_use))
    return dataclasses.replace(read, candidate_ids=tuple(read.candidate_ids), provenance=came_from)


def read_pairs(path: str | Path) -> list[Pair]:
    return [pair_from_row(row, f"{path}, row {n}") for n, row in enumerate(read_jsonl(path, "pairs"), start=1)]


def read_comparisons(path: str | Path) -> list[Comparison]:
    rows = read_jsonl(path, "comparisons")
    return [comparison_from_row(row, f"{path}, row {n}") for n, row in enumerate(rows, start=1)]
