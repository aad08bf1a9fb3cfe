"""Prompts in, text and token log-probabilities out.

Names are found when they are asked for: whoever only reads rows does not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daj_lightning.rollout.endpoint import ChatEndpoint as ChatEndpoint, Reply as Reply
    from daj_lightning.rollout.engine import (
        Policy as Policy,
        Rollout as Rollout,
        RolloutEngine as RolloutEngine,
        RolloutError as RolloutError,
        Sampling as Sampling,
    )
    from daj_lightning.rollout.transformers_engine import TransformersEngine as TransformersEngine
    from daj_lightning.rollout.vllm_colocated import VllmColocated as VllmColocated
    from daj_lightning.rollout.vllm_server import VllmServer as VllmServer

_HOME = {
    "endpoint": "ChatEndpoint Reply",
    "engine": "Policy Rollout RolloutEngine RolloutError Sampling",
    "transformers_engine": "TransformersEngine",
    "vllm_colocated": "VllmColocated",
    "vllm_server": "VllmServer",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
