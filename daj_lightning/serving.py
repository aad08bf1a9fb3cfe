"""A trained judge on its own: exported to a directory, and used from there to select programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel

from daj_lightning.data import JudgeData, read_jsonl
from daj_lightning.data.comparisons import compare
from daj_lightning.data.journal import Journal
from daj_lightning.data.progress import Meter
from daj_lightning.judge import Judge, PromptTemplate, Selection, Strategy, load_tokenizer, play_all
from daj_lightning.judge.model import load_causal_lm
from daj_lightning.judge.selection import Pair
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
        strategy: which comparisons it is asked for, and who wins.
        batch_size: comparisons generated together.
    """

    def __init__(self, directory: str | Path, strategy: Strategy, batch_size: int = 16) -> None:
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
        self.strategy = strategy
        self.batch_size = batch_size

    def select(self, problem: Problem, candidates: Sequence[Candidate]) -> Selection:
        """One of the candidates of one problem."""
        return self.select_all([(problem, candidates)])[0]

    def select_all(self, groups: Sequence[tuple[Problem, Sequence[Candidate]]]) -> list[Selection]:
        """One of each problem's candidates; the comparisons of all problems share batches."""
        named = {str(k): group for k, group in enumerate(groups)}

        def ask(questions: list[tuple[str, Pair]]) -> list[int | None]:
            comparisons = []
            for key, (first, second) in questions:  # those of a problem stand together: they share their prefix
                problem, candidates = named[key]
                pair = [candidates[first], candidates[second]]
                unknown = {candidate.candidate_id: False for candidate in pair}  # nothing is executed here
                comparisons.append(compare(problem, pair, unknown, self.template, "round"))
            answers: list[int | None] = []
            for start in range(0, len(comparisons), self.batch_size):
                chunk = comparisons[start : start + self.batch_size]
                answers += [j.selection for j in answer(self.judge, self.tokenizer, chunk, self.sampling)]
            return answers

        plays = {
            key: self.strategy.play(len(candidates), problem.problem_id) for key, (problem, candidates) in named.items()
        }
        return list(play_all(plays, ask).values())


AT_ONCE = 64  # problems whose comparisons share batches, and of which a kill loses the answers
_ROW = ("problem_id", "selected", "code", "votes", "made_by")


class Picked(NamedTuple):
    """What `select_file` did."""

    num_new: int
    num_before: int
    """Problems that an earlier run of the same command had done."""
    num_comparisons: int
    """Of the new ones; a round robin asks for N (N - 1) / 2."""
    num_of_round_robin: int
    num_abstained: int


def select_file(judge: str, candidates: str, output: str, strategy: Strategy, batch_size: int) -> Picked:
    """`select` of the command line; every row is read and checked before the judge is loaded.

    Goes on where an earlier run of the same judge and strategy broke off.
    """
    groups = [
        group_from_row(row, f"{candidates}, row {n}") for n, row in enumerate(read_jsonl(candidates, "candidates"), 1)
    ]
    if batch_size < 1 or not Path(output).parent.is_dir():
        raise DajError(f"batch_size={batch_size} must be >= 1, and the directory of {output!r} must exist.")
    if not groups:
        raise DajError(f"{candidates} has no row; nothing to select from.")
    _check_ids([problem.problem_id for problem, _ in groups], candidates)
    made_by = f"{judge}: {strategy}"
    with Journal(output, "selections", _ROW, begins='{"problem_id') as journal:
        done = _done(output, groups, made_by)
        left = [group for group in groups if group[0].problem_id not in done]
        selector = Selector(judge, strategy, batch_size) if left else None
        picked = Picked(0, len(done), 0, 0, 0)
        with Meter("selecting", len(left), "problems") as meter:
            for start in range(0, len(left), AT_ONCE):
                chunk = left[start : start + AT_ONCE]
                assert selector is not None
                for (problem, programs), chosen in zip(chunk, selector.select_all(chunk), strict=True):
                    journal.append(_row(problem, programs, chosen, made_by))
                    picked = Picked(
                        picked.num_new + 1,
                        picked.num_before,
                        picked.num_comparisons + chosen.num_comparisons,
                        picked.num_of_round_robin + len(programs) * (len(programs) - 1) // 2,
                        picked.num_abstained + (chosen.winner is None),
                    )
                    meter.advance()
    return picked


def _row(problem: Problem, programs: Sequence[Candidate], chosen: Selection, made_by: str) -> dict[str, Any]:
    return {
        "problem_id": problem.problem_id,
        "selected": chosen.winner,
        "code": None if chosen.winner is None else programs[chosen.winner].code,
        "votes": list(chosen.votes),
        "num_invalid": chosen.num_invalid,
        "num_comparisons": chosen.num_comparisons,
        "confidence": round(chosen.confidence, 4),
        "made_by": made_by,
    }


def _check_ids(ids: Sequence[str], where: str) -> None:
    twice = sorted(name for name, times in Counter(ids).items() if times > 1)
    if twice:
        raise DajError(f"{where}: problem_id {twice[0]!r} stands in {ids.count(twice[0])} rows; each needs its own.")


def _done(output: str, groups: Sequence[tuple[Problem, list[Candidate]]], made_by: str) -> set[str]:
    """Problems that the output holds already.

    Raises:
        DajError: it was made by another judge or strategy, or of other programs.
    """
    programs = {problem.problem_id: [candidate.code for candidate in group] for problem, group in groups}
    done: set[str] = set()
    for row in read_jsonl(output, "selections"):
        name, selected = row["problem_id"], row["selected"]
        of_these = name in programs and (selected is None or programs[name][selected : selected + 1] == [row["code"]])
        if row["made_by"] != made_by or not of_these:
            what = "other candidates" if row["made_by"] == made_by else f"{row['made_by']!r}, and this is {made_by!r}"
            raise DajError(f"{output!r} holds selections of {what}. Name another output, or remove it.")
        done.add(name)
    return done


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
