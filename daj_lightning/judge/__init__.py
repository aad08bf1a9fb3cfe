"""Text to verdict, tokens to log-probabilities: the judge itself."""

from daj_lightning.judge.model import PROJECTIONS, Judge, check_adapter_dtype
from daj_lightning.judge.prompts import PromptTemplate
from daj_lightning.judge.selection import Selection, Voting
from daj_lightning.judge.tokens import (
    EncodedResponse,
    decode,
    encode_prompt,
    encode_response,
    load_tokenizer,
    pad_right,
)
from daj_lightning.judge.verdict import judge_response, parse_selection, reward, selection_tag

__all__ = [
    "PROJECTIONS",
    "EncodedResponse",
    "Judge",
    "PromptTemplate",
    "Selection",
    "Voting",
    "check_adapter_dtype",
    "decode",
    "encode_prompt",
    "encode_response",
    "judge_response",
    "load_tokenizer",
    "pad_right",
    "parse_selection",
    "reward",
    "selection_tag",
]
