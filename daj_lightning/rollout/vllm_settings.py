"""What both vLLM engines are started with."""

from __future__ import annotations

from typing import Any, Literal

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from daj_lightning.rollout.engine import RolloutError

Dtype = Literal["bfloat16", "float16", "float32"]
_DTYPES: dict[torch.dtype, Dtype] = {
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
    torch.float32: "float32",
}
QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
"""vLLM reports its use to its makers unless it is told not to."""
ON_CPU = {
    **QUIET,
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "TORCHDYNAMO_DISABLE": "1",  # else the first rollouts wait half a minute for the compiler
}


def base_dtype(model: PreTrainedModel | PeftModel) -> Dtype:
    """Of the frozen base in this process.

    vLLM's own choice for a float32 base is bfloat16, and rollouts would come from a coarser policy.
    """
    dtype = embedding(model).dtype
    if dtype not in _DTYPES:
        raise RolloutError(f"vLLM takes a base in {sorted(_DTYPES.values())}, the policy's is {dtype}. Set dtype.")
    return _DTYPES[dtype]


def embedding(model: PreTrainedModel | PeftModel) -> torch.Tensor:
    """(V, H) of the base."""
    weight = model.get_input_embeddings().weight  # type: ignore[operator, union-attr]  # peft forwards to the base
    assert isinstance(weight, torch.Tensor)
    return weight


def common_arguments(rank: int | None, max_loras: int, max_model_len: int | None, on_cpu: bool) -> dict[str, Any]:
    """Of `vllm.LLM`, and as flags of the server."""
    arguments: dict[str, Any] = {
        "skip_tokenizer_init": True,  # tokens in, tokens out
        "generation_config": "vllm",  # else the base's generation_config.json decides how to decode
        "logprobs_mode": "processed_logprobs",  # at the temperature; "raw" ones are at 1
    }
    if rank is not None:
        arguments |= {"enable_lora": True, "max_lora_rank": rank, "max_loras": max_loras}
    if max_model_len is not None:
        arguments["max_model_len"] = max_model_len
    if on_cpu:
        arguments["enforce_eager"] = True
    return arguments
