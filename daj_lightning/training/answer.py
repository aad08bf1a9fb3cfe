"""The judge answers comparisons: chat, generate, parse."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from daj_lightning.judge import Judge, decode, encode_prompt, judge_response
from daj_lightning.records import Comparison, Judgment
from daj_lightning.rollout import Policy, Sampling, TransformersEngine


def answer(
    judge: Judge,
    tokenizer: PreTrainedTokenizerBase,
    comparisons: Sequence[Comparison],
    sampling: Sampling,
    version: int = 0,
) -> list[Judgment]:
    """One judgment for each comparison, in order; generated together, as one batch."""
    engine = TransformersEngine(len(comparisons))
    engine.connect(policy_of(judge, tokenizer))
    engine.sync(version)
    prompts = [encode_prompt(tokenizer, comparison.prompt) for comparison in comparisons]
    rollouts = engine.generate(prompts, sampling)
    texts = [decode(tokenizer, group[0].text_ids) for group in rollouts]
    return [judge_response(comparison, text) for comparison, text in zip(comparisons, texts, strict=True)]


def policy_of(judge: Judge, tokenizer: PreTrainedTokenizerBase) -> Policy:
    """The judge as engines see it."""
    return Policy(judge.policy, judge.base, tokenizer.eos_token_id, tokenizer.pad_token_id)
