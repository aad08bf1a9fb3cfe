"""The hybrid: public tests first, the judge among the survivors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from daj_lightning.__main__ import main
from daj_lightning.execution import Sandbox, SandboxError
from daj_lightning.judge import RoundRobin
from daj_lightning.records import Candidate, DajError, Problem, TestCase
from daj_lightning.serving import Screener, Selector, group_from_row, select_file
from tiny_judge import program, row_of

RIGHT, WRONG, CRASHES, ENDLESS = program(3, 0), program(3, 1), "1 / 0", "while True: pass"


def row(*candidates: str, **more: Any) -> dict[str, Any]:
    return {**row_of(3, 1), "candidates": list(candidates), **more}


def select(tmp_path: Path, judge: Path, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    source, output = tmp_path / "rows.jsonl", tmp_path / "picked.jsonl"
    source.write_text("".join(json.dumps({**r, "problem_id": f"p{k}"}) + "\n" for k, r in enumerate(rows)))
    select_file(str(judge), str(source), str(output), RoundRobin(), screener=Screener(num_workers=1))
    picked = [json.loads(line) for line in output.read_text().splitlines()]
    return sorted(picked, key=lambda entry: entry["problem_id"])


def test_who_fails_a_public_test_is_out_and_the_row_says_who_and_why(tmp_path: Path, exported: Path) -> None:
    (picked,) = select(tmp_path, exported, row(WRONG, RIGHT, CRASHES, RIGHT + "\n)", RIGHT))
    assert picked["selected"] in (1, 4)
    assert picked["num_comparisons"] == 1, "of five candidates two are left"
    assert [picked["votes"][place] for place in (0, 2, 3)] == [0, 0, 0]
    out = {entry["candidate_id"]: entry for entry in picked["hybrid"]["out"]}
    assert {name: entry["outcome"] for name, entry in out.items()} == {
        "0": "wrong_answer", "2": "crashed", "3": "crashed"
    }  # fmt: skip
    assert out["0"]["detail"] == "test 1 of 1: wrong answer '-2\\n'"
    assert "ZeroDivisionError" in out["2"]["detail"]
    assert picked["hybrid"]["note"] == "2 of 5 passed the public tests"
    assert picked["hybrid"]["sandbox"].startswith(("namespaces", "bubblewrap"))


def test_a_single_survivor_wins_without_a_comparison(tmp_path: Path, exported: Path) -> None:
    (picked,) = select(tmp_path, exported, row(WRONG, WRONG + "#", RIGHT))
    assert (picked["selected"], picked["num_comparisons"], picked["confidence"]) == (2, 0, 1.0)
    assert not (tmp_path / "picked.judgments.jsonl").read_text()


def test_where_none_survives_the_judge_chooses_among_all_and_the_row_says_so(tmp_path: Path, exported: Path) -> None:
    (picked,) = select(tmp_path, exported, row(WRONG, CRASHES, WRONG + "#"))
    assert picked["num_comparisons"] == 3
    assert picked["hybrid"]["note"] == "no candidate passed the public tests: all judged"
    assert len(picked["hybrid"]["out"]) == 3


def test_a_problem_without_public_tests_is_judged_only(tmp_path: Path, exported: Path) -> None:
    tested, untested = select(tmp_path, exported, row(WRONG, RIGHT), row(CRASHES, RIGHT, public_tests=[]))
    assert tested["selected"] == 1
    assert untested["num_comparisons"] == 1
    assert untested["hybrid"] == {"note": "no public tests: judged only", "out": [], "sandbox": ""}


def test_a_method_is_called_where_the_row_names_one(tmp_path: Path, exported: Path) -> None:
    right = "class Solution:\n    def plus(self, n, k):\n        return n + k"
    tests = [{"input": "1\n2", "output": "3"}, {"input": "-1\n1", "output": "0"}]
    functional = {"function_name": "plus", "public_tests": tests}
    (picked,) = select(tmp_path, exported, row(right.replace("+", "*"), right, **functional))
    assert (picked["selected"], picked["num_comparisons"]) == (1, 0)
    assert picked["hybrid"]["out"][0]["detail"] == "test 1 of 2: wrong answer '2'"


def test_only_public_tests_are_run() -> None:
    """A problem of a benchmark has hidden tests too, which a selection must not see."""
    problem, _ = group_from_row(row(RIGHT), "row")
    spoiled = Problem(**{name: getattr(problem, name) for name in problem.__slots__} | {
        "hidden_tests": (TestCase("1\n", "no program prints this"),)
    })  # fmt: skip
    (screening,) = Screener(num_workers=1).screen([(spoiled, [Candidate("a", problem.problem_id, "", RIGHT)])])
    assert (screening.kept, screening.out) == ((0,), ())


def test_a_run_that_goes_on_executes_nothing_again(tmp_path: Path, exported: Path, monkeypatch: Any) -> None:
    first = select(tmp_path, exported, row(WRONG, RIGHT, RIGHT + "#"))
    executed: list[str] = []
    real = Sandbox.session
    monkeypatch.setattr(
        Sandbox, "session", lambda self, program, *a: executed.append(program.code) or real(self, program, *a)
    )
    both = select(tmp_path, exported, row(WRONG, RIGHT, RIGHT + "#"), row(RIGHT, WRONG))
    assert both[0] == first[0]
    assert [code for code in executed if "print(input())" not in code] == [RIGHT, WRONG]


def test_a_selection_by_the_judge_alone_is_not_gone_on_with_by_a_hybrid(tmp_path: Path, exported: Path) -> None:
    select(tmp_path, exported, row(RIGHT, WRONG))
    with pytest.raises(DajError, match=r"holds selections of .*, after public tests"):
        select_file(str(exported), str(tmp_path / "rows.jsonl"), str(tmp_path / "picked.jsonl"), RoundRobin())


def test_select_prints_what_the_tests_did(tmp_path: Path, exported: Path, capsys: Any) -> None:
    source = tmp_path / "rows.jsonl"
    rows = [row(WRONG, RIGHT, ENDLESS), row(WRONG, CRASHES), row(RIGHT, RIGHT + "#", public_tests=[])]
    source.write_text("".join(json.dumps({**r, "problem_id": f"p{k}"}) + "\n" for k, r in enumerate(rows)))
    command = ["select", "--judge", str(exported), "--candidates", str(source), "--output", str(tmp_path / "out.jsonl")]
    options = ["--hybrid", "true", "--num_workers", "1", "--limits.test_wall_s", "1", "--limits.test_cpu_s", "1"]
    assert main([*command, *options]) == 0
    said = capsys.readouterr().out
    assert "public tests took 4 candidates out; 1 problems had none that passed, 1 had no public tests" in said
    out = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])["hybrid"]["out"]
    assert {entry["outcome"] for entry in out} == {"wrong_answer", "timed_out"}


def test_where_no_isolation_works_a_hybrid_is_refused_and_unsafe_local_is_stamped(
    tmp_path: Path, exported: Path, monkeypatch: Any, capsys: Any
) -> None:
    real = Sandbox.start_in

    def start_in(self: Sandbox, mode: Any) -> None:
        if mode != "unsafe-local":
            raise SandboxError("this host allows none")
        real(self, mode)

    monkeypatch.setattr(Sandbox, "start_in", start_in)
    (tmp_path / "rows.jsonl").write_text(json.dumps(row(WRONG, RIGHT)) + "\n")
    command = ["select", "--judge", str(exported), "--candidates", str(tmp_path / "rows.jsonl")]
    command += ["--output", str(tmp_path / "out.jsonl")]
    assert main([*command, "--hybrid"]) == 2
    assert "nothing on this host can shut in untrusted programs" in capsys.readouterr().err
    assert main([*command, "--unsafe-local"]) == 2
    assert "of no use without --hybrid true" in capsys.readouterr().err
    assert main([*command, "--hybrid", "--unsafe-local"]) == 0
    assert json.loads((tmp_path / "out.jsonl").read_text())["hybrid"]["sandbox"].startswith("unsafe-local")


def test_a_selector_may_screen_too(exported: Path) -> None:
    selector = Selector(exported, RoundRobin(), screener=Screener(num_workers=1))
    selection = selector.select(*group_from_row(row(WRONG, RIGHT), "row"))
    assert (selection.winner, selection.votes, selection.num_comparisons) == (1, (0, 0), 0)
