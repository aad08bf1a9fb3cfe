"""From verdicts to what the judge sees: comparisons, and preference pairs with their responses.

Pairs of candidates where both or neither pass teach nothing and are left out of training. Every mixed
pair appears in both orders, so that a position never gives the answer away.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import torch

from daj_lightning.judge import (
    PromptTemplate,
    Voting,
    decode,
    encode_prompt,
    judge_response,
    load_tokenizer,
    selection_tag,
)
from daj_lightning.judge.model import load_causal_lm
from daj_lightning.judge.verdict import REWARD_CORRECT
from daj_lightning.records import Candidate, Comparison, DajError, Pair, Problem
from daj_lightning.rollout import Sampling, TransformersEngine


def mixed_comparisons(
    problem: Problem,
    candidates: Sequence[Candidate],
    passed: Mapping[str, bool],
    template: PromptTemplate,
    max_pairs: int,
    seed: int,
) -> list[Comparison]:
    """Up to `max_pairs` (right, wrong) pairs of a problem, each in both orders."""
    right = [c for c in candidates if passed[c.candidate_id]]
    wrong = [c for c in candidates if not passed[c.candidate_id]]
    pairs = list(itertools.product(right, wrong))
    random.Random(f"{seed}/mixed/{problem.problem_id}").shuffle(pairs)
    orders = [order for pair in pairs[:max_pairs] for order in (pair, pair[::-1])]
    return [compare(problem, order, passed, template, "mixed") for order in orders]


def voting_comparisons(
    problem: Problem,
    candidates: Sequence[Candidate],
    passed: Mapping[str, bool],
    template: PromptTemplate,
    voting: Voting,
) -> list[Comparison]:
    """The rounds of the paper's voting for one problem, whoever passes."""
    rounds = voting.draw(len(candidates), problem.problem_id)
    return [compare(problem, [candidates[i], candidates[j]], passed, template, "round") for i, j in rounds]


def compare(
    problem: Problem,
    candidates: Sequence[Candidate],
    passed: Mapping[str, bool],
    template: PromptTemplate,
    kind: str,
) -> Comparison:
    return Comparison(
        problem_id=problem.problem_id,
        domain=problem.domain,
        difficulty=problem.difficulty,
        policy="+".join(sorted({c.policy for c in candidates})),
        candidate_ids=tuple(c.candidate_id for c in candidates),
        passed=tuple(passed[c.candidate_id] for c in candidates),
        prompt=template.fill(problem, candidates),
        kind=kind,
    )


class ResponseSource(Protocol):
    """Who writes the judge responses that become preference pairs."""

    def respond(self, comparisons: Sequence[Comparison]) -> list[list[str]]:
        """Several responses to each comparison."""
        ...

    def description(self) -> dict[str, object]: ...


class TemplatedResponses:
    """Responses written from templates: one for each possible selection, and now and then a format error.

    For a judge that cannot reason yet (a random-init model). The wording is drawn independently of which
    candidate is right, so that only the selection differs between chosen and rejected.

    Args:
        format_error_rate: share of comparisons whose wrong response breaks the format instead.
        seed: of the wording.
    """

    WORDINGS = ("I traced both programs.", "Checked each line.", "Edge cases decide here.", "One of them fails.")

    def __init__(self, format_error_rate: float = 0.05, seed: int = 0) -> None:
        if not 0 <= format_error_rate <= 1:
            raise DajError(f"format_error_rate is a share between 0 and 1, got {format_error_rate}.")
        self.format_error_rate = format_error_rate
        self.seed = seed

    def respond(self, comparisons: Sequence[Comparison]) -> list[list[str]]:
        return [self._respond(c) for c in comparisons]

    def _respond(self, comparison: Comparison) -> list[str]:
        rng = random.Random(f"{self.seed}/{'/'.join(comparison.candidate_ids)}")
        wording = rng.choice(self.WORDINGS)
        responses = [f"{wording} {selection_tag(k)}" for k in range(len(comparison.passed))]
        if rng.random() < self.format_error_rate:
            wrong = comparison.passed.index(False)
            responses[wrong] = f"{wording} {wrong + 1}"
        return responses

    def description(self) -> dict[str, object]:
        return {"responses": "templated", **vars(self)}


class SampledResponses:
    """Responses sampled from a judge model itself (the paper's way).

    Args:
        model: directory or hub name of an instruct model.
        num_responses: sampled for each comparison.
        temperature: of the draws.
        max_new_tokens: per response.
        batch_size: prompts generated together.
        seed: of the draws.
    """

    def __init__(
        self,
        model: str,
        num_responses: int = 8,
        temperature: float = 1.0,
        max_new_tokens: int = 2048,
        batch_size: int = 8,
        seed: int = 0,
    ) -> None:
        self.model = model
        self.batch_size = batch_size
        self.sampling = Sampling(max_new_tokens, temperature, num_samples=num_responses, seed=seed)

    def respond(self, comparisons: Sequence[Comparison]) -> list[list[str]]:
        tokenizer = load_tokenizer(self.model)
        model = load_causal_lm(self.model, "bfloat16", "sdpa")
        if torch.cuda.is_available():
            model.to("cuda")  # type: ignore[arg-type]  # transformers wraps the method
        engine = TransformersEngine(model, tokenizer.eos_token_id, tokenizer.pad_token_id, self.batch_size)
        prompts = [encode_prompt(tokenizer, c.prompt) for c in comparisons]
        rollouts = engine.generate(prompts, self.sampling)
        return [[decode(tokenizer, rollout.token_ids) for rollout in group] for group in rollouts]

    def description(self) -> dict[str, object]:
        return {
            "responses": "sampled",
            "model": self.model,
            "sampling": repr(self.sampling),
            "batch_size": self.batch_size,
        }


def preference_pairs(comparisons: Sequence[Comparison], source: ResponseSource) -> list[Pair]:
    """One pair for each comparison whose responses hold a correct selection and something else.

    Chosen: the first correct selection. Rejected: the first wrong selection or format error; both are
    treated alike (paper, section 3).
    """
    pairs = []
    for comparison, responses in zip(comparisons, source.respond(comparisons), strict=True):
        judged = [judge_response(comparison, response) for response in responses]
        chosen = _first(j.response for j in judged if j.reward == REWARD_CORRECT)
        rejected = _first(j.response for j in judged if j.reward < REWARD_CORRECT)
        if chosen is not None and rejected is not None:
            pairs.append(
                Pair(
                    problem_id=comparison.problem_id,
                    domain=comparison.domain,
                    candidate_ids=comparison.candidate_ids,
                    prompt=comparison.prompt,
                    chosen=chosen,
                    rejected=rejected,
                )
            )
    return pairs


def _first(responses: Iterable[str]) -> str | None:
    return next(iter(responses), None)
