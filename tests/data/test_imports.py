"""Verdicts of other graders become candidates and labels that say what the file says."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from daj_lightning.__main__ import main
from daj_lightning.data import labelling as engine
from daj_lightning.data.candidates import read_candidates
from daj_lightning.data.imports import import_graded
from daj_lightning.data.labels import read_graded, read_labels
from daj_lightning.data.prepare import prepare
from daj_lightning.records import Candidate, DajError, Outcome, Problem
from tiny import ToySource, toy_data


def lcb_row(**changed: Any) -> dict[str, Any]:
    """Three outputs: right, wrong, and one without code."""
    row = {
        "question_id": "abc300_a",
        "platform": "atcoder",
        "difficulty": "easy",
        "contest_date": "2023-04-29T00:00:00",
        "output_list": ["```python\nprint(1)\n```", "```python\nprint(2)\n```", "No idea."],
        "code_list": ["print(1)", "print(2)", ""],
        "graded_list": [True, False, False],
        "metadata": [
            '{"execution time": 0.1}',
            '{"error_code": -2, "error_message": "Wrong answer at output_line_idx=0: 2 != 1"}',
            '{"error_code": -4, "error_message": "Error during testing"}',
        ],
    }
    return {**row, **changed}


def save(path: Path, data: Any) -> Path:
    text = json.dumps(data).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize("name", ["graded.json", "graded.json.gz"])
def test_livecodebenchs_graded_outputs_become_rows(tmp_path: Path, name: str) -> None:
    graded = save(tmp_path / name, [lcb_row(), lcb_row(question_id="abc300_b", graded_list=[False, True, False])])
    assert import_graded(graded, "lcb_eval_all", "m", tmp_path / "out") == (6, 2)
    own = list(read_candidates(tmp_path / "out" / "candidates.jsonl"))
    assert own[:3] == [
        Candidate("abc300_a/m/0", "abc300_a", "m", "print(1)"),
        Candidate("abc300_a/m/1", "abc300_a", "m", "print(2)"),
        Candidate("abc300_a/m/2", "abc300_a", "m", ""),
    ]
    assert own[3].candidate_id == "abc300_b/m/0"
    first = json.loads((tmp_path / "out" / "candidates.jsonl").read_text().splitlines()[0])
    assert first["response"] == "```python\nprint(1)\n```"
    labels = read_labels([tmp_path / "out" / "verdicts.jsonl"])
    shown = {name: (label.verdict.outcome, label.verdict.detail) for name, label in labels.items()}
    assert shown["abc300_a/m/0"] == (Outcome.PASSED, "")
    assert shown["abc300_a/m/1"] == (Outcome.WRONG_ANSWER, "Wrong answer at output_line_idx=0: 2 != 1")
    assert shown["abc300_a/m/2"] == (Outcome.CRASHED, "no code in the response")
    assert {(label.verdict.grader, label.verdict.sandbox) for label in labels.values()} == {("lcb-import", "unknown")}


@pytest.mark.parametrize(
    ("note", "outcome"),
    [
        ('{"error_code": -3, "error_message": "Time Limit Exceeded"}', Outcome.TIMED_OUT),
        ('{"error_code": -4, "error_message": "Runtime Error"}', Outcome.CRASHED),
        ('{"error_code": -5, "error_message": "TestRunnerError"}', Outcome.CRASHED),
        ("{}", Outcome.WRONG_ANSWER),
        ("not JSON", Outcome.WRONG_ANSWER),
        ({"error_code": -3}, Outcome.TIMED_OUT),
    ],
)
def test_livecodebenchs_error_code_decides_how_a_program_failed(tmp_path: Path, note: Any, outcome: Outcome) -> None:
    row = lcb_row(output_list=["x"], code_list=["print(1)"], graded_list=[False], metadata=[note])
    import_graded(save(tmp_path / "g.json", [row]), "lcb_eval_all", "m", tmp_path / "out")
    assert read_labels([tmp_path / "out" / "verdicts.jsonl"])["abc300_a/m/0"].verdict.outcome is outcome


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"eval": {}}, "holds a dict, wanted a list"),
        ([3], "row 0 holds a int, wanted an object"),
        ([lcb_row(), {"question_id": "p"}], r"row 1 \(p\) lacks 'code_list'"),
        ([lcb_row(graded_list=[True])], r"row 0 \(abc300_a\) has 3 programs, 1 grades"),
        ([lcb_row(graded_list=[1, 0, 0])], "graded_list holds a int, wanted a bool"),
        ([lcb_row(code_list=[None, "", ""])], "code_list holds a NoneType, wanted a str"),
        ([lcb_row(graded_list=[True, True, True])], r"row 0 \(abc300_a\) has no code, and is graded as passing"),
        ([], "holds no graded program"),
    ],
)
def test_a_file_that_is_not_livecodebenchs_is_refused_by_file_and_row(tmp_path: Path, data: Any, said: str) -> None:
    with pytest.raises(DajError, match=rf"g\.json.*{said}"):
        import_graded(save(tmp_path / "g.json", data), "lcb_eval_all", "m", tmp_path / "out")
    assert not (tmp_path / "out" / "verdicts.jsonl").exists()


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "g.json").write_text("[{")
    (tmp_path / "g.json.gz").write_bytes(gzip.compress(b"[]" * 5000)[:-9])
    for name, said in (("nowhere.json", "no file"), ("g.json", "is not JSON"), ("g.json.gz", "cannot be unpacked")):
        with pytest.raises(DajError, match=said):
            import_graded(tmp_path / name, "lcb_eval_all", "m", tmp_path / "out")


def test_an_import_does_not_touch_what_is_there(tmp_path: Path) -> None:
    graded = save(tmp_path / "g.json", [lcb_row()])
    import_graded(graded, "lcb_eval_all", "m", tmp_path)
    with pytest.raises(DajError, match=r"there is .*candidates\.jsonl and .*verdicts\.jsonl"):
        import_graded(graded, "lcb_eval_all", "n", tmp_path)


def test_two_imports_joined_are_one_file(tmp_path: Path) -> None:
    graded = save(tmp_path / "g.json", [lcb_row()])
    for policy in "mn":
        import_graded(graded, "lcb_eval_all", policy, tmp_path / policy)
    both = [tmp_path / policy / "verdicts.jsonl" for policy in "mn"]
    (tmp_path / "both.jsonl").write_bytes(b"".join(path.read_bytes() for path in both))
    assert read_labels([tmp_path / "both.jsonl"]) == read_labels(both)


PROMPT = "import os\ndef task_func(a):\n"


def bcb(*statuses: str, calibrated: bool = True) -> dict[str, Any]:
    """One task; program k returns k."""
    before = PROMPT + "\n    pass\n" if calibrated else ""
    rows = [
        {
            "task_id": "BigCodeBench/7",
            "solution": f"{before}def task_func(a):\n    return {k}",
            "status": status,
            "details": {"test_case_1": "Traceback ...\nAssertionError: 1 != 2\n"} if status == "fail" else {},
        }
        for k, status in enumerate(statuses)
    ]
    return {"date": "2024-10-01 10:00", "eval": {"BigCodeBench/7": rows}}


@pytest.mark.parametrize("calibrated", [True, False])
def test_bigcodebenchs_results_become_rows_without_the_signature_before_them(tmp_path: Path, calibrated: bool) -> None:
    graded = save(tmp_path / "m_eval_results.json", bcb("pass", "fail", "timeout", calibrated=calibrated))
    assert import_graded(graded, "bigcodebench", "m", tmp_path / "out") == (3, 1)
    own = list(read_candidates(tmp_path / "out" / "candidates.jsonl"))
    assert [c.code for c in own] == [f"def task_func(a):\n    return {k}" for k in range(3)]
    verdicts = [label.verdict for label in read_labels([tmp_path / "out" / "verdicts.jsonl"]).values()]
    assert [v.outcome for v in verdicts] == [Outcome.PASSED, Outcome.WRONG_ANSWER, Outcome.TIMED_OUT]
    assert verdicts[1].detail == "test_case_1 AssertionError: 1 != 2"
    assert {v.forgeable for v in verdicts} == {True}


@pytest.mark.parametrize(
    "program",
    [
        "class Node:\n    pass\n\ndef task_func(a):\n    return Node()",
        "def helper():\n    pass\n\ndef task_func(a):\n    return helper()",
        "def task_func(a):\n    if a:\n        pass\n    pass\n    return 1",
        "def task_func(a):\n    return 1\n\ndef task_func(a):\n    pass\n",
        "def task_func(a:\n    pass\nprint(1)",
        "",
    ],
)
def test_a_program_that_holds_a_pass_of_its_own_is_not_cut(tmp_path: Path, program: str) -> None:
    data = bcb("fail")
    data["eval"]["BigCodeBench/7"][0]["solution"] = program
    import_graded(save(tmp_path / "r.json", data), "bigcodebench", "m", tmp_path / "out")
    assert [c.code for c in read_candidates(tmp_path / "out" / "candidates.jsonl")] == [program]


def test_a_pass_in_the_program_behind_the_signature_stays(tmp_path: Path) -> None:
    """And so does one before it: the first mark behind which the program can stand counts."""
    data = bcb("pass")
    before = "import os\nclass Given:\n    pass\n\ndef task_func(a):\n\n    pass\n"
    program = "class Node:\n    pass\n\ndef task_func(a):\n    return Node()"
    data["eval"]["BigCodeBench/7"][0]["solution"] = before + program
    import_graded(save(tmp_path / "r.json", data), "bigcodebench", "m", tmp_path / "out")
    assert [c.code for c in read_candidates(tmp_path / "out" / "candidates.jsonl")] == [program]


def test_bigcodebenchs_programs_can_be_taken_from_the_samples(tmp_path: Path) -> None:
    graded = save(tmp_path / "r.json", bcb("pass", "fail"))
    samples = tmp_path / "s.jsonl"
    rows = [{"task_id": "BigCodeBench/7", "solution": f"def task_func(a):\n    return {k}"} for k in range(2)]
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    import_graded(graded, "bigcodebench", "m", tmp_path / "out", samples)
    assert [c.code for c in read_candidates(tmp_path / "out" / "candidates.jsonl")] == [r["solution"] for r in rows]
    samples.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    with pytest.raises(DajError, match=r"row 0 is not sample 0 of BigCodeBench/7 in .*s\.jsonl"):
        import_graded(graded, "bigcodebench", "m", tmp_path / "again", samples)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "holds a list, wanted an object"),
        ({"date": ""}, "lacks 'eval'"),
        ({"eval": {"t": [{"status": "pass"}]}}, "t, row 0 lacks 'solution'"),
        ({"eval": {"t": [{"status": "ok", "solution": "x"}]}}, "t, row 0 has the status 'ok'"),
        ({"eval": {"t": {"status": "ok"}}}, "t holds a dict, wanted a list"),
    ],
)
def test_a_file_that_is_not_bigcodebenchs_is_refused_by_file_and_row(tmp_path: Path, data: Any, said: str) -> None:
    with pytest.raises(DajError, match=rf"g\.json.*{said}"):
        import_graded(save(tmp_path / "g.json", data), "bigcodebench", "m", tmp_path / "out")


@pytest.mark.parametrize(
    ("base", "plus", "outcome"),
    [
        ("pass", "pass", Outcome.PASSED),
        ("pass", "fail", Outcome.WRONG_ANSWER),
        ("fail", "pass", Outcome.WRONG_ANSWER),
        ("pass", "timeout", Outcome.TIMED_OUT),
        ("pass", None, Outcome.PASSED),
    ],
)
def test_evalplus_programs_pass_where_both_suites_do(
    tmp_path: Path, base: str, plus: str | None, outcome: Outcome
) -> None:
    row = {"solution": "def f(): ...", "base_status": base, "plus_status": plus, "base_fail_tests": []}
    import_graded(
        save(tmp_path / "g.json", {"eval": {"HumanEval/0": [row]}, "hash": "x"}), "evalplus", "m", tmp_path / "out"
    )
    assert read_labels([tmp_path / "out" / "verdicts.jsonl"])["HumanEval/0/m/0"].verdict.outcome is outcome


class Imported(ToySource):
    """Three of the toy problems, with the candidates of an import."""

    def __init__(self, candidates: Path) -> None:
        self.candidates = candidates

    def load(self) -> tuple[list[Problem], list[Candidate]]:
        problems, _ = super().load()
        own = list(read_candidates(self.candidates))
        return [p for p in problems if p.problem_id in {c.problem_id for c in own}], own


def test_imported_verdicts_are_prepared_without_executing_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even on a host without any isolation."""
    graded = [lcb_row(question_id=name) for name in ("plus-1", "plus-9", "plus-15")]
    for k, row in enumerate(graded):  # a program of its own each, or they are copies of each other
        row["code_list"] = [f"print({k}, 'right')", f"print({k}, 'wrong')", ""]
    save(tmp_path / "g.json", graded)
    import_argv = ["--graded", str(tmp_path / "g.json"), "--policy", "m", "--output_dir", str(tmp_path / "in")]
    assert main(["import", "--format", "lcb_eval_all", *import_argv]) == 0

    def no_sandbox(*args: Any, **kwargs: Any) -> None:
        raise DajError("nothing on this host can shut in untrusted programs")

    monkeypatch.setattr(engine, "Sandbox", no_sandbox)
    source = Imported(tmp_path / "in" / "candidates.jsonl")
    data = toy_data(tmp_path / "root", tmp_path, source=source, verdicts=str(tmp_path / "in" / "verdicts.jsonl"))
    manifest = prepare(data.preparation, data.root, Console(file=io.StringIO()))
    assert manifest["execution"]["grader"] == ["lcb-import"]
    assert [ok for _, ok in read_graded(data.root)["plus-9"]] == [True, False, False]
    assert manifest["counts"]["train"] == 2
