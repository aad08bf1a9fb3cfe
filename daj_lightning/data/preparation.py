"""What `prepare` is told: one record, which the manifest repeats."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from daj_lightning.data.comparisons import References
from daj_lightning.data.jsonl import sha256_of
from daj_lightning.data.responses import ResponseSource
from daj_lightning.data.sources import Source
from daj_lightning.execution import Limits, Rules, Sandbox
from daj_lightning.judge import PromptTemplate, Voting
from daj_lightning.judge.prompts import NO_PLACE
from daj_lightning.records import DajError

OF_PAIRS = (
    "responses",
    "template",
    "max_pairs_per_problem",
    "max_asked_pairs_per_problem",
    "max_pairs_per_comparison",
    "swap",
    "references",
    "voting",
    "seed",
)
"""Parts of the description that leave the verdicts alone: `pairs` can change them without executing anything."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """What `prepare` needs; part of the data module's arguments."""

    source: Source
    responses: ResponseSource
    template: str
    max_pairs_per_problem: int
    """(right, wrong) pairs of a training or meta problem."""
    max_pairs_per_comparison: int
    """Preference pairs that the responses to one comparison may give."""
    swap: bool
    """Both orders of each (right, wrong) pair in train and meta; otherwise one, drawn."""
    references: References
    """Of the training comparisons."""
    max_asked_pairs_per_problem: int
    """Of these, asked in `validate` and `test` for the selection accuracy."""
    voting: Voting
    num_workers: int
    """Candidates executed at once."""
    limits: Limits
    rules: Rules
    """How LiveCodeBench's programs run: "process" or "official"."""
    python: str | None
    """Binary that candidates run under; None: this one."""
    unsafe_local: bool
    """Execute without isolation."""
    verdicts: str | None
    """File of labels (data/labels.py), imported or made by `label`: these candidates are not executed again."""
    statement_similarity: float
    """Problems on two sides whose statements are at least this much alike are one problem; 0 < it <= 1."""
    seed: int

    def __post_init__(self) -> None:
        if self.max_pairs_per_comparison < 1:
            raise DajError(f"max_pairs_per_comparison={self.max_pairs_per_comparison} must be >= 1.")
        if self.voting.both_orders or self.voting.min_confidence:
            raise DajError(
                "data.voting is the paper's: its rounds are drawn beforehand, in one order each, and somebody wins. "
                "Leave both_orders and min_confidence to `select`."
            )
        if self.references.support and not PromptTemplate(self.template).takes_reference:
            raise DajError(f"template {self.template!r}: {NO_PLACE}")

    def sandbox(self) -> Sandbox:
        """What candidates are executed in."""
        return Sandbox(self.limits, "unsafe-local" if self.unsafe_local else None, self.python)

    def labels_description(self) -> dict[str, Any]:
        """JSON that changes whenever the verdicts would."""
        return {key: value for key, value in self.description().items() if key not in OF_PAIRS}

    def verdicts_digest(self) -> str:
        """Of the content of the file of labels; empty without one."""
        if self.verdicts is None:
            return ""
        digest = sha256_of(self.verdicts)
        if digest is None:
            raise DajError(
                f"verdicts: no file {self.verdicts!r}. Give what `label` or `import` wrote, or leave it out."
            )
        return digest

    def description(self) -> dict[str, Any]:
        """JSON that changes whenever the prepared files would."""
        return {
            "format": 5,  # of the files below; raise it whenever they change
            "source": self.source.description(),
            "responses": self.responses.description(),
            "template": PromptTemplate(self.template).text,
            "max_pairs_per_problem": self.max_pairs_per_problem,
            "max_asked_pairs_per_problem": self.max_asked_pairs_per_problem,
            "max_pairs_per_comparison": self.max_pairs_per_comparison,
            "swap": self.swap,
            "references": dataclasses.asdict(self.references),
            "voting": {"rounds": self.voting.rounds, "seed": self.voting.seed},
            "limits": dataclasses.asdict(self.limits),
            "rules": self.rules,
            "python": self.python,
            "unsafe_local": self.unsafe_local,
            "verdicts": self.verdicts_digest(),
            "statement_similarity": self.statement_similarity,
            "seed": self.seed,
        }
