"""The judge answers comparisons: chat, generate, parse."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from daj_lightning.judge import Judge, decode, encode_prompt, judge_response
from daj_lightning.records import Comparison, Judgment
from daj_lightning.rollout import Sampling, TransformersEngine


def answer(
    judge: Judge,
    tokenizer: PreTrainedTokenizerBase,
    comparisons: Sequence[Comparison],
    sampling: Sampling,
    version: int = 0,
) -> list[Judgment]:
    """One judgment for each comparison, in order; generated together, as one batch."""
    engine = TransformersEngine(judge.peft, tokenizer.eos_token_id, tokenizer.pad_token_id, len(comparisons))
    engine.sync(version)
    prompts = [encode_prompt(tokenizer, comparison.prompt) for comparison in comparisons]
    rollouts = engine.generate(prompts, sampling)
    texts = [decode(tokenizer, group[0].token_ids) for group in rollouts]
    return [judge_response(comparison, text) for comparison, text in zip(comparisons, texts, strict=True)]
