"""Comparisons as samples that the judge answers while it trains (GRPO).

A sample is one question, or one question in both orders of its candidates: then half of its group answers each
order, and a judge that only looks at positions earns half of the rewards wherever it looks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from daj_lightning.data.dataset import check_domains
from daj_lightning.judge import encode_prompt
from daj_lightning.records import Comparison, DajError, PromptBatch


class PromptDataset:
    """Encoded questions; row i is sample i.

    Args:
        comparisons: text, with which candidates passed.
        tokenizer: with a chat template.
        domains: names in the order that a batch's `domains` index.
        max_prompt_tokens: questions with longer prompts are left out, and counted.
        both_orders: a question and its mirror image are one sample.
    Raises:
        DajError: a domain that `domains` lacks, an order without its mirror image, or no prompt short enough.
    """

    def __init__(
        self,
        comparisons: Sequence[Comparison],
        tokenizer: PreTrainedTokenizerBase,
        domains: Sequence[str],
        max_prompt_tokens: int,
        both_orders: bool = False,
    ) -> None:
        check_domains((comparison.domain for comparison in comparisons), domains)
        self.domains = list(domains)
        groups = in_both_orders(comparisons) if both_orders else [(comparison,) for comparison in comparisons]
        encoded = [tuple(tuple(encode_prompt(tokenizer, c.prompt)) for c in group) for group in groups]
        fits = [max(map(len, prompts)) <= max_prompt_tokens for prompts in encoded]
        self.num_too_long = fits.count(False)
        self.comparisons = [group for group, fit in zip(groups, fits, strict=True) if fit]
        self.prompts = [prompts for prompts, fit in zip(encoded, fits, strict=True) if fit]
        if groups and not self.prompts:
            shortest = min(max(map(len, prompts)) for prompts in encoded)
            raise DajError(
                f"none of {len(groups)} prompts fits: the shortest has {shortest} tokens, and data.max_length leaves "
                f"{max_prompt_tokens} beside model.rollouts.max_new_tokens. Raise the first or lower the second."
            )

    def __len__(self) -> int:
        return len(self.prompts)

    def batch(self, sample_ids: Sequence[int]) -> PromptBatch:
        groups = [self.comparisons[i] for i in sample_ids]
        return PromptBatch(
            sample_ids=torch.tensor(list(sample_ids)),
            domains=torch.tensor([self.domains.index(group[0].domain) for group in groups]),
            comparisons=tuple(groups),
            prompts=tuple(self.prompts[i] for i in sample_ids),
        )

    def description(self) -> str:
        """One line: how many, and what the length limit took."""
        return f"{len(self)} samples (prompt), {self.num_too_long} left out as too long"

    def fingerprint(self) -> str:
        """Names the prompts, and what is right, by their hash."""
        digest = hashlib.sha256(b"prompts")
        for prompts, group in zip(self.prompts, self.comparisons, strict=True):
            digest.update(repr((prompts, [comparison.passed for comparison in group])).encode())
        return digest.hexdigest()[:16]


def in_both_orders(comparisons: Sequence[Comparison]) -> list[tuple[Comparison, ...]]:
    """Each question with its mirror image, in the order of first sight.

    Raises:
        DajError: a question that is asked in one order only.
    """
    groups: dict[tuple[str, frozenset[str]], list[Comparison]] = {}
    for comparison in comparisons:
        groups.setdefault((comparison.problem_id, frozenset(comparison.candidate_ids)), []).append(comparison)
    lonely = [group[0].candidate_ids for group in groups.values() if len(group) != 2]
    if lonely:
        raise DajError(
            f"data.both_orders: {len(lonely)} of {len(groups)} questions are there in one order only, first "
            f"{lonely[0]}. Prepare with data.swap=true, or leave data.both_orders out."
        )
    return [tuple(group) for group in groups.values()]
