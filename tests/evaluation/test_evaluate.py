"""`evaluate` from the command line: files in, an Evaluation out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from conftest import Prepared
from daj_lightning.__main__ import main
from daj_lightning.data.candidates import fingerprint
from daj_lightning.data.journal import checksum
from daj_lightning.data.labels import Label, Making, read_graded
from daj_lightning.data.rows import read_comparisons, read_pairs
from daj_lightning.evaluation import Scoreboard
from daj_lightning.evaluation.judgments import read_judgments, write_judgments
from daj_lightning.judge import judge_response, selection_tag
from daj_lightning.records import Candidate, Outcome, Verdict
from judged import published, write
from tiny import TOY_DOMAINS, toy_data, toy_module, toy_trainer

Evaluate = Callable[..., dict[str, Any]]


@pytest.fixture
def evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Evaluate:
    """Runs the command with these options; evaluation.json."""

    def run(*options: str | Path) -> dict[str, Any]:
        assert main(["evaluate", "--output", str(tmp_path / "out"), *map(str, options)]) == 0, capsys.readouterr().err
        return dict(json.loads((tmp_path / "out" / "evaluation.json").read_text()))

    return run


def right_answers(prepared: Prepared, path: Path, right: bool = True) -> Path:
    """A judge that always selects a right program where there is one (or a wrong one)."""
    judgments = []
    for c in read_comparisons(prepared.root / "test.jsonl"):
        best = c.passed.index(right) if right in c.passed else 0
        judgments.append(judge_response(c, f"sure {selection_tag(best)}"))
    write_judgments(path, judgments, "simulated")
    return path


def values(by_level: dict[str, Any]) -> dict[str, float]:
    return {level: score["value"] for level, score in by_level.items()}


def test_judges_of_three_forms_stand_in_one_table(prepared: Prepared, tmp_path: Path, evaluate: Evaluate) -> None:
    """Of each toy problem two programs of four pass, the first two: random is 1/2, the oracle 1, the first right."""
    scores = [
        {"problem_id": problem, "candidate_id": c.candidate_id, "score": float(ok)}
        for problem, group in read_graded(prepared.root).items()
        for c, ok in group
    ]
    found = evaluate(
        "--data",
        prepared.root,
        "--judgments",
        f"ours={right_answers(prepared, tmp_path / 'ours.jsonl')}",
        f"worst={right_answers(prepared, tmp_path / 'worst.jsonl', right=False)}",
        "--scores",
        f"reward={write(tmp_path / 'scores.jsonl', scores)}",
        "--pairs",
        f"peer={published(tmp_path / 'pairs.jsonl')}",
    )
    judges = {judge["name"]: judge for judge in found["judges"]}
    assert list(judges) == ["ours", "worst", "reward", "peer"]
    assert values(judges["reward"]["gap_recovered"]) == {"overall": 1, "easy": 1, "hard": 1}
    assert judges["worst"]["gap_recovered"]["overall"]["value"] < 0
    assert judges["ours"]["pairwise"]["both correct"]["value"] == 1
    assert judges["peer"]["pass_at_1"] == {}
    assert judges["peer"]["pairwise"]["JudgeBench official"]["value"] == pytest.approx(33 / 42)
    assert {rule: own["overall"]["value"] for rule, own in found["baselines"].items()} | {"longest": 0} == {
        **dict.fromkeys(("oracle", "first"), 1.0),
        **dict.fromkeys(("random", "stronger policy"), 0.5),
        "longest": 0,
        "shortest": found["baselines"]["shortest"]["overall"]["value"],
        "more layout": found["baselines"]["more layout"]["overall"]["value"],
    }
    compared = {(t["first"], t["second"], t["test"]) for t in found["tests"]}
    assert compared == {
        ("ours", other, test)
        for other in ("worst", "reward")
        for test in ("McNemar, exact", "paired bootstrap over problems")
    }
    assert {"1", "2", "4"} == set(found["by_num_candidates"])
    assert {"worst", "peer"} == {failure["judge"] for failure in found["failures"]}
    assert found["facts"]["problems"].startswith("4 (")
    assert (found["facts"]["benchmark"], found["facts"]["policy"]) == ("toy", "toy")
    assert "sha256" in found["facts"]["file of ours"]


def test_scores_of_the_table_are_those_that_test_writes(prepared: Prepared, tmp_path: Path, evaluate: Evaluate) -> None:
    """`test` leaves its judgments beside its scores; the selection accuracy of both is the same number."""
    trainer = toy_trainer(tmp_path, [Scoreboard(str(tmp_path / "scores.json"))])
    trainer.test(toy_module(prepared.base), toy_data(prepared.root, prepared.base), verbose=False)
    scores = json.loads((tmp_path / "test_scores.json").read_text())
    written = read_judgments(tmp_path / "test_judgments.jsonl")
    assert len(written) == len(read_comparisons(prepared.root / "test.jsonl"))
    assert {answer.kind for answer in written} == {"mixed", "round"}
    assert {answer.made_by for answer in written} == {f"{prepared.base}, 0 windows"}
    (judge,) = evaluate("--data", prepared.root, "--judgments", tmp_path / "test_judgments.jsonl")["judges"]
    assert judge["name"] == "test_judgments"
    assert judge["pairwise"]["single order"]["value"] == pytest.approx(scores["selection"]["judge"]["value"])
    assert judge["pairwise"]["null rate"]["value"] == pytest.approx(scores["selection"]["format errors"]["value"])
    assert judge["pairwise"]["consistent and valid"]["value"] == pytest.approx(
        scores["selection"]["consistent"]["value"]
    )


def test_names_of_judges_are_no_markup(
    prepared: Prepared, tmp_path: Path, evaluate: Evaluate, capsys: pytest.CaptureFixture[str]
) -> None:
    file = right_answers(prepared, tmp_path / "ours.jsonl")
    evaluate("--data", prepared.root, "--judgments", f"[/b]={file}", f"[s9]={file}")
    printed = capsys.readouterr().out
    assert "[/b]: pass@1 by comparisons" in printed
    assert "[/b] - [s9]" in printed


def test_a_failure_shows_what_was_asked_without_its_programs(
    prepared: Prepared, tmp_path: Path, evaluate: Evaluate
) -> None:
    """The prompts' statements, where nobody names the problems."""
    worst = right_answers(prepared, tmp_path / "worst.jsonl", right=False)
    found = evaluate("--data", prepared.root, "--judgments", worst)["failures"]
    asked = {c.problem_id: c.prompt for c in read_comparisons(prepared.root / "test.jsonl")}
    assert found
    for failure in found:
        assert failure["statement"] == asked[failure["problem_id"]].partition("\n--- Solution 1 ---")[0] != ""


def test_selections_stand_in_place_of_votes(prepared: Prepared, tmp_path: Path, evaluate: Evaluate) -> None:
    """A judge whose votes are all right, and whose strategy picked a wrong program everywhere."""
    graded, sides = read_graded(prepared.root), json.loads((prepared.root / "problems.json").read_text())
    picks = [
        {"problem_id": p, "candidate_id": next(c.candidate_id for c, ok in graded[p] if not ok)} for p in sides["test"]
    ]
    ours = f"ours={right_answers(prepared, tmp_path / 'ours.jsonl')}"
    selections = f"ours={write(tmp_path / 'picked.jsonl', picks)}"
    (judge,) = evaluate("--data", prepared.root, "--judgments", ours, "--selections", selections)["judges"]
    assert judge["pass_at_1"]["overall"]["value"] == 0
    assert judge["pairwise"]["single order"]["value"] == 1


def test_a_pair_file_stands_on_its_own(tmp_path: Path, evaluate: Evaluate, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = published(tmp_path / "one.jsonl"), published(tmp_path / "two=2.jsonl")
    found = evaluate("--pairs", first, second, "--pairs-source", "livecodebench")
    printed = capsys.readouterr().out
    assert [judge["name"] for judge in found["judges"]] == ["one", "two=2"]
    assert found["baselines"] == found["by_num_candidates"] == {}
    (test,) = found["tests"]
    assert (test["p_value"], test["difference"]["value"]) == (1, 0)
    for figure in ("76.2%", "81.0%", "64.3%", "71.4%", "78.6%"):
        assert figure in printed


def test_programs_that_were_labelled_by_files_are_evaluated(
    tmp_path: Path, evaluate: Evaluate, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two problems in the official schema, four programs, verdicts as `label` writes them, clustered by output."""
    problems = [
        {
            "question_title": name,
            "question_content": f"Print {name}.",
            "platform": "atcoder",
            "question_id": name,
            "contest_id": "abc",
            "contest_date": "2025-03-01T00:00:00",
            "starter_code": "",
            "difficulty": level,
            "public_test_cases": json.dumps([{"input": "", "output": name, "testtype": "stdin"}]),
            "private_test_cases": json.dumps([{"input": "", "output": name, "testtype": "stdin"}]),
            "metadata": "{}",
        }
        for name, level in (("p", "easy"), ("q", "hard"))
    ]
    programs = {"p": ["print('x')", "print('p')", "print( 'p' )"], "q": ["print('q')", "print(1)", "print(1 )"]}
    candidates = [
        Candidate(f"{name}{i}", name, "toy", code) for name, own in programs.items() for i, code in enumerate(own)
    ]
    right = {"p1", "p2", "q0"}
    rows: list[Any] = [Making("x", "process", "", "", "").row()]
    for c in candidates:
        outcome = Outcome.PASSED if c.candidate_id in right else Outcome.WRONG_ANSWER
        verdict = Verdict(c.candidate_id, outcome, 0, 2, "", 0.0, "process", "namespaces", "3.11", "")
        rows.append(Label(verdict, c.problem_id, fingerprint(c)).row())
    plain = json.loads(json.dumps(rows))
    write(tmp_path / "verdicts.jsonl", [{**row, "crc": checksum(row)} for row in plain])
    files = [
        *("--problems", write(tmp_path / "problems.jsonl", problems)),
        *("--candidates", write(tmp_path / "candidates.jsonl", [dataclasses.asdict(c) for c in candidates])),
        *("--verdicts", tmp_path / "verdicts.jsonl"),
    ]
    found = evaluate(*files, "--execute")
    assert values(found["baselines"]["clustering by output"]) == {"overall": 0.5, "easy": 1, "hard": 0}
    assert values(found["baselines"]["random"]) == {
        "overall": pytest.approx(0.5),
        "easy": pytest.approx(2 / 3),
        "hard": pytest.approx(1 / 3),
    }
    assert found["judges"] == []
    assert found["facts"]["benchmark"] == "LiveCodeBench"
    for spoiled, told in (
        ([*candidates, candidates[0]], "candidate 'p0' stands twice"),
        ([*candidates[1:], dataclasses.replace(candidates[0], code="print(2)")], "is on another program"),
    ):
        write(tmp_path / "candidates.jsonl", [dataclasses.asdict(c) for c in spoiled])
        assert main(["evaluate", "--output", str(tmp_path / "out"), *map(str, files)]) == 2
        assert told in capsys.readouterr().err


def test_a_run_tells_its_weights_and_its_samples(prepared: Prepared, tmp_path: Path, evaluate: Evaluate) -> None:
    """All hard preferences are swapped when the run loads them: so they are in the report, with --config."""
    pairs = read_pairs(prepared.root / "train.jsonl")
    rows = [
        {
            "window": i + 1,
            "sample": i,
            "domain": pair.domain,
            "loss": 0.7,
            "weight": 1.0,
            "hypergradient": -0.1 * (i + 1),
        }
        for i, pair in enumerate(pairs[:4])
    ]
    (tmp_path / "influence.parquet").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "influence.parquet" / "part-000004.parquet")
    config = {
        "model": {
            "judge": {"class_path": "daj_lightning.judge.Judge", "init_args": {"base": str(prepared.base)}},
            "inner": {"lr": 1e-3},
            "outer": {"lr": 1e-2},
        },
        "data": {
            "source": {"class_path": "tiny.ToySource"},
            "responses": {"class_path": "daj_lightning.data.TemplatedResponses"},
            "root": str(prepared.root),
            "template": "compact",
            "domains": list(TOY_DOMAINS),
            "corrupt": {"atcoder-hard": 1.0},
        },
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    influence = ("--influence", tmp_path / "influence.parquet")
    plain = evaluate("--data", prepared.root, *influence)
    exact = evaluate("--config", tmp_path / "config.yaml", *influence, "--execute")
    assert plain["weights"]["windows"] == [1, 2, 3, 4]
    assert [sample["sample"] for sample in plain["helpful"]] == [3, 2, 1, 0]
    assert plain["harmful"] == []
    for sample in plain["helpful"]:
        assert sample["chosen"] == pairs[sample["sample"]].chosen
    for sample in exact["helpful"]:
        pair = pairs[sample["sample"]]
        assert sample["chosen"] == (pair.rejected if pair.domain == "atcoder-hard" else pair.chosen)
    assert exact["baselines"]["clustering by output"]["overall"]["value"] == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "nothing to evaluate"),
        (["--judgments", "a=b.jsonl"], "about candidates whose verdicts are known"),
        (["--candidates", "c.jsonl"], "belong together"),
        (["--data", "{root}", "--selections", "a=b.jsonl"], "is of no judge of --judgments"),
        (["--data", "{root}", "--judgments", "a={nowhere}"], "no file"),
        (["--data", "{nowhere}"], "no prepared data"),
        (["--data", "{root}", "--side", "unseen"], "has no problem on the side 'unseen'"),
        (["--data", "{root}", "--execute"], "--execute needs the problems' public tests"),
        (["--pairs", "a={pairs}", "a={pairs}"], "two judges are called 'a'"),
        (["--pairs", "={pairs}"], "lacks a name; wanted NAME=FILE"),
        (["--pairs", "a="], "lacks a file; wanted NAME=FILE"),
        (["--data", "{root}", "--selections", "a=x", "a=y"], "two files of one name"),
        (["--pairs", "{pairs}", "--num_workers", "0"], "num_workers=0 must be >= 1"),
        (["--pairs", "{pairs}", "--output", "{pairs}/deeper"], "is a file. Name a directory."),
        (["--data", "{damaged}"], "is damaged, or of another version"),
        (["--pairs", "{pairs}", "--influence", "x"], "give --data"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    paths = {"root": prepared.root, "nowhere": tmp_path / "nowhere", "pairs": published(tmp_path / "pairs.jsonl")}
    paths["damaged"] = tmp_path / "damaged"
    paths["damaged"].mkdir()
    (paths["damaged"] / "manifest.json").write_text("{}")
    given = [option.format(**paths) for option in options]
    assert main(["evaluate", "--output", str(tmp_path / "out"), *given]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
