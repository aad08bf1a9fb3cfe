"""A judge for measurements and tests of serving: tiny, exported as `export` does, and made in seconds on a CPU.

It has learned the answer's format and nothing else, so that all of the way from a request to a choice is real but
for the wisdom.
"""

from __future__ import annotations

import dataclasses
import json
from datetime import date
from pathlib import Path

import torch

from daj_lightning.data.jsonl import write_jsonl
from daj_lightning.judge import Judge, PromptTemplate, load_tokenizer, selection_tag
from daj_lightning.records import Candidate, Pair, Problem, Provenance, ReferenceUse, TestCase
from daj_lightning.training import ColdStart

ARCHITECTURE = {
    "model_type": "qwen3",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
MAX_NEW_TOKENS = 4
"""A selection tag of three tokens, and the end of turn."""
MADE_HERE = Provenance("toy", None, ReferenceUse.NONE, "templated", "", 2, 0, 1, 1.0, 0.5, "wrong selection")


def program(k: int, variant: int) -> str:
    """Adds k to what it reads; odd variants are wrong."""
    return f"n = int(input())\nprint(n {'-' if variant % 2 else '+'} {k})  # {variant}"


def toy_problem(k: int) -> Problem:
    return Problem(
        problem_id=f"plus-{k}",
        title=f"Plus {k}",
        statement=f"Read n and print n plus {k}.",
        platform="atcoder",
        difficulty="easy",
        release_date=date(2024, 3, 1),
        starter_code="",
        function_name=None,
        public_tests=(TestCase("1\n", f"{1 + k}\n"),),
        hidden_tests=(),
    )


def row_of(k: int, num_candidates: int) -> dict[str, object]:
    """A problem with its candidates, as `select` and `serve` read it."""
    problem = toy_problem(k)
    return {
        "problem_id": problem.problem_id,
        "statement": problem.statement,
        "candidates": [program(k, variant) for variant in range(num_candidates)],
        "public_tests": [dataclasses.asdict(test) for test in problem.public_tests],
    }


def make_judge(directory: Path, steps: int = 80, seed: int = 0) -> Path:
    """An exported judge in `directory`, over a base beside it."""
    template = PromptTemplate("compact")
    pairs = []
    for k in range(1, 41):
        problem = toy_problem(k)
        shown = [Candidate(str(v), problem.problem_id, "toy", program(k, v)) for v in (k % 8, (k + 1) % 8)]
        right = [v % 2 for v in (k % 8, (k + 1) % 8)].index(0)
        prompt = template.fill(problem, shown)
        names = tuple(candidate.candidate_id for candidate in shown)
        told = (selection_tag(right), selection_tag(1 - right))
        pairs.append(Pair(problem.problem_id, problem.domain, names, prompt, *told, MADE_HERE))
    directory.mkdir(parents=True)
    rows, base = directory / "pairs.jsonl", directory / "base"
    write_jsonl(rows, pairs)
    ColdStart(ARCHITECTURE, vocab_size=400, steps=steps, max_length=512, seed=seed).run(rows, base)
    torch.manual_seed(seed)
    judge = Judge(str(base), "float32", lora_r=4, lora_alpha=8)
    judge.load()
    exported = directory / "judge"
    judge.export(exported)
    load_tokenizer(str(base)).save_pretrained(exported)
    (exported / "template.txt").write_text(template.text)
    note = {"base": str(base), "base_dtype": "float32", "max_new_tokens": MAX_NEW_TOKENS, "temperature": 0.0}
    (exported / "daj.json").write_text(json.dumps(note))
    return exported
