"""A base model from nothing: tokenizer, random weights, and the format.

A random-init model writes no selection tag, so no response of it could ever be judged. The cold start
trains all of its parameters to read the prompts' language and to answer in the format, with answers drawn
at random: it learns how to answer, not what. The result is frozen and becomes the judge's base. Nothing
here is needed where a pretrained model can be had.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.progress import track
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from daj_lightning.data.pairs import read_pairs
from daj_lightning.judge import (
    EncodedResponse,
    encode_prompt,
    encode_response,
    pad_right,
    parse_selection,
    selection_tag,
)
from daj_lightning.records import DajError, Pair

_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class ColdStart:
    """How to make the base."""

    architecture: dict[str, Any] = field(
        default_factory=lambda: {
            "model_type": "qwen3",
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": True,
        }
    )
    """transformers config of the model; the vocabulary size is the tokenizer's."""
    vocab_size: int = 1024
    """Of the byte-level BPE tokenizer trained on the prompts."""
    steps: int = 200
    """Optimizer steps."""
    batch_size: int = 8
    """Prompts a step."""
    lr: float = 3e-3
    """Peak; falls linearly to 0."""
    max_length: int = 1024
    """Tokens of prompt and response."""
    seed: int = 0
    """Of weights, order and random answers."""

    def run(self, train_pairs: str | Path, directory: str | Path) -> None:
        """Write model and tokenizer into `directory`, unless the same cold start already did.

        Args:
            train_pairs: train.jsonl; only its prompts and response wordings are used, never its preferences.
        """
        directory = Path(directory)
        pairs = read_pairs(train_pairs)
        if not pairs:
            raise DajError(
                f"the cold start takes wording from responses, and {str(train_pairs)!r} has none. Use a data.responses "
                f"that writes some."
            )
        written = hashlib.sha256(Path(train_pairs).read_bytes()).hexdigest()
        wanted = {**asdict(self), "train_pairs": written}
        note = directory / "cold_start.json"
        if note.is_file() and json.loads(note.read_text(encoding="utf-8")) == wanted:
            return
        if directory.exists() and not note.is_file():
            raise DajError(
                f"the cold start would overwrite {str(directory)!r}, which it did not make. "
                f"Name another model.judge.init_args.base."
            )
        with torch.random.fork_rng([]):
            torch.manual_seed(self.seed)
            self._write(pairs, directory, wanted)

    def _write(self, pairs: Sequence[Pair], directory: Path, note: dict[str, Any]) -> None:
        tokenizer = train_tokenizer([text for pair in pairs for text in (pair.prompt, pair.chosen)], self.vocab_size)
        arguments = dict(self.architecture)
        config = AutoConfig.for_model(
            arguments.pop("model_type"),
            vocab_size=len(tokenizer),
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            **arguments,
        )
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.lr, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=self.steps)
        model.train()
        for rows in track(self._batches(pairs, tokenizer), "cold start", total=self.steps):
            loss = language_and_format_loss(model, *pad_right(rows, tokenizer.pad_token_id))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        beside = directory.with_name(directory.name + ".part")
        shutil.rmtree(beside, ignore_errors=True)
        model.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        (beside / "cold_start.json").write_text(json.dumps(note), encoding="utf-8")
        shutil.rmtree(directory, ignore_errors=True)
        beside.rename(directory)

    def _batches(self, pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerFast) -> Iterator[list[EncodedResponse]]:
        """Prompts in random order, each with a response whose selection is drawn at random."""
        rng = random.Random(self.seed)
        encoded: dict[str, list[int]] = {}
        for _ in range(self.steps):
            rows = []
            for pair in rng.sample(pairs, min(self.batch_size, len(pairs))):
                prompt_ids = encoded.setdefault(pair.prompt, encode_prompt(tokenizer, pair.prompt))
                rows.append(encode_response(tokenizer, prompt_ids, random_answer(pair, rng), self.max_length))
            yield rows


def language_and_format_loss(
    model: torch.nn.Module, input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor
) -> Tensor:
    """Mean next-token loss of the prompts plus that of the responses, which are far shorter; inputs (R, T)."""
    logits = model(input_ids=input_ids, attention_mask=attention_mask).logits[:, :-1]
    loss_RT = F.cross_entropy(logits.transpose(1, 2), input_ids[:, 1:], reduction="none")
    response, attended = response_mask[:, 1:], attention_mask[:, 1:]
    return loss_RT[response].mean() + loss_RT[attended & ~response].mean()


def random_answer(pair: Pair, rng: random.Random) -> str:
    """The wording of the pair's responses with a selection that knows nothing of which is right."""
    number = len(pair.candidate_ids)
    response = pair.chosen if parse_selection(pair.chosen, number) is not None else pair.rejected
    return response[: response.rindex("<selection>")] + selection_tag(rng.randrange(number))


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE over `texts`, with chat tokens; the selection tag is two tokens of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>", "<selection>", "</selection>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(set(texts)), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        chat_template=_CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
