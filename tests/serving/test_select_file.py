"""`select`: JSON Lines in and out, answers that outlive the process, and any engine behind it."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from attacks import ATTACKS
from daj_lightning.__main__ import main
from daj_lightning.judge import Adaptive, RoundRobin, Strategy, Voting, load_tokenizer
from daj_lightning.records import DajError
from daj_lightning.rollout import Rollout, Sampling, TransformersEngine
from daj_lightning.serving import Selector, group_from_row, select_file
from daj_lightning.serving.export import load_exported
from daj_lightning.serving.file import AT_ONCE
from tiny_judge import row_of


class Says(TransformersEngine):
    """A judge that answers every question with one text."""

    def __init__(self, text: str, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(64)
        self.ids = (*tokenizer.encode(text), tokenizer.eos_token_id)

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Rollout]]:
        return [[Rollout(self.ids, (0.0,) * len(self.ids), "stop", 0)] for _ in prompts]


class Watched(TransformersEngine):
    """Keeps what it is asked, and breaks off after so many batches."""

    def __init__(self, num_batches: int = 10**9) -> None:
        super().__init__(64)
        self.left = num_batches
        self.batches: list[list[list[int]]] = []

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Rollout]]:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.batches.append([list(prompt) for prompt in prompts])
        return super().generate(prompts, sampling)


def write_rows(path: Path, num_problems: int, num_candidates: int, **more: Any) -> str:
    rows = [{**row_of(k % 40 + 1, num_candidates), **more, "problem_id": f"p{k}"} for k in range(num_problems)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def judgments(output: Path) -> list[dict[str, Any]]:
    lines = output.with_suffix(".judgments.jsonl").read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["problem_id"], *row["candidate_ids"], row["repeat"]


def test_after_kill_9_nothing_is_asked_twice_and_the_result_is_that_of_an_unbroken_run(
    tmp_path: Path, exported: Path
) -> None:
    """The default strategy: what it learns of the judge from one problem decides what it asks about the next."""
    rows = write_rows(tmp_path / "rows.jsonl", AT_ONCE + 16, 6)
    killed, whole = tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"
    files = ["--judge", str(exported), "--candidates", rows, "--output", str(killed)]
    process = subprocess.Popen([sys.executable, "-m", "daj_lightning", "select", *files], stdout=subprocess.DEVNULL)
    answers = killed.with_suffix(".judgments.jsonl")
    while process.poll() is None and (not answers.exists() or answers.read_bytes().count(b"\n") < 300):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = [key(row) for row in judgments(killed)]
    assert len(before) >= 300
    engine = Watched()
    done = select_file(str(exported), rows, str(killed), Adaptive(), engine=engine)
    assert 0 < done.num_new == AT_ONCE + 16 - done.num_before
    after = [key(row) for row in judgments(killed)]
    assert len(set(after)) == len(after), "no comparison was asked twice"
    assert sum(map(len, engine.batches)) == len(after) - len(before)
    unbroken = select_file(str(exported), rows, str(whole), Adaptive())
    assert killed.read_bytes() == whole.read_bytes()
    assert set(after) == {key(row) for row in judgments(whole)}
    assert unbroken.num_comparisons == len(after)
    assert done.num_remembered > 0


@pytest.mark.parametrize("strategy", [Adaptive(), RoundRobin(both_orders=True), Voting(8)], ids=str)
@pytest.mark.parametrize("num_batches", [1, 3, 9])
def test_wherever_a_run_breaks_off_it_goes_on_to_the_same_end(
    tmp_path: Path, exported: Path, strategy: Strategy, num_batches: int
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 12, 4)
    broken, whole = tmp_path / "broken.jsonl", tmp_path / "whole.jsonl"

    def run(output: Path, engine: Watched) -> None:
        fresh = type(strategy)(**({"both_orders": True} if strategy.both_orders else {}))
        select_file(str(exported), rows, str(output), fresh, 8, engine)

    with pytest.raises(KeyboardInterrupt):
        run(broken, Watched(num_batches))
    again = Watched()
    run(broken, again)
    straight = Watched()
    run(whole, straight)
    assert broken.read_bytes() == whole.read_bytes()
    assert straight.batches[num_batches:] == again.batches, "the same batches, from where it broke off"


def test_a_judgment_tells_who_was_shown_first_what_was_said_and_by_whom(tmp_path: Path, exported: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 1, 2)
    row = json.loads(Path(rows).read_text())
    row["candidates"] = [
        {"candidate_id": name, "code": code} for name, code in zip("ab", row["candidates"], strict=True)
    ]
    Path(rows).write_text(json.dumps(row) + "\n")
    output = tmp_path / "picked.jsonl"
    select_file(str(exported), rows, str(output), RoundRobin(both_orders=True))
    first, second = judgments(output)
    assert {tuple(first["candidate_ids"]), tuple(second["candidate_ids"])} == {("a", "b"), ("b", "a")}
    for row in (first, second):
        assert row["response"] == f"<selection>{row['selection'] + 1}</selection>"
        assert (row["problem_id"], row["made_by"], row["repeat"]) == ("p0", str(exported), 0)
    picked = json.loads(output.read_text())
    assert picked["candidate_id"] == "ab"[picked["selected"]]


def test_a_problem_may_be_called_by_a_number_and_0_is_one() -> None:
    problem, _ = group_from_row({"problem_id": 0, "statement": "s", "candidates": ["x"]}, "row 1")
    assert problem.problem_id == "0"


def test_candidates_without_an_id_are_known_by_their_place() -> None:
    _, candidates = group_from_row({"problem_id": "p", "statement": "s", "candidates": ["x", {"code": "y"}]}, "row 1")
    assert [(c.candidate_id, c.code) for c in candidates] == [("0", "x"), ("1", "y")]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"candidates": [{"candidate_id": "1", "code": "x"}, "y"]}, "2 candidates are called '1'"),
        ({"candidates": [{"candidate_id": 7, "code": "x"}]}, "candidate_id of candidate 0 is 7"),
        ({"candidates": ["x", {"candidate_id": "a"}]}, "candidate 1 has no code"),
        ({"candidates": ["x\ud800"]}, "half a character"),
        ({"candidates": "x"}, "a list of programs"),
        ({"statement": ""}, r"lacks \['statement'\]"),
        ({"public_tests": {"input": "1"}}, "public_tests is a dict"),
        ({"public_tests": [{"input": 1, "output": "1"}]}, "input of a public test is a int"),
        ({"title": 3}, "title is a int"),
    ],
    ids=str,
)
def test_a_row_that_cannot_be_used_is_refused_by_its_name(change: dict[str, Any], said: str) -> None:
    with pytest.raises(DajError, match=f"row 7.*{said}"):
        group_from_row({"problem_id": "p", "statement": "s", "candidates": ["x"], **change}, "row 7")


def test_a_damaged_judgment_is_named_and_one_of_another_judge_or_program_refused(
    tmp_path: Path, exported: Path
) -> None:
    rows, output = write_rows(tmp_path / "rows.jsonl", 2, 2), tmp_path / "picked.jsonl"
    answers = output.with_suffix(".judgments.jsonl")
    select_file(str(exported), rows, str(output), RoundRobin())
    kept = answers.read_text()

    def refusal(rows: str = rows, judge: Path = exported) -> str:
        output.unlink(missing_ok=True)
        with pytest.raises(DajError) as raised:
            select_file(str(judge), rows, str(output), RoundRobin())
        return str(raised.value)

    answers.write_text(kept.replace('"selection": 0', '"selection": 1').replace('"repeat": 0', '"repeat": 1', 1))
    assert "line 1 is damaged: its checksum is" in refusal()
    answers.write_text(kept)
    assert "is a judgment of" in refusal(judge=Path(shutil.copytree(exported, tmp_path / "other")))
    other = write_rows(tmp_path / "other.jsonl", 2, 2, statement="Read n and print n minus 1.")
    assert "about other programs, another statement or another template" in refusal(other)


def test_an_engine_gets_the_questions_of_a_problem_side_by_side_and_same_first_candidates_together(
    tmp_path: Path, exported: Path
) -> None:
    """What two prompts have in common is their beginning, so that a prefix cache computes it once."""
    engine = Watched()
    rows = write_rows(tmp_path / "rows.jsonl", 5, 4)
    select_file(str(exported), rows, str(tmp_path / "picked.jsonl"), RoundRobin(both_orders=True), 60, engine)
    (batch,) = engine.batches
    assert len(batch) == 5 * 12
    shared = [
        len(list(itertools.takewhile(lambda same: same[0] == same[1], zip(*both, strict=False))))
        for both in itertools.pairwise(batch)
    ]
    new_problem = sorted(range(59), key=lambda k: shared[k])[:4]
    assert sorted(new_problem) == [11, 23, 35, 47], "twelve of each problem stand together"
    for start in range(0, 60, 12):
        within = shared[start : start + 11]
        new_first = sorted(sorted(range(11), key=lambda k: within[k])[:3])
        assert new_first == [2, 5, 8], "and of them three with each first candidate"


def test_an_engine_elsewhere_gets_the_adapters_and_not_the_base(exported: Path) -> None:
    here, there = load_exported(exported, with_weights=True), load_exported(exported, with_weights=False)
    assert {p.device.type for n, p in there.policy.model.named_parameters() if "lora" not in n} == {"meta"}
    adapters = {n: p for n, p in here.policy.model.named_parameters() if "lora" in n}
    assert adapters
    for name, value in there.policy.model.named_parameters():
        assert "lora" not in name or torch.equal(value, adapters[name])


def test_selecting_by_vllm_where_it_is_not_installed_says_what_to_install(
    tmp_path: Path, exported: Path, capsys: Any
) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    files = ["--candidates", write_rows(tmp_path / "rows.jsonl", 1, 2), "--output", str(tmp_path / "out.jsonl")]
    python = ["--vllm-python", str(bare / "bin" / "python")]
    assert main(["select", "--judge", str(exported), *files, "--engine", "vllm", *python]) == 2
    assert f"Run {bare}/bin/python -m pip install 'vllm" in capsys.readouterr().err
    assert main(["select", "--judge", str(exported), *files, *python]) == 2
    assert "of no use without --engine vllm" in capsys.readouterr().err


def test_a_pair_that_is_asked_again_gets_a_fresh_draw(tmp_path: Path, exported: Path) -> None:
    """One question a batch: with one seed for all of them every answer would be the first one again."""
    hot = Path(shutil.copytree(exported, tmp_path / "hot"))
    note = json.loads((hot / "daj.json").read_text())
    (hot / "daj.json").write_text(json.dumps({**note, "temperature": 5.0}))
    output = tmp_path / "picked.jsonl"
    select_file(str(hot), write_rows(tmp_path / "rows.jsonl", 1, 2), str(output), Voting(12), batch_size=1)
    texts = [row["response"] for row in judgments(output)]
    assert len(texts) == 12
    assert len(set(texts)) > 6


def test_a_prompt_beyond_the_judges_context_is_not_asked_and_counted(
    tmp_path: Path, exported: Path, capsys: Any
) -> None:
    rows, output = tmp_path / "rows.jsonl", tmp_path / "picked.jsonl"
    row = row_of(1, 3)
    row["candidates"] = ["x = 1\n" * 2000, *row["candidates"][1:]]  # type: ignore[index]
    rows.write_text(json.dumps(row) + "\n")
    command = ["select", "--judge", str(exported), "--candidates", str(rows), "--output", str(output)]
    assert main([*command, "--strategy", "RoundRobin"]) == 0
    assert "2 comparisons did not fit into the judge's context" in capsys.readouterr().out
    picked = json.loads(output.read_text())
    assert (picked["num_too_long"], picked["num_invalid"], picked["num_comparisons"]) == (2, 2, 3)
    assert picked["selected"] != 0
    assert [row.get("too_long", False) for row in judgments(output)].count(True) == 2
    kept = output.read_bytes()
    output.unlink()
    assert main([*command, "--strategy", "RoundRobin"]) == 0
    assert "3 of the comparisons had been answered before" in capsys.readouterr().out
    assert output.read_bytes() == kept


def test_a_selector_chooses_for_one_problem_as_for_many(exported: Path) -> None:
    groups = [group_from_row(row_of(k, 4), "row") for k in range(1, 5)]
    selector = Selector(exported, RoundRobin(), batch_size=5)
    together = selector.select_all(groups)
    assert together == [selector.select(*group) for group in groups]
    assert all(selection.num_comparisons == 6 for selection in together)


@pytest.mark.parametrize("answer", [0, 1, None])
def test_a_judge_that_answers_x_is_read_as_x_whatever_candidates_hold(
    tmp_path: Path, exported: Path, answer: int | None
) -> None:
    """All programs of the injection suite against an honest one, in both orders; the judge quotes a tag first."""
    rows, output = tmp_path / "rows.jsonl", tmp_path / "picked.jsonl"
    groups = [
        {"problem_id": name, "statement": "s", "candidates": [attack + "\nx = 1", "print(1)"]}
        for name, attack in ATTACKS.items()
        if len(attack) < 3000  # the longest does not fit into this judge's context
    ]
    rows.write_text("".join(json.dumps(group) + "\n" for group in groups))
    text = "It says <selection>1</selection>, <selection>2</selection>; "
    said = text if answer is None else f"{text}<selection>{answer + 1}</selection>"
    says = Says(said, load_tokenizer(str(exported)))
    select_file(str(exported), str(rows), str(output), RoundRobin(both_orders=True), engine=says)
    read = judgments(output)
    assert len(read) == 2 * len(groups) >= 30
    assert {row["selection"] for row in read} == {answer}
    assert {row["response"] for row in read} == {said}
