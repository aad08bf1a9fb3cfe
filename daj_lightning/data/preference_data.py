"""A preference file as the data of a fit: which of its rows fit, and which the steps see.

Letters: S training rows, K inner samples, M meta samples of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from daj_lightning.data.dataset import Encode, PairDataset
from daj_lightning.data.preferences import Preference
from daj_lightning.data.schedule import SampleStream
from daj_lightning.data.windows import BilevelData
from daj_lightning.records import BilevelBatch, DajError, Pair, Unit

_SHORTEST_CUT = 64
"""Tokens of an answer that `encode_response` keeps before it would cut the prompt."""


def fitting(preferences: Sequence[Preference], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Preference]:
    """The same rows; those whose prompt this tokenizer and length have no room for say so."""
    return [p if p.problem else replace(p, problem=_misfit(p, tokenizer, max_length)) for p in preferences]


def _misfit(preference: Preference, tokenizer: PreTrainedTokenizerBase, max_length: int) -> str:
    try:
        number = len(prompt_ids(tokenizer, preference))
    except TemplateError as error:
        return f"the chat template refuses its messages: {error}"
    longest = max(len(tokenizer.encode(a, add_special_tokens=False)) for a in (preference.chosen, preference.rejected))
    room = max_length - min(longest + 1, _SHORTEST_CUT)
    if number == 0:
        return "its prompt has no token"
    return f"its prompt has {number} tokens, and max_length leaves it {room}" if number > room else ""


def rendered(tokenizer: PreTrainedTokenizerBase, preference: Preference) -> str:
    """The prompt as one text: as it stands, or through the chat template up to where the answer starts."""
    if isinstance(preference.prompt, str):
        return preference.prompt
    chat = [message._asdict() for message in preference.prompt]
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))


def prompt_ids(tokenizer: PreTrainedTokenizerBase, preference: Preference) -> list[int]:
    return _encode_as(preference)(tokenizer, rendered(tokenizer, preference))


def _encode_as(preference: Preference) -> Encode:
    return _encode_text if isinstance(preference.prompt, str) else _encode_rendered


def _encode_text(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """With what the tokenizer puts before a text."""
    return list(tokenizer.encode(prompt))


def _encode_rendered(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """The template has put it there already."""
    return list(tokenizer.encode(prompt, add_special_tokens=False))


class PreferenceData(BilevelData):
    """Every training row equally often, after a warm-up that is not counted.

    Args:
        train: rows without a problem, one or more; sample i is row i of these.
        meta: the same.
        tokenizer: of the judge.
        max_length: tokens of prompt and answer together; longer answers lose their middle.
        root: directory where reference log-probabilities are kept.
        num_inner: K at most; a smaller set is taken whole, so that no window sees a row twice for one look.
        num_meta: M at most; the same.
        looks: windows that see each training row.
        warmup_windows: windows before those.
        seed: of the order.
    Raises:
        DajError: a number is below 1.
    """

    def __init__(
        self,
        train: Sequence[Preference],
        meta: Sequence[Preference],
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        root: str | Path,
        num_inner: int = 16,
        num_meta: int = 8,
        looks: int = 4,
        warmup_windows: int = 5,
        seed: int = 0,
    ) -> None:
        if looks < 1 or num_inner < 1:
            raise DajError(f"looks={looks} and num_inner={num_inner} must be >= 1.")
        domains = sorted({preference.domain for preference in (*train, *meta)})
        num_inner = min(num_inner, len(train))
        max_windows = warmup_windows + -(-looks * len(train) // num_inner)
        super().__init__(root, domains, num_inner, min(num_meta, len(meta)), max_windows, seed)
        self.train, self.meta = list(train), list(meta)
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.warmup_windows = warmup_windows

    def load_samples(self, unit: Unit, max_new_tokens: int = 0) -> None:
        del max_new_tokens  # nothing is drawn
        self.take_in(self._encode(self.train, unit), self._encode(self.meta, unit))
        self.warmup_stream = SampleStream(len(self.train), self.seed, "warm-up")

    def _encode(self, preferences: Sequence[Preference], unit: Unit) -> PairDataset:
        pairs = [Pair(p.id, p.domain, (), rendered(self.tokenizer, p), p.chosen, p.rejected) for p in preferences]
        encode = _encode_as(preferences[0])
        return PairDataset(pairs, self.tokenizer, self.domains, self.max_length, unit, encode)

    def window(self, number: int) -> BilevelBatch:
        """The warm-up draws from a stream of its own, so that it takes nobody's look."""
        counted = number - self.warmup_windows
        stream, place = (self.train_stream, counted) if counted >= 0 else (self.warmup_stream, number)
        return BilevelBatch(
            inner=self.train_set.batch(stream.take(place * self.num_inner, self.num_inner)),
            meta=self.meta_set.batch(self.meta_stream.take(number * self.num_meta, self.num_meta)),
        )
