"""A model that does not train, rolled out by any engine.

What an engine elsewhere rolls out is not read into this process: it gets the model without its weights.
"""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from daj_lightning.judge.model import load_causal_lm
from daj_lightning.judge.tokens import unreachable
from daj_lightning.records import DajError
from daj_lightning.rollout import Policy, RolloutEngine

_ATTENTION = "sdpa"


def frozen_policy(name: str, tokenizer: PreTrainedTokenizerBase, dtype: str, with_weights: bool) -> Policy:
    """The model of a directory or hub name as an engine's policy, with its weights on the GPU if there is one.

    Args:
        dtype: "bfloat16" or "float32"; an engine elsewhere takes it over.
        with_weights: without them the model is on the meta device.
    Raises:
        DajError: it cannot be reached.
    """
    if with_weights:
        model = load_causal_lm(name, dtype, _ATTENTION)
        if torch.cuda.is_available():
            model.to("cuda")  # type: ignore[arg-type]  # transformers wraps the method
    else:
        model = _without_weights(name, dtype)
    return Policy(model, name, tokenizer.eos_token_id, tokenizer.pad_token_id)


def _without_weights(name: str, dtype: str) -> PreTrainedModel:
    try:
        config = AutoConfig.from_pretrained(name)
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                config, dtype=getattr(torch, dtype), attn_implementation=_ATTENTION
            )
    except (OSError, ValueError) as error:
        raise DajError(unreachable(name, "configuration", error)) from error
    return model


def start(engine: RolloutEngine, policy: Policy) -> None:
    """Have `engine` roll out `policy` as it is, version 0; an engine that cannot is closed."""
    engine.connect(policy)
    try:
        engine.sync(0)
    except BaseException:
        engine.close()
        raise
