"""Candidates on disk: one JSON row each, {problem_id, policy, code} and what else is known of it.

A response without a code block is kept with empty code: such a candidate cannot pass, and leaving it
out would flatter its policy. It gets its verdict unexecuted, and no judge is ever shown it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from daj_lightning.data.jsonl import iterate_jsonl
from daj_lightning.records import Candidate, DajError

FENCE = "```"
NO_CODE = "no code in the response"
"""What the verdict on such a candidate says."""
ROW_KEYS = ("problem_id", "policy", "code")
"""What every row has."""
ROW_BEGINS = '{"candidate_id": '
"""How the rows begin that are written here."""


def extract_code(response: str) -> str:
    """What stands between the last two lines with a code fence; empty if there are not two (LiveCodeBench's rule)."""
    lines = response.split("\n")
    fences = [number for number, line in enumerate(lines) if FENCE in line]
    return "\n".join(lines[fences[-2] + 1 : fences[-1]]) if len(fences) > 1 else ""


def has_code(candidate: Candidate) -> bool:
    return bool(candidate.code.strip())


def fingerprint(candidate: Candidate) -> str:
    """Of the program: the same code has the same one. 16 hexadecimal digits."""
    return hashlib.sha256(candidate.code.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def read_candidates(path: str | Path) -> Iterator[Candidate]:
    """The candidates of a JSON Lines file, one at a time; empty code is allowed.

    Without a candidate_id in its row a candidate is called "problem/policy/line".

    Raises:
        DajError: no file, or a row that is no candidate; names the line.
    """
    for number, row in iterate_jsonl(path, "candidates"):
        yield candidate_of(row, f"{path}, line {number}", f"line {number}")


def candidate_of(row: Mapping[str, Any], where: str, default_name: str) -> Candidate:
    missing = [field for field in ROW_KEYS if field not in row]
    if missing:
        raise DajError(f"{where}: a candidate lacks {missing}; wanted problem_id, policy and code.")
    wrong = [field for field in ROW_KEYS if not isinstance(row[field], str)]
    if wrong:
        raise DajError(f"{where}: {wrong[0]} is a {type(row[wrong[0]]).__name__}, wanted text.")
    name = str(row.get("candidate_id", f"{row['problem_id']}/{row['policy']}/{default_name}"))
    return Candidate(name, row["problem_id"], row["policy"], row["code"])
