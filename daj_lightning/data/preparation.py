"""What `prepare` is told: one record, which the manifest repeats."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from daj_lightning.data.responses import ResponseSource
from daj_lightning.data.sources import Source
from daj_lightning.execution import Limits
from daj_lightning.judge import PromptTemplate, Voting


@dataclass(frozen=True, slots=True)
class Preparation:
    """What `prepare` needs; part of the data module's arguments."""

    source: Source
    responses: ResponseSource
    template: str
    max_pairs_per_problem: int
    """(right, wrong) pairs of a training or meta problem; each is asked in both orders."""
    max_asked_pairs_per_problem: int
    """Of these, asked in `validate` and `test` for the selection accuracy."""
    voting: Voting
    num_workers: int
    """Candidates executed at once."""
    limits: Limits
    statement_similarity: float
    """Problems on two sides whose statements are at least this much alike are one problem; 0 < it <= 1."""
    seed: int

    def description(self) -> dict[str, Any]:
        """JSON that changes whenever the prepared files would."""
        return {
            "format": 4,  # of the files below; raise it whenever they change
            "source": self.source.description(),
            "responses": self.responses.description(),
            "template": PromptTemplate(self.template).text,
            "max_pairs_per_problem": self.max_pairs_per_problem,
            "max_asked_pairs_per_problem": self.max_asked_pairs_per_problem,
            "voting": vars(self.voting),
            "limits": dataclasses.asdict(self.limits),
            "statement_similarity": self.statement_similarity,
            "seed": self.seed,
        }
