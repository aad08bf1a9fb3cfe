"""What vLLM is asked, and what of its answers may be believed.

The fields are those of its SamplingParams and of /v1/completions alike.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from daj_lightning.records import DajError
from daj_lightning.rollout.engine import Rollout, RolloutError, Sampling

LOWEST_TEMPERATURE = 0.01
"""Below it, and above 0, vLLM silently takes 0.01."""
_HIGHEST_LOGP = 1e-3
_LOWEST_LOGP = -9999.0
"""vLLM writes it for minus infinity."""


class Wanted(NamedTuple):
    """What an answer is checked against."""

    name: str
    """Of the adapter, or of the base."""
    version: int
    vocab_size: int
    """Rows of the embedding."""
    eos_token_id: int
    sampling: Sampling


def has_logps(sampling: Sampling) -> bool:
    """Whether vLLM can tell log-probabilities of the full distribution at the temperature.

    What it calls processed comes after penalties, cut by top-p and top-k and renormalised; what it calls raw is at
    temperature 1.
    """
    return sampling.top_p == 1 and sampling.top_k == 0 and sampling.repetition_penalty == 1


def request_fields(sampling: Sampling, eos_token_id: int) -> dict[str, Any]:
    """How to decode, nothing left to the server's defaults.

    No seed: vLLM's CPU engine ends at a seeded batch of some size.
    """
    return {
        "n": sampling.num_samples,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": 0.0,
        "repetition_penalty": sampling.repetition_penalty,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "max_tokens": sampling.max_new_tokens,
        "ignore_eos": True,  # the base's config may name several; the tokenizer's end of turn is the only one here
        "stop_token_ids": [eos_token_id],
        "logprobs": 0 if has_logps(sampling) else None,  # 0: of the drawn token alone
    }


def check_request(prompts: Sequence[Sequence[int]], sampling: Sampling, max_model_len: int, vocab_size: int) -> None:
    """Refuse what vLLM would refuse, cut, or decode otherwise.

    Raises:
        RolloutError: a prompt is empty, too long, or has tokens that the model does not know.
        DajError: a temperature that vLLM replaces.
    """
    if 0 < sampling.temperature < LOWEST_TEMPERATURE:
        raise DajError(
            f"vLLM takes {LOWEST_TEMPERATURE} for every temperature below it; got {sampling.temperature}. "
            f"Set 0 for greedy decoding."
        )
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise RolloutError(f"prompt {index} has no tokens; there is nothing to continue.")
        if len(prompt) + sampling.max_new_tokens > max_model_len:
            raise RolloutError(
                f"prompt {index} has {len(prompt)} tokens, with max_new_tokens={sampling.max_new_tokens} more than "
                f"vLLM's max_model_len={max_model_len}. Shorten one, or raise max_model_len of the rollout engine."
            )
        if not 0 <= min(prompt) <= max(prompt) < vocab_size:
            raise RolloutError(
                f"prompt {index} has token ids from {min(prompt)} to {max(prompt)}; the model knows 0 to "
                f"{vocab_size - 1}. Does the tokenizer belong to the judge's base?"
            )


def read_answer(body: bytes, prompts: Sequence[Sequence[int]], wanted: Wanted) -> list[list[Rollout]]:
    """The rollouts in an answer of /v1/completions, in the prompts' order.

    Raises:
        RolloutError: it is no answer to this request, or not from this version.
    """
    n = wanted.sampling.num_samples
    try:
        answer = json.loads(body)
        name, choices = answer["model"], answer["choices"]
        fields = [_Choice(*(choice[key] for key in _Choice._fields)) for choice in choices]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        shown = body[:300].decode("utf-8", "replace")
        raise RolloutError(f"the server answered no completions but {shown!r} ({error!r}). Is it vLLM?") from error
    if name != wanted.name:
        raise RolloutError(f"asked for rollouts of {wanted.name!r}, the server answered for {name!r}.")
    if len(fields) != n * len(prompts):
        raise RolloutError(f"asked for {len(prompts)} x {n} rollouts, the server answered {len(fields)}.")
    rollouts = []
    for place, choice in enumerate(fields):
        if choice.index != place or choice.prompt_token_ids != list(prompts[place // n]):
            raise RolloutError(f"rollout {place} of the server's answer has index {choice.index!r} or another prompt.")
        logps = choice.logprobs.get("token_logprobs") if isinstance(choice.logprobs, dict) else None
        rollouts.append(believe(choice.token_ids, logps, choice.finish_reason, wanted))
    return [rollouts[i : i + n] for i in range(0, len(rollouts), n)]


class _Choice(NamedTuple):
    index: Any
    prompt_token_ids: Any
    token_ids: Any
    logprobs: Any
    finish_reason: Any


def believe(token_ids: Any, logps: Any, finish_reason: Any, wanted: Wanted) -> Rollout:
    """One completion as a rollout.

    Raises:
        RolloutError: it cannot be one: wrong types, empty, ids that the model does not know, an end that is none.
    """
    problem = _problem(token_ids, logps, finish_reason, wanted)
    if problem:
        raise RolloutError(f"{wanted.name} answered a completion that no policy writes: {problem}.")
    if not has_logps(wanted.sampling):
        logps = [math.nan] * len(token_ids)
    return Rollout(tuple(token_ids), tuple(map(float, logps)), finish_reason, wanted.version)


def _problem(ids: Any, logps: Any, finish_reason: Any, wanted: Wanted) -> str | None:
    if not isinstance(ids, list) or not all(type(i) is int for i in ids):
        return f"its token ids are {str(ids)[:80]}"
    if not ids:
        return "it has no tokens"
    if not 0 <= min(ids) <= max(ids) < wanted.vocab_size:
        return f"token ids from {min(ids)} to {max(ids)}, of a vocabulary of {wanted.vocab_size}; another base?"
    ends = ids.index(wanted.eos_token_id) + 1 if wanted.eos_token_id in ids else None
    due = wanted.sampling.max_new_tokens if finish_reason == "length" else ends
    if finish_reason not in ("stop", "length") or len(ids) != due or (finish_reason == "length" and ends):
        return (
            f"it finished by {finish_reason!r} after {len(ids)} of {wanted.sampling.max_new_tokens} tokens, the end of "
            f"turn (token {wanted.eos_token_id}) {f'at {ends}' if ends else 'not among them'}"
        )
    if not has_logps(wanted.sampling):
        return None
    if not isinstance(logps, list) or len(logps) != len(ids):
        return f"{len(ids)} tokens with log-probabilities {str(logps)[:80]}"
    if not all(type(p) in (int, float) and _LOWEST_LOGP < p < _HIGHEST_LOGP for p in logps):
        return f"its log-probabilities are {str(logps)[:80]}"
    return None
