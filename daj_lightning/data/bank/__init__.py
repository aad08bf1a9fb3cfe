"""The bundled problem bank: problems and candidate programs made from a seed, in LiveCodeBench's schema.

Small enough to run anywhere, shaped like the real thing: two platforms, three difficulties, three
periods, policies that err in different ways. Families and mistakes that no training sees ask what a judge
learned beyond them. No label is stored; execution decides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from daj_lightning.data.bank import candidates as _candidates, rows as _rows
from daj_lightning.data.bank.families import FAMILIES_BY_NAME, UNSEEN_BY_NAME
from daj_lightning.records import Candidate, DajError

FAMILIES: tuple[str, ...] = tuple(FAMILIES_BY_NAME)
"""Names of the families of `bank_rows`."""
UNSEEN_FAMILIES: tuple[str, ...] = tuple(UNSEEN_BY_NAME)
"""Names of the families of `unseen_rows`: other tasks."""
POLICIES: tuple[str, ...] = tuple(_candidates.POLICIES)
"""Names of the policies: "weak" makes gross mistakes, "strong" subtle ones, "hasty" stops too early, and
"foreign" makes mutations that none of the others makes."""


def bank_rows(*, num_problems: int = 300, seed: int = 0) -> list[dict[str, str]]:
    """LiveCodeBench rows, the same for the same arguments; 150 or more bring every family into every period.

    Raises:
        DajError: more problems asked for than there are different ones.
    """
    return _rows.make_rows(tuple(FAMILIES_BY_NAME.values()), num_problems, seed)


def unseen_rows(*, num_problems: int = 60, seed: int = 0) -> list[dict[str, str]]:
    """LiveCodeBench rows of families that `bank_rows` never has, all of the test period.

    Raises:
        DajError: more problems asked for than there are different ones.
    """
    return _rows.make_rows(tuple(UNSEEN_BY_NAME.values()), num_problems, seed, unseen=True)


def bank_candidates(row: Mapping[str, str], *, policy: str, num_candidates: int, seed: int = 0) -> list[Candidate]:
    """Different programs for a row of the bank, the same for the same arguments.

    Raises:
        DajError: the row is not the bank's, the policy is unknown, or it has not that many programs to offer.
    """
    name = json.loads(row["metadata"] or "{}").get("bank", {}).get("family")
    families = {**FAMILIES_BY_NAME, **UNSEEN_BY_NAME}
    if name not in families:
        raise DajError(
            f"{row['question_id']}: its metadata name the family {name!r}; the bank writes candidates "
            f"only for its own rows, of {', '.join(families)}. Give a row of bank_rows or unseen_rows."
        )
    return _candidates.write_candidates(families[name], row, policy, num_candidates, seed)


__all__ = ["FAMILIES", "POLICIES", "UNSEEN_FAMILIES", "bank_candidates", "bank_rows", "unseen_rows"]
