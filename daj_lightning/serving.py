"""A trained judge on its own: exported to a directory, and used from there to select programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from daj_lightning.data import JudgeData, read_jsonl
from daj_lightning.data.comparisons import voting_comparisons
from daj_lightning.judge import Judge, PromptTemplate, Selection, Voting, load_tokenizer
from daj_lightning.judge.model import load_causal_lm
from daj_lightning.records import Candidate, DajError, Problem, TestCase
from daj_lightning.rollout import Sampling
from daj_lightning.training import DataReweightedJudge, answer

_NOTE = "daj.json"


def export_judge(module: DataReweightedJudge, data: JudgeData, ckpt_path: str, output: str | Path) -> None:
    """Write the adapters of a checkpoint as a PEFT adapter that plain transformers and peft load, or the whole model.

    Tokenizer, prompt template and decoding lie beside it, so that `select` needs nothing else but the base.
    """
    output = Path(output)
    state = torch.load(ckpt_path, map_location="cpu", weights_only=True)["state_dict"]
    module.judge.load()
    own = {name.removeprefix("judge."): value for name, value in state.items() if name.startswith("judge.")}
    missing = {n for n, p in module.judge.named_parameters() if p.requires_grad} - set(own)
    if missing:
        raise DajError(
            f"{ckpt_path} lacks {len(missing)} trained tensors of this configuration; it is of another judge."
        )
    module.judge.load_state_dict(own, strict=False)
    module.judge.export(output)
    load_tokenizer(data.tokenizer_name).save_pretrained(output)
    (output / "template.txt").write_text(PromptTemplate(data.preparation.template).text, encoding="utf-8")
    note = {
        "base": module.judge.base,
        "base_dtype": module.judge.base_dtype,
        "trains": module.judge.trains,
        "max_new_tokens": module.sampling.max_new_tokens,
        "temperature": module.sampling.temperature,
    }
    (output / _NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")


class Selector:
    """An exported judge that picks programs.

    Args:
        directory: written by `export`.
        voting: the strategy.
        batch_size: comparisons generated together.
    """

    def __init__(self, directory: str | Path, voting: Voting, batch_size: int = 16) -> None:
        directory = Path(directory)
        if not (directory / _NOTE).is_file():
            raise DajError(f"{str(directory)!r} is no exported judge: it has no {_NOTE}. Make one with `export`.")
        note = json.loads((directory / _NOTE).read_text(encoding="utf-8"))
        self.judge = Judge(note["base"], note["base_dtype"])
        whole = note.get("trains") == "everything"
        model = load_causal_lm(str(directory) if whole else note["base"], note["base_dtype"], "sdpa")
        self.judge.model = model if whole else PeftModel.from_pretrained(model, directory)
        if torch.cuda.is_available():
            self.judge.cuda()
        self.tokenizer = load_tokenizer(str(directory))
        self.template = PromptTemplate(str(directory / "template.txt"))
        self.sampling = Sampling(note["max_new_tokens"], note["temperature"])
        self.voting = voting
        self.batch_size = batch_size

    def select(self, problem: Problem, candidates: Sequence[Candidate]) -> Selection:
        """The paper's voting over the candidates of one problem."""
        unknown = {candidate.candidate_id: False for candidate in candidates}  # nothing is executed here
        comparisons = voting_comparisons(problem, candidates, unknown, self.template, self.voting)
        answers: list[int | None] = []
        for start in range(0, len(comparisons), self.batch_size):
            chunk = comparisons[start : start + self.batch_size]
            answers += [j.selection for j in answer(self.judge, self.tokenizer, chunk, self.sampling)]
        rounds = self.voting.draw(len(candidates), problem.problem_id)
        return self.voting.count(len(candidates), problem.problem_id, rounds, answers)


def select_file(judge: str, candidates: str, output: str, rounds: int, seed: int, batch_size: int) -> int:
    """`select` of the command line; every row is read and checked before the judge is loaded."""
    groups = [
        group_from_row(row, f"{candidates}, row {n}") for n, row in enumerate(read_jsonl(candidates, "candidates"), 1)
    ]
    if batch_size < 1 or not Path(output).parent.is_dir():
        raise DajError(f"batch_size={batch_size} must be >= 1, and the directory of {output!r} must exist.")
    if not groups:
        raise DajError(f"{candidates} has no row; nothing to select from.")
    selector = Selector(judge, Voting(rounds, seed), batch_size)
    with Path(output).open("w", encoding="utf-8") as file:
        for problem, programs in groups:
            chosen = selector.select(problem, programs)
            row = {
                "problem_id": problem.problem_id,
                "selected": chosen.winner,
                "code": programs[chosen.winner].code,
                "votes": list(chosen.votes),
                "num_invalid": chosen.num_invalid,
            }
            file.write(json.dumps(row) + "\n")
    return len(groups)


def group_from_row(row: Mapping[str, Any], where: str) -> tuple[Problem, list[Candidate]]:
    """A problem with its programs, from a service's own log."""
    missing = [field for field in ("problem_id", "statement", "candidates") if not row.get(field)]
    if missing:
        raise DajError(f"{where} lacks {missing}; wanted problem_id, statement and a list of candidates (code).")
    if not isinstance(row["candidates"], list) or not isinstance(row["statement"], str):
        raise DajError(f"{where}: wanted statement as text and candidates as a list of programs.")
    tests = row.get("public_tests", [])
    if not all(isinstance(test, dict) and {"input", "output"} <= test.keys() for test in tests):
        raise DajError(f"{where}: each of public_tests needs input and output.")
    for k, code in enumerate(row["candidates"]):
        if not isinstance(code, str) or not code.strip():
            raise DajError(f"{where}: candidate {k} has no code. Remove it, or store the program's text.")
    problem = Problem(
        problem_id=str(row["problem_id"]),
        title=row.get("title", ""),
        statement=row["statement"],
        platform=row.get("platform", ""),
        difficulty=row.get("difficulty", ""),
        release_date=date.today(),
        starter_code=row.get("starter_code", ""),
        function_name=None,
        public_tests=tuple(TestCase(test["input"], test["output"]) for test in tests),
        hidden_tests=(),
    )
    programs = [Candidate(str(k), problem.problem_id, "", code) for k, code in enumerate(row["candidates"])]
    return problem, programs
