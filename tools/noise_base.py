"""A base for the noise study: it knows which program is finished, and has no opinion which one to choose.

A random-init model cannot find turned labels in a run of half a minute, because it learns them by heart before it has
learned what they are about. A pretrained model has the concepts and is taught the judgment; so is this one. It reads
pairs of programs of another bank, and learns in three steps:

1. to answer "Finished: <selection>k</selection>" rightly, and its usual wordings with a selection drawn at random;
2. to keep in its last hidden state, where the selection is to be written after those wordings, what tells a linear
   probe which program is finished; the selection stays random, and the probe is thrown away;
3. whatever lean towards the finished program its selection has by chance is taken out of the two embeddings.

So a forced choice is at chance before training, and every sample has the same loss but for its wording.
Letters: R rows, N of them with a selection, H hidden width.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from ablation_data import MAX_CHARACTERS, RESPONSES
from daj_lightning.data.bank import bank_rows
from daj_lightning.data.bank.candidates import CORRECT, TRUNCATE, write_programs
from daj_lightning.data.bank.families import FAMILIES_BY_NAME
from daj_lightning.judge import encode_prompt, encode_response, pad_right, selection_tag
from daj_lightning.training.cold_start import train_tokenizer

BASE = Path("runs/noise/base-0")
"""Of all seeds of a study."""
BANK_SEED = 1
"""Other instances than the study's."""
WIDTH, LAYERS, VOCABULARY = 64, 2, 1024
CONCEPT_STEPS, PROBE_STEPS, BATCH = 900, 300, 8
RANDOM_SHARE = 0.35
"""Of the rows of the first step."""
NUM_HELD = 100
"""Pairs that are only asked about."""


class Item(NamedTuple):
    """A question whose answer is known from how the bank wrote the programs: nothing is executed."""

    title: str
    finished: str
    unfinished: str

    def prompt(self, finished_first: bool) -> str:
        programs = (self.finished, self.unfinished) if finished_first else (self.unfinished, self.finished)
        return f"{self.title}\n1: {programs[0]}\n2: {programs[1]}\n"


class Rows(NamedTuple):
    """A batch through the model."""

    hidden_NH: Tensor
    """Where the selection's number is predicted."""
    loss: Tensor
    """() mean over the response tokens but for the numbers, plus mean over the numbers."""
    second: Tensor
    """(N,) 1 where the finished program stands second."""


def items(seed: int) -> list[Item]:
    """Every (finished, unfinished) pair of short programs of the bank, shuffled."""
    found = []
    for row in bank_rows(num_problems=300, seed=BANK_SEED):
        family = FAMILIES_BY_NAME[json.loads(row["metadata"])["bank"]["family"]]
        programs = write_programs(family, row, "hasty", 8, BANK_SEED)
        of = {origin: [p.code for p in programs if p.origin == origin] for origin in (CORRECT, TRUNCATE)}
        title = row["question_title"].strip()
        pairs = itertools.product(of[CORRECT], of[TRUNCATE])
        found += [Item(title, a, b) for a, b in pairs if len(title) + len(a) + len(b) < MAX_CHARACTERS]
    random.Random(seed).shuffle(found)
    return found


@dataclass
class Base:
    """Model and tokenizer while they are made."""

    model: Any
    tokenizer: Any

    @property
    def numbers(self) -> list[int]:
        """Tokens of the two selections."""
        return [self.tokenizer.encode(selection_tag(k), add_special_tokens=False)[1] for k in (0, 1)]

    def rows(self, asked: Sequence[Item], rng: random.Random, random_share: float) -> Rows:
        """A pass over one row for each item, its order, wording and (for this share) selection drawn."""
        encoded, second = [], []
        for item in asked:
            first = rng.random() < 0.5
            knows = rng.random() >= random_share
            selected = rng.randrange(2) if not knows else 0 if first else 1
            wording = "Finished:" if knows else rng.choice(RESPONSES.wordings)
            prompt_ids = encode_prompt(self.tokenizer, item.prompt(first))
            encoded.append(encode_response(self.tokenizer, prompt_ids, f"{wording} {selection_tag(selected)}", 1024))
            second.append(0.0 if first else 1.0)
        ids, attended, responses = pad_right(encoded, self.tokenizer.pad_token_id)
        hidden = self.model.get_decoder()(input_ids=ids, attention_mask=attended).last_hidden_state[:, :-1]
        scored, targets = responses[:, 1:], ids[:, 1:]
        is_number = scored & torch.isin(targets, torch.tensor(self.numbers))
        losses = F.cross_entropy(self.model.get_output_embeddings()(hidden[scored]), targets[scored], reduction="none")
        of_number = is_number[scored]
        return Rows(hidden[is_number], losses[of_number].mean() + losses[~of_number].mean(), torch.tensor(second))

    def lean(self, hidden_NH: Tensor) -> Tensor:
        """(N,) logit of the second selection minus that of the first."""
        first, second = self.model.get_output_embeddings().weight[self.numbers]
        return hidden_NH @ (second - first)


def new_base(seed: int, texts: Sequence[str]) -> Base:
    tokenizer = train_tokenizer([*texts, *RESPONSES.wordings, "Finished:"], VOCABULARY)
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        "qwen3",
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=WIDTH // 4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return Base(AutoModelForCausalLM.from_config(config, dtype=torch.float32), tokenizer)


def steps(parameters: Sequence[Tensor], count: int, lr: float, warmup: int) -> Iterator[torch.optim.Optimizer]:
    """Adam, `count` times; the caller computes the gradients between."""
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: min(1.0, (i + 1) / warmup) * (1 - i / count))
    for _ in range(count):
        optimizer.zero_grad()
        yield optimizer
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()


def make_base(seed: int, directory: Path) -> None:
    """Write the base, and print what it knows."""
    if directory.exists():
        return
    rng, everything = random.Random(seed), items(seed)
    held, train = everything[:NUM_HELD], everything[NUM_HELD:]
    base = new_base(seed, [item.prompt(True) for item in everything])
    parameters = list(base.model.parameters())
    for _ in steps(parameters, CONCEPT_STEPS, 3e-3, 50):
        base.rows(rng.choices(train, k=BATCH), rng, RANDOM_SHARE).loss.backward()
    probe = torch.nn.Linear(WIDTH, 1)
    for _ in steps([*parameters, *probe.parameters()], PROBE_STEPS, 2e-3, 20):
        rows = base.rows(rng.choices(train, k=BATCH), rng, 1.0)
        probed = F.binary_cross_entropy_with_logits(probe(rows.hidden_NH).squeeze(1), rows.second)
        (probed + rows.loss + 0.1 * base.lean(rows.hidden_NH).pow(2).mean()).backward()
    take_out_the_lean(base, train, rng)
    with torch.no_grad():
        rows = base.rows(held, random.Random(seed), 1.0)
        known = float(((probe(rows.hidden_NH).squeeze(1) > 0) == (rows.second > 0)).float().mean())
        chosen = float(((base.lean(rows.hidden_NH) > 0) == (rows.second > 0)).float().mean())
    print(f"base {seed}: a probe finds the finished program in {known:.0%} of {NUM_HELD}, the selection {chosen:.0%}")
    base.model.save_pretrained(directory)
    base.tokenizer.save_pretrained(directory)


@torch.no_grad()
def take_out_the_lean(base: Base, train: Sequence[Item], rng: random.Random) -> None:
    """Change the two selections' embeddings so that neither position nor truth moves their difference, on average."""
    embeddings = base.model.get_output_embeddings().weight
    for _ in range(2):  # the embeddings are tied: what the model reads changes a little, too
        batches = [base.rows(train[i : i + BATCH], rng, 1.0) for i in range(0, min(60 * BATCH, len(train)), BATCH)]
        hidden_NH = torch.cat([rows.hidden_NH for rows in batches])
        second = torch.cat([rows.second for rows in batches]) > 0
        means = torch.stack([hidden_NH[second].mean(dim=0), hidden_NH[~second].mean(dim=0)])  # (2, H)
        first, other = embeddings[base.numbers]
        excess = means.T @ torch.linalg.solve(means @ means.T, means @ (other - first))
        embeddings[base.numbers[0]] += excess / 2
        embeddings[base.numbers[1]] -= excess / 2
