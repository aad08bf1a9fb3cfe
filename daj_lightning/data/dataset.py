"""Preference pairs as token rows, encoded once.

Letters: S samples, n rows of tokens a sample.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from daj_lightning.judge import EncodedResponse, encode_prompt, encode_response, pad_right
from daj_lightning.records import Comparison, DajError, JudgeBatch, Pair, Unit

Encode = Callable[[PreTrainedTokenizerBase, str], list[int]]


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """One sample as token ids."""

    domain: int
    rows: tuple[EncodedResponse, ...]
    """(chosen, rejected) of a pair, else one."""
    reward: float | None
    """Of a single response: 1 for a chosen one, 0 for a rejected one."""


class PairDataset:
    """Samples made of preference pairs; row i is sample i.

    Args:
        pairs: text.
        tokenizer: with a chat template.
        domains: names in the order that a batch's `domains` index.
        max_length: tokens of prompt and response together.
        unit: "pair"; "chosen": of each pair the chosen response; "response": both responses as samples of their own.
        encode: a prompt's token ids, up to where the response starts; as a user's chat message unless given.
    Raises:
        DajError: a pair of a domain that `domains` lacks.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        tokenizer: PreTrainedTokenizerBase,
        domains: Sequence[str],
        max_length: int,
        unit: Unit = "pair",
        encode: Encode = encode_prompt,
    ) -> None:
        check_domains((pair.domain for pair in pairs), domains)
        self.pairs = list(pairs)
        self.unit = unit
        self.pad_id: int = tokenizer.pad_token_id
        self.samples: list[EncodedSample] = []
        for pair in pairs:
            domain = domains.index(pair.domain)
            chosen, rejected = _encode(pair, tokenizer, max_length, encode)
            if unit == "pair":
                self.samples.append(EncodedSample(domain, (chosen, rejected), None))
            elif unit == "chosen":
                self.samples.append(EncodedSample(domain, (chosen,), None))
            else:
                self.samples += [EncodedSample(domain, (chosen,), 1.0), EncodedSample(domain, (rejected,), 0.0)]
        self.reference_logp: Tensor | None = None
        """(S, n) float32: the rows of each sample under the reference; set before training, if it is asked for."""

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, sample_ids: Sequence[int]) -> JudgeBatch:
        """The samples as one padded batch."""
        samples = [self.samples[i] for i in sample_ids]
        ids = torch.tensor(list(sample_ids))
        input_ids, attention_mask, response_mask = pad_right([row for s in samples for row in s.rows], self.pad_id)
        return JudgeBatch(
            sample_ids=ids,
            domains=torch.tensor([sample.domain for sample in samples]),
            input_ids=input_ids,
            attention_mask=attention_mask,
            response_mask=response_mask,
            reference_logp=None if self.reference_logp is None else self.reference_logp[ids].flatten(),
            rewards=torch.tensor([sample.reward for sample in samples]) if self.unit == "response" else None,
        )

    @property
    def num_cut(self) -> int:
        """Rows that lost tokens to max_length."""
        return sum(row.num_cut > 0 for sample in self.samples for row in sample.rows)

    def description(self) -> str:
        """One line: how many, and what the length limit took."""
        num_rows = sum(len(sample.rows) for sample in self.samples)
        return f"{len(self)} samples ({self.unit}), {self.num_cut} of {num_rows} responses cut"

    def fingerprint(self) -> str:
        """Names the token rows by their hash."""
        digest = hashlib.sha256(b"" if self.unit == "pair" else self.unit.encode())
        for sample in self.samples:
            for row in sample.rows:
                digest.update(repr((row.prompt_ids, row.response_ids)).encode())
        return digest.hexdigest()[:16]


def _encode(
    pair: Pair, tokenizer: PreTrainedTokenizerBase, max_length: int, encode: Encode
) -> tuple[EncodedResponse, EncodedResponse]:
    prompt_ids = encode(tokenizer, pair.prompt)
    rows = [encode_response(tokenizer, prompt_ids, text, max_length) for text in (pair.chosen, pair.rejected)]
    shorter = min((row.prompt_ids for row in rows), key=len)  # both answer the same prompt
    chosen, rejected = (
        replace(row, prompt_ids=shorter, num_cut=row.num_cut + len(row.prompt_ids) - len(shorter)) for row in rows
    )
    return chosen, rejected


def check_domains(named: Iterable[str], domains: Sequence[str]) -> None:
    unknown = sorted(set(named) - set(domains))
    if unknown:
        raise DajError(
            f"samples of domain {unknown}, but data.domains lists {list(domains)}. Add the missing names there."
        )


Sample = TypeVar("Sample", Pair, Comparison)


def corrupt(samples: Sequence[Sample], rates: Mapping[str, float], seed: int) -> list[Sample]:
    """Turn round what is right in a share of the samples of some domains.

    Args:
        rates: domain -> share of its samples to swap, 0 to 1.
        seed: decides which; the two orders of one question share their fate.
    Raises:
        DajError: a domain that no sample has, or a share outside [0, 1].
    """
    unknown = sorted(set(rates) - {sample.domain for sample in samples})
    bad = {name: rate for name, rate in rates.items() if not 0 <= rate <= 1}
    if unknown or bad:
        raise DajError(
            f"data.corrupt: no training sample of domain {unknown}, shares outside [0, 1]: {bad}. Correct it."
        )
    rng = random.Random(f"{seed}/corrupt")
    is_swapped = [_draw(sample, rng, seed) < rates.get(sample.domain, 0.0) for sample in samples]
    return [_swapped(sample) if swap else sample for sample, swap in zip(samples, is_swapped, strict=True)]


def set_aside(samples: Sequence[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """The samples of most problems, and those of a share of the problems drawn by `seed`; none where share is 0.

    By problem, because two questions about one problem are nearly the same question.

    Raises:
        DajError: a side would be empty.
    """
    problems = sorted({sample.problem_id for sample in samples})
    number = round(share * len(problems))
    if share and not 0 < number < len(problems):
        raise DajError(
            f"data.meta_validation={share} sets aside {number} of {len(problems)} meta problems, which leaves a side "
            f"empty. Use another share, or more meta problems."
        )
    drawn = set(random.Random(f"{seed}/meta validation").sample(problems, number))
    return [s for s in samples if s.problem_id not in drawn], [s for s in samples if s.problem_id in drawn]


def _draw(sample: Pair | Comparison, rng: random.Random, seed: int) -> float:
    if isinstance(sample, Pair):
        return rng.random()
    return random.Random(f"{seed}/corrupt/{sample.problem_id}/{sorted(sample.candidate_ids)}").random()


def _swapped(sample: Sample) -> Sample:
    if isinstance(sample, Pair):
        return replace(sample, chosen=sample.rejected, rejected=sample.chosen)
    return replace(sample, passed=tuple(not passed for passed in sample.passed))
