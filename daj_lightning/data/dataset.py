"""Preference pairs as token rows, encoded once."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from daj_lightning.judge import EncodedResponse, encode_prompt, encode_response, pad_right
from daj_lightning.records import DajError, JudgeBatch, Pair


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """One preference pair as token ids."""

    domain: int
    chosen: EncodedResponse
    rejected: EncodedResponse


class PairDataset:
    """Encoded pairs with a reference log-probability for each response; row i is sample i.

    Args:
        pairs: text.
        tokenizer: with a chat template.
        domains: names in the order that a batch's `domains` index.
        max_length: tokens of prompt and response together.
    Raises:
        DajError: a pair of a domain that `domains` lacks.
    """

    def __init__(
        self, pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, domains: Sequence[str], max_length: int
    ) -> None:
        check_domains(pairs, domains)
        index = {name: k for k, name in enumerate(domains)}
        self.pairs = list(pairs)
        self.pad_id: int = tokenizer.pad_token_id
        self.rows = [_encode(pair, tokenizer, index[pair.domain], max_length) for pair in pairs]
        self.reference_logp: Tensor | None = None
        """(S, 2) float32: chosen and rejected under the reference; set before training."""

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, sample_ids: Sequence[int]) -> JudgeBatch:
        """The samples as one padded batch."""
        rows = [self.rows[i] for i in sample_ids]
        ids = torch.tensor(list(sample_ids))
        input_ids, attention_mask, response_mask = pad_right(
            [*(row.chosen for row in rows), *(row.rejected for row in rows)], self.pad_id
        )
        reference = torch.zeros(len(rows), 2) if self.reference_logp is None else self.reference_logp[ids]
        return JudgeBatch(
            sample_ids=ids,
            domains=torch.tensor([row.domain for row in rows]),
            input_ids=input_ids,
            attention_mask=attention_mask,
            response_mask=response_mask,
            reference_logp=reference.T.reshape(-1),
        )

    @property
    def num_cut(self) -> int:
        """Rows that lost tokens to max_length."""
        return sum(response.num_cut > 0 for row in self.rows for response in (row.chosen, row.rejected))

    def fingerprint(self) -> str:
        """Names the token rows by their hash."""
        digest = hashlib.sha256()
        for row in self.rows:
            for response in (row.chosen, row.rejected):
                digest.update(repr((response.prompt_ids, response.response_ids)).encode())
        return digest.hexdigest()[:16]


def _encode(pair: Pair, tokenizer: PreTrainedTokenizerBase, domain: int, max_length: int) -> EncodedPair:
    prompt_ids = encode_prompt(tokenizer, pair.prompt)
    rows = [encode_response(tokenizer, prompt_ids, text, max_length) for text in (pair.chosen, pair.rejected)]
    shorter = min((row.prompt_ids for row in rows), key=len)  # both answer the same prompt
    chosen, rejected = (
        replace(row, prompt_ids=shorter, num_cut=row.num_cut + len(row.prompt_ids) - len(shorter)) for row in rows
    )
    return EncodedPair(domain, chosen, rejected)


def check_domains(pairs: Sequence[Pair], domains: Sequence[str]) -> None:
    unknown = sorted({pair.domain for pair in pairs} - set(domains))
    if unknown:
        raise DajError(
            f"samples of domain {unknown}, but data.domains lists {list(domains)}. Add the missing names there."
        )


def corrupt(pairs: Sequence[Pair], rates: Mapping[str, float], seed: int) -> list[Pair]:
    """Swap chosen and rejected in a share of the pairs of some domains.

    Args:
        rates: domain -> share of its pairs to swap, 0 to 1.
        seed: decides which.
    Raises:
        DajError: a domain that no pair has, or a share outside [0, 1].
    """
    unknown = sorted(set(rates) - {pair.domain for pair in pairs})
    bad = {name: rate for name, rate in rates.items() if not 0 <= rate <= 1}
    if unknown or bad:
        raise DajError(f"data.corrupt: no training pair of domain {unknown}, shares outside [0, 1]: {bad}. Correct it.")
    rng = random.Random(f"{seed}/corrupt")
    return [
        replace(pair, chosen=pair.rejected, rejected=pair.chosen)
        if rng.random() < rates.get(pair.domain, 0.0)
        else pair
        for pair in pairs
    ]
