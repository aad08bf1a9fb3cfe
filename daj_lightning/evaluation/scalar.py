"""Other people's judges that give a program a number: scalar reward models and process reward models (PRM).

A reward model is a sequence classifier with one label, asked with a chat of the statement and the program. A process
reward model is a token classifier: the program is cut into steps, a tag stands behind each, and the probability of the
last label (of one or two) at each tag is that step's score. Nothing is trained, nothing generated.
Letters: B programs, T tokens, C labels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from daj_lightning.data.candidates import candidate_of, fingerprint, has_code
from daj_lightning.data.journal import Journal
from daj_lightning.data.jsonl import iterate_jsonl
from daj_lightning.data.progress import Meter
from daj_lightning.judge import load_tokenizer
from daj_lightning.judge.tokens import cut_middle
from daj_lightning.records import Candidate, DajError, Problem

AT_ONCE = 16
"""Batches whose programs are sorted by length, so that a batch holds programs alike."""
_ROW = ("problem_id", "candidate_id", "program", "score", "made_by")


@dataclass(frozen=True, slots=True)
class Steps:
    """How a process reward model sees a program, and how its steps make one score."""

    tag: str = "<extra_0>"
    """One token of the model's tokenizer, put behind each step (Qwen2.5-Math-PRM's unless said otherwise)."""
    split: str = "\n\n"
    """What stands between two steps."""
    aggregate: Literal["min", "product", "last"] = "min"


class ScalarModel:
    """A reward model that transformers loads, in bfloat16 on a GPU and float32 elsewhere.

    Args:
        directory: or hub name.
        steps: of a process reward model; None: the model scores whole programs.
        max_length: tokens; of longer programs the middle is cut, and they are counted.
    Raises:
        DajError: it cannot be loaded, it is no such model, or the tag is not one token.
    """

    def __init__(self, directory: str, steps: Steps | None = None, max_length: int = 8192) -> None:
        self.steps = steps
        self.max_length = max_length
        self.num_cut = 0
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(directory)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = load(directory, steps is not None, self.device)
        self.names_padding = self.model.config.pad_token_id is not None
        self.tag_id = self._tag_id(steps.tag) if steps else -1

    def _tag_id(self, tag: str) -> int:
        if len(tag) < 2 or not (self.steps and self.steps.split):
            raise DajError("a step's tag needs two letters or more, since programs hold single ones; its split one.")
        ids = self.tokenizer.encode(tag, add_special_tokens=False)
        if len(ids) != 1:
            raise DajError(
                f"the step tag {tag!r} is {len(ids)} tokens of this tokenizer, wanted one. Give its own tag."
            )
        return int(ids[0])

    def encode(self, statement: str, code: str) -> list[int]:
        """Token ids of the chat. Special tokens that a text spells out become plain text."""
        statement, code = (self._harmless(text) for text in (statement, code))
        answer = f"```python\n{code}\n```"
        if self.steps:
            parts = [part for part in code.split(self.steps.split) if part.strip()]
            answer = "".join(part + self.steps.tag for part in parts)
        chat = [{"role": "user", "content": statement}, {"role": "assistant", "content": answer}]
        ids = list(self.tokenizer.apply_chat_template(chat, return_dict=False))
        self.num_cut += len(ids) > self.max_length
        return list(cut_middle(ids, self.max_length))  # type: ignore[arg-type]  # one chat gives one list of ints

    def _harmless(self, text: str) -> str:
        tokens = [t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special]
        tokens += [self.steps.tag] if self.steps else []
        text = re.sub("[\ud800-\udfff]", "\ufffd", text)  # half a character: no tokenizer takes it
        spelled = re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or r"(?!)")
        return spelled.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    @torch.no_grad()
    def score(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """One number for each encoded program, higher is better; together as one batch."""
        length = max(map(len, rows))
        if not self.names_padding:
            # It reads a row's last token that is no padding, without a name for padding the last one. So padding is
            # called what no row ends in; the tokenizer's may be the end of a turn, and that of every chat.
            self.model.config.pad_token_id = min(set(range(len(rows) + 1)) - {row[-1] for row in rows})
        input_ids = torch.full((len(rows), length), self.model.config.pad_token_id, dtype=torch.int64)
        attention_mask = torch.zeros((len(rows), length), dtype=torch.int64)
        for r, row in enumerate(rows):
            input_ids[r, : len(row)] = torch.tensor(row)
            attention_mask[r, : len(row)] = 1
        inputs = {"input_ids": input_ids.to(self.device), "attention_mask": attention_mask.to(self.device)}
        logits = self.model(**inputs).logits.float().cpu()
        if self.steps is None:
            return [float(value) for value in logits[:, 0]]
        tags = (input_ids == self.tag_id) & attention_mask.bool()
        right = torch.sigmoid(logits[..., 0]) if logits.shape[-1] == 1 else logits.softmax(-1)[..., 1]
        return [aggregated(of_row[where], self.steps.aggregate) for of_row, where in zip(right, tags, strict=True)]


def aggregated(steps: Tensor, how: str) -> float:
    """One score of the (S,) probabilities of a program's steps."""
    if how == "min":
        return float(steps.min())
    return float(steps[-1]) if how == "last" else math.exp(float(steps.double().log().sum()))


def load(directory: str, of_steps: bool, device: torch.device) -> PreTrainedModel:
    """The classifier, with a head of its own."""
    kind: Any = AutoModelForTokenClassification if of_steps else AutoModelForSequenceClassification
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    try:
        model, info = kind.from_pretrained(directory, dtype=dtype, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        why = str(error).splitlines()[0]
        raise DajError(f"no reward model can be loaded from {directory!r}: {why}. Name another one.") from error
    if info["missing_keys"]:
        raise DajError(
            f"{directory!r} lacks {sorted(info['missing_keys'])[:3]}: its head would be random numbers. Is it a reward "
            f"model? --kind process is for those that score steps."
        )
    labels = model.config.num_labels
    if labels not in ((1, 2) if of_steps else (1,)):
        wanted = "one or two, the last of which is right" if of_steps else "one, the reward"
        raise DajError(f"{directory!r} is a classifier with {labels} labels; wanted {wanted}.")
    return model.to(device).eval()  # type: ignore[no-any-return]


def question(problem: Problem) -> str:
    """What a reward model is told of a problem."""
    starter = f"\n\nStarter code:\n```python\n{problem.starter_code}\n```" if problem.starter_code else ""
    return f"{problem.statement}{starter}"


def score_file(
    model: str,
    candidates: str,
    output: str,
    problems: Iterable[Problem],
    steps: Steps | None,
    batch_size: int,
    max_length: int,
) -> tuple[int, int, int]:
    """`score` of the command line: a row {problem_id, candidate_id, score, ...} for every candidate with code.

    Goes on where an earlier run of the same model, with the same settings, broke off.

    Returns:
        Numbers of new scores, of those that were there, and of programs whose middle was cut.
    Raises:
        DajError: a candidate without a statement, or an output of another model or of other programs.
    """
    if batch_size < 1 or max_length < 1:
        raise DajError(f"batch_size={batch_size} and max_length={max_length} must be >= 1.")
    wanted = read_wanted(candidates, {problem.problem_id: question(problem) for problem in problems})
    made_by = f"{model}, {f'{steps}, ' if steps else ''}max_length={max_length}"
    with Journal(output, "scores", _ROW, begins='{"problem_id') as journal:
        done = _done(output, {c.candidate_id: fingerprint(c) for c, _ in wanted}, made_by)
        left = [(c, statement) for c, statement in wanted if c.candidate_id not in done]
        scorer = ScalarModel(model, steps, max_length) if left else None
        with Meter("scoring", len(left), "programs") as meter:
            for start in range(0, len(left), batch_size * AT_ONCE):
                assert scorer is not None
                chunk = left[start : start + batch_size * AT_ONCE]
                encoded = sorted(((scorer.encode(s, c.code), c) for c, s in chunk), key=lambda row: len(row[0]))
                for at in range(0, len(encoded), batch_size):
                    batch = encoded[at : at + batch_size]
                    for (_, c), value in zip(batch, scorer.score([ids for ids, _ in batch]), strict=True):
                        if not math.isfinite(value):
                            raise DajError(f"{model}: the score of candidate {c.candidate_id!r} is {value}.")
                        row = (c.problem_id, c.candidate_id, fingerprint(c), value, made_by)
                        journal.append(dict(zip(_ROW, row, strict=True)))
                        meter.advance()
    return len(left), len(done), scorer.num_cut if scorer else 0


def read_wanted(path: str | Path, statements: dict[str, str]) -> list[tuple[Candidate, str]]:
    """Candidates with code and what their model is told of their problem; a row may bring its own statement."""
    wanted = []
    names = set()
    for number, row in iterate_jsonl(path, "candidates"):
        where = f"{path}, line {number}"
        candidate = candidate_of(row, where, f"line {number}")
        statement = row.get("statement", statements.get(candidate.problem_id))
        if not isinstance(statement, str):
            raise DajError(
                f"{where}: no statement of problem {candidate.problem_id!r}. Name its file with --problems, its "
                f"--config, or put the statement into the row."
            )
        if candidate.candidate_id in names:
            raise DajError(f"{where}: candidate {candidate.candidate_id!r} stands in the file already.")
        names.add(candidate.candidate_id)
        if has_code(candidate):
            wanted.append((candidate, statement))
    if not wanted:
        raise DajError(f"candidates: {str(path)!r} has no program to score.")
    return wanted


def _done(output: str, programs: dict[str, str], made_by: str) -> set[str]:
    done: set[str] = set()
    for number, row in iterate_jsonl(output, "scores"):
        if row["made_by"] != made_by or programs.get(row["candidate_id"]) != row["program"]:
            raise DajError(
                f"{output}, line {number} is a score of another program, or by {row['made_by']!r} and not {made_by!r}. "
                f"Name another output, or remove it."
            )
        done.add(row["candidate_id"])
    return done
