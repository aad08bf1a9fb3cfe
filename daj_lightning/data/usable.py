"""Which comparisons gave preference pairs, and why the others did not: counted for each split and domain."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import Any

from rich.table import Table

from daj_lightning.data.judged import Judged
from daj_lightning.judge.verdict import REWARD_CORRECT, REWARD_FORMAT_ERROR
from daj_lightning.records import ReferenceUse


class Use(StrEnum):
    """What became of a comparison."""

    USED = "used"
    """It has a correct selection and something else: it gave a pair."""
    ALL_CORRECT = "all correct"
    ALL_WRONG = "all wrong"
    """No correct selection, and at least one wrong one."""
    ALL_FORMAT_ERRORS = "format errors"
    ALL_TRUNCATED = "cut off"
    """Format errors all of them, because no response ended within its limit of tokens."""
    NO_RESPONSE = "no response"
    TOO_LONG = "too long"
    """Not asked: the prompt leaves no room for a response."""


def use_of(judged: Judged) -> Use:
    if judged.too_long:
        return Use.TOO_LONG
    if not judged.responses:
        return Use.NO_RESPONSE
    rewards = {response.reward for response in judged.responses}
    if rewards == {REWARD_CORRECT}:
        return Use.ALL_CORRECT
    if REWARD_CORRECT in rewards:
        return Use.USED
    if rewards != {REWARD_FORMAT_ERROR}:
        return Use.ALL_WRONG
    if all(response.finish_reason == "length" for response in judged.responses):
        return Use.ALL_TRUNCATED
    return Use.ALL_FORMAT_ERRORS


class Report:
    """Counts of comparisons, pairs, rewards and references; one judged comparison at a time."""

    def __init__(self) -> None:
        self.uses: dict[str, dict[str, Counter[str]]] = {}
        """split -> domain -> use -> comparisons"""
        self.pairs: dict[str, Counter[str]] = {}
        """split -> domain -> pairs"""
        self.rewards: dict[str, Counter[str]] = {}
        """split -> reward -> responses"""
        self.references: dict[str, Counter[str]] = {}
        """split -> what became of reference support -> comparisons"""

    def count(self, split: str, judged: Judged, num_pairs: int) -> None:
        domain = judged.comparison.domain
        self.uses.setdefault(split, {}).setdefault(domain, Counter())[use_of(judged).value] += 1
        self.pairs.setdefault(split, Counter())[domain] += num_pairs
        self.rewards.setdefault(split, Counter()).update(f"{response.reward:g}" for response in judged.responses)
        self.references.setdefault(split, Counter())[judged.comparison.reference_use.value] += 1

    def as_json(self) -> dict[str, Any]:
        """For the manifest: split -> comparisons (domain -> use -> count), pairs, rewards, references."""
        return {
            split: {
                "comparisons": {domain: _sorted(counts) for domain, counts in sorted(domains.items())},
                "pairs": _sorted(self.pairs[split]),
                "rewards": _sorted(self.rewards[split]),
                "references": _sorted(self.references[split]),
            }
            for split, domains in self.uses.items()
        }

    def table(self) -> Table:
        """A row for each domain of each split; columns that are 0 throughout are left out."""
        totals = self.totals()
        shown = [use for use in Use if totals[use.value] or use is Use.USED]
        table = Table("split", "domain", "comparisons", "pairs", *shown, title="judge responses")
        for split, domains in self.uses.items():
            for domain, counts in sorted(domains.items()):
                cells = [f"{counts[use]}" for use in shown]
                table.add_row(split, domain, f"{counts.total()}", f"{self.pairs[split][domain]}", *cells)
        return table

    def totals(self, split: str | None = None) -> Counter[str]:
        """use -> comparisons, of one split or of all."""
        chosen = self.uses if split is None else {split: self.uses.get(split, {})}
        return sum((counts for domains in chosen.values() for counts in domains.values()), Counter())

    def lines(self) -> list[str]:
        """The rewards of each split's responses, if it has any, and what became of its reference support."""
        lines = []
        for split, counts in self.rewards.items():
            total = counts.total()
            if total:
                shares = ", ".join(f"{reward}: {counts[reward] / total:.1%}" for reward in ("1", "0.5", "0"))
                lines.append(f"{split}: rewards of {total} responses {shares}")
        for split, counts in self.references.items():
            if set(counts) - {ReferenceUse.NONE}:
                numbers = ", ".join(f"{use} {counts[use]}" for use in ReferenceUse)
                lines.append(f"{split}: references of {counts.total()} comparisons {numbers}")
        return lines


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))
