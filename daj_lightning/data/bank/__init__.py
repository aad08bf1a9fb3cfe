"""The bundled problem bank: problems and candidate programs made from a seed, in LiveCodeBench's schema.

Small enough to run anywhere, shaped like the real thing: two platforms, three difficulties, three
periods, policies that err in different ways. No label is stored; execution decides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from daj_lightning.data.bank import candidates as _candidates
from daj_lightning.data.bank import rows as _rows
from daj_lightning.data.bank.families import FAMILIES_BY_NAME
from daj_lightning.records import Candidate, DajError

FAMILIES: tuple[str, ...] = tuple(FAMILIES_BY_NAME)
"""Names of the families."""
POLICIES: tuple[str, ...] = tuple(_candidates.POLICIES)
"""Names of the policies: "weak" makes gross mistakes, "strong" subtle ones, "hasty" stops too early."""


def bank_rows(*, num_problems: int = 240, seed: int = 0) -> list[dict[str, str]]:
    """LiveCodeBench rows, the same for the same arguments; 120 or more bring every family into every period.

    Raises:
        DajError: more problems asked for than there are different ones.
    """
    return _rows.make_rows(tuple(FAMILIES_BY_NAME.values()), num_problems, seed)


def bank_candidates(row: Mapping[str, str], *, policy: str, num_candidates: int, seed: int = 0) -> list[Candidate]:
    """Different programs for a row of the bank, the same for the same arguments.

    Raises:
        DajError: the row is not the bank's, the policy is unknown, or it has not that many programs to offer.
    """
    name = json.loads(row["metadata"] or "{}").get("bank", {}).get("family")
    if name not in FAMILIES_BY_NAME:
        raise DajError(
            f"{row['question_id']}: its metadata name the family {name!r}; the bank writes candidates "
            f"only for its own rows, of {', '.join(FAMILIES)}. Give a row of bank_rows."
        )
    return _candidates.write_candidates(FAMILIES_BY_NAME[name], row, policy, num_candidates, seed)


__all__ = ["FAMILIES", "POLICIES", "bank_candidates", "bank_rows"]
