"""Text to verdict, tokens to log-probabilities: the judge itself.

Names are found when they are asked for: whoever only reads rows does not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daj_lightning.judge.adaptive import Adaptive as Adaptive
    from daj_lightning.judge.model import (
        PROJECTIONS as PROJECTIONS,
        Judge as Judge,
        check_adapter_dtype as check_adapter_dtype,
    )
    from daj_lightning.judge.prompts import PromptTemplate as PromptTemplate
    from daj_lightning.judge.selection import (
        Dialogues as Dialogues,
        Knockout as Knockout,
        RoundRobin as RoundRobin,
        Selection as Selection,
        Strategy as Strategy,
        play_all as play_all,
    )
    from daj_lightning.judge.sharding import shard_base as shard_base
    from daj_lightning.judge.tokens import (
        EncodedResponse as EncodedResponse,
        decode as decode,
        encode_prompt as encode_prompt,
        encode_response as encode_response,
        load_tokenizer as load_tokenizer,
        pad_right as pad_right,
    )
    from daj_lightning.judge.verdict import (
        Reward as Reward,
        SelectionReward as SelectionReward,
        judge_response as judge_response,
        parse_selection as parse_selection,
        reward as reward,
        selection_tag as selection_tag,
    )
    from daj_lightning.judge.voting import Voting as Voting

_HOME = {
    "model": "Judge PROJECTIONS check_adapter_dtype",
    "prompts": "PromptTemplate",
    "adaptive": "Adaptive",
    "selection": "Dialogues Knockout RoundRobin Selection Strategy play_all",
    "sharding": "shard_base",
    "tokens": "EncodedResponse decode encode_prompt encode_response load_tokenizer pad_right",
    "voting": "Voting",
    "verdict": "Reward SelectionReward judge_response parse_selection reward selection_tag",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
