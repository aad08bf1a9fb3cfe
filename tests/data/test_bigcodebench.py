"""BigCodeBench's rows become problems; every task gets one domain and one side, and what decided is reported."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import random
import re
import time
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet
from rich.console import Console

from daj_lightning.data import BCB_DOMAINS, BigCodeBenchSource, problem_from_task
from daj_lightning.data.bigcodebench import TIES, assign_sides, leading_domains, libraries
from daj_lightning.data.bigcodebench_files import (
    MAX_ROW_BYTES,
    read_domains,
    read_hard_ids,
    read_pass_rates,
    read_tasks,
)
from daj_lightning.data.splits import split_of
from daj_lightning.execution import Limits, Sandbox, grade
from daj_lightning.records import Candidate, DajError, UnitTests

PROMPT = "import os\ndef task_func(path):\n"
TESTS = """\
import unittest
class TestCases(unittest.TestCase):
    def test_name(self):
        self.assertEqual(task_func("/a/b.c"), "b.c")
    def test_empty(self):
        self.assertEqual(task_func(""), "")
"""


def row(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "task_id": f"BigCodeBench/{number}",
        "complete_prompt": PROMPT + '    """The last part of a path."""\n',
        "instruct_prompt": "The last part of a path.",
        "canonical_solution": "    return os.path.basename(path)",
        "code_prompt": PROMPT,
        "test": TESTS,
        "entry_point": "task_func",
        "doc_struct": "{}",
        "libs": "['os']",
        **changes,
    }


def problem(**changes: Any) -> Any:
    return problem_from_task(row(**changes), variant="instruct", topic="System", split="train")


# Rows


def test_a_row_becomes_a_problem_with_unit_tests() -> None:
    read = problem()
    assert read.unit_tests == UnitTests(source=TESTS, entry_point="task_func", code_prompt=PROMPT)
    assert (read.problem_id, read.platform, read.statement) == (
        "BigCodeBench/1",
        "bigcodebench",
        row()["instruct_prompt"],
    )
    assert (read.public_tests, read.hidden_tests, read.release_date, read.function_name) == ((), (), None, None)
    assert (read.domain, split_of(read), read.starter_code) == ("System", "train", PROMPT)


def test_the_variant_chooses_the_statement() -> None:
    complete = problem_from_task(row(), variant="complete", topic="System", split="test")
    assert complete.statement == row()["complete_prompt"]


def test_the_prompt_does_not_tell_the_sides_apart() -> None:
    assert (
        len({problem_from_task(row(), variant="instruct", topic="Time", split=s).difficulty for s in ("train", "test")})
        == 1
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"test": None}, "test is 'None', wanted text"),
        ({"instruct_prompt": " "}, "instruct_prompt is ' ', wanted text"),
        ({"test": "class TestCases("}, "the unit tests do not parse"),
        ({"test": "x = 1"}, "no test in a class TestCases; every program would pass"),
        ({"code_prompt": "def task_func(\n"}, "code_prompt does not parse"),
        ({"code_prompt": "import os\ndef other():\n"}, "defines other, and the entry point is 'task_func'"),
        ({"entry_point": 3}, "entry_point is '3', wanted text"),
    ],
)
def test_a_row_that_cannot_be_graded_is_refused_by_name(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(DajError, match=f"task 'BigCodeBench/7'.*{reason}"):
        problem(number=7, **changes)


def test_a_row_without_a_field_is_refused_by_name() -> None:
    short = row(7)
    del short["test"], short["code_prompt"]
    with pytest.raises(DajError, match=r"task 'BigCodeBench/7' lacks \['code_prompt', 'test'\]"):
        problem_from_task(short, variant="instruct", topic="System", split="train")


def test_libraries_are_read_as_text_or_as_a_list() -> None:
    assert libraries(row(libs="['csv', 'os']")) == libraries(row(libs=["csv", "os"])) == ["csv", "os"]
    for libs in ("csv", "[]", "[1]", None, "__import__('os')", "(" * 1000):
        with pytest.raises(DajError, match="task 'BigCodeBench/7': libs is"):
            libraries(row(7, libs=libs))


def test_a_task_is_graded_by_its_unit_tests() -> None:
    task = problem()
    right = Candidate("right", task.problem_id, "q", "def task_func(path):\n    return os.path.basename(path)")
    wrong = Candidate("wrong", task.problem_id, "q", "def task_func(path):\n    return path")
    with_time = Sandbox(limits=Limits(test_wall_s=20))
    assert grade(task, right, with_time).passed
    verdict = grade(task, wrong, with_time)
    assert (verdict.passed, verdict.num_passed, verdict.num_tests, verdict.forgeable) == (False, 1, 2, True)


# Domains


def test_the_majority_of_the_libraries_decides() -> None:
    assert leading_domains(["General", "Time", "General"]) == ["General"]


def test_of_tied_domains_the_rarer_wins_and_general_never() -> None:
    assert sorted(TIES) == sorted(BCB_DOMAINS)
    assert leading_domains(["Computation", "Visualization"]) == ["Visualization", "Computation"]
    assert leading_domains(["System", "Cryptography", "System", "Cryptography", "Time"]) == ["Cryptography", "System"]
    for other in set(BCB_DOMAINS) - {"General"}:
        assert leading_domains(["General", other])[0] == leading_domains([other, "General"])[0] == other


# Sides


def rates_of(means: dict[int, float]) -> dict[str, dict[str, float]]:
    return {f"BigCodeBench/{number}": {"a": mean, "b": mean} for number, mean in means.items()}


def test_hard_tasks_are_the_test_set_and_the_hardest_fifth_of_the_others_the_meta_set() -> None:
    """1,140 tasks, 148 of them Hard: 20 % of 992 is 198.4."""
    rng = random.Random(0)
    tasks = [f"BigCodeBench/{n}" for n in range(1140)]
    hard = set(rng.sample(tasks, 148))
    rates = {name: {policy: rng.random() for policy in "abcd"} for name in tasks if name not in hard}
    sides = assign_sides(tasks, hard, rates, 0.2)
    of = {side: {name for name in tasks if sides.of[name] == side} for side in ("train", "meta", "test")}
    assert of["test"] == hard
    assert (len(of["train"]), len(of["meta"])) == (794, 198)
    assert not any(a & b for a, b in itertools.combinations(of.values(), 2))
    mean = {name: sum(rates[name].values()) / 4 for name in rates}
    assert max(mean[name] for name in of["meta"]) < min(mean[name] for name in of["train"])


def test_the_mean_is_over_policies_and_not_over_programs() -> None:
    rates = {"BigCodeBench/1": {"a": 0.0, "b": 0.9}, "BigCodeBench/2": {"a": 0.5, "b": 0.5}}
    sides = assign_sides([*rates, "BigCodeBench/3"], ["BigCodeBench/3"], rates, 0.5)
    assert sides.of == {"BigCodeBench/1": "meta", "BigCodeBench/2": "train", "BigCodeBench/3": "test"}


def test_half_a_task_is_rounded_up() -> None:
    rates = rates_of({n: n / 10 for n in range(6)})
    sides = assign_sides([*rates, "BigCodeBench/9"], ["BigCodeBench/9"], rates, 0.25)
    assert list(sides.of.values()).count("meta") == 2  # 25 % of 6 is 1.5


def test_equal_rates_at_the_cut_go_by_number_and_are_listed() -> None:
    rates = rates_of({10: 0.5, 9: 0.5, 8: 0.5, 7: 0.1, 6: 0.9, 5: 0.9})
    tasks = [*rates, "BigCodeBench/0"]
    for order in (tasks, tasks[::-1]):
        sides = assign_sides(order, ["BigCodeBench/0"], rates, 0.5)
        assert [name for name in sorted(order) if sides.of[name] == "meta"] == [f"BigCodeBench/{n}" for n in (7, 8, 9)]
        assert sides.tied == {"meta": ["BigCodeBench/8", "BigCodeBench/9"], "train": ["BigCodeBench/10"]}
        assert sides.cut_rate == 0.5
    assert assign_sides(tasks, ["BigCodeBench/0"], rates, 0.67).tied == {"meta": [], "train": []}  # none is cut off


def test_tasks_without_the_rate_of_a_policy_are_named() -> None:
    rates = rates_of({1: 0.5, 2: 0.5, 3: 0.5})
    del rates["BigCodeBench/2"]["b"]
    tasks = [*rates, "BigCodeBench/4", "BigCodeBench/5"]
    with pytest.raises(DajError, match=r"2 of the 4 tasks.*\(a, b\): BigCodeBench/2, BigCodeBench/4\."):
        assign_sides(tasks, ["BigCodeBench/5"], rates, 0.2)
    with pytest.raises(DajError, match=r"4 of the 4 tasks.*no policy at all"):
        assign_sides(tasks, ["BigCodeBench/5"], {}, 0.2)


@pytest.mark.parametrize("rate", [-0.1, 1.1, 50.0, float("nan")])
def test_a_rate_outside_0_and_1_is_refused(rate: float) -> None:
    with pytest.raises(DajError, match=r"1 pass rates lie outside \[0, 1\]: BigCodeBench/1 \(a: "):
        assign_sides(["BigCodeBench/1", "BigCodeBench/2"], ["BigCodeBench/2"], {"BigCodeBench/1": {"a": rate}}, 0.2)


def test_hard_ids_of_another_benchmark_are_refused() -> None:
    with pytest.raises(DajError, match="none of the 1 Hard ids is one of the 1 tasks; compare 13 with BigCodeBench/1"):
        assign_sides(["BigCodeBench/1"], ["13"], rates_of({1: 0.5}), 0.2)


def test_a_share_of_nothing_or_of_all_is_refused() -> None:
    for share in (0.0, 1.0, 20.0):
        with pytest.raises(DajError, match="meta_share is"):
            assign_sides(["BigCodeBench/1"], ["BigCodeBench/1"], {}, share)


# Files


def jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in rows))
    return str(path)


def test_tasks_are_read_alike_from_every_kind_of_file(tmp_path: Path) -> None:
    rows = [row(n) for n in (1, 2)]
    plain = jsonl(tmp_path / "tasks.jsonl", rows)
    (tmp_path / "tasks.jsonl.gz").write_bytes(gzip.compress(Path(plain).read_bytes()))
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "tasks.parquet")
    for name in ("tasks.jsonl", "tasks.jsonl.gz", "tasks.parquet"):
        assert list(read_tasks(str(tmp_path / name)).values()) == rows


def test_a_file_that_cannot_be_read_is_an_error_that_names_the_place(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    good = json.dumps(row(1))
    for second, reason in (
        ('{"task_id": "BigCodeBench/2", ', r"line 2 \(task 'BigCodeBench/2'\) is not JSON"),
        ("[1]", "line 2 holds a list, wanted an object"),
        ('{"task": 2}', "line 2: task_id is None"),
        (good, "line 2: task 'BigCodeBench/1' stands there twice"),
        ("[" * 100_000, "line 2 is not JSON"),
    ):
        path.write_text(f"{good}\n{second}\n")
        with pytest.raises(DajError, match=reason):
            read_tasks(str(path))
    for name, content in (("cut.jsonl.gz", gzip.compress(good.encode())[:-9]), ("no.parquet", b"PAR1")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DajError, match=f"{name}.*Download it again"):
            read_tasks(str(tmp_path / name))


def test_a_row_that_unfolds_without_end_is_refused_by_name(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.jsonl.gz"
    with gzip.open(bomb, "wb") as file:
        file.write(b'{"task_id": "BigCodeBench/3", "test": "')
        for _ in range(100):
            file.write(b" " * 10**6)
    begun = time.process_time()
    with pytest.raises(DajError, match=rf"line 1 \(task 'BigCodeBench/3'\) has more than {MAX_ROW_BYTES} bytes"):
        read_tasks(str(bomb))
    assert time.process_time() - begun < 1


def test_a_data_set_that_the_hub_does_not_have_is_an_error() -> None:
    with pytest.raises(DajError, match="tasks: the data set 'no such name', split"):
        read_tasks("hub:no such name")


def test_hard_ids_are_read_from_text_a_list_or_rows(tmp_path: Path) -> None:
    ids = ["BigCodeBench/13", "BigCodeBench/15"]
    (tmp_path / "hard.txt").write_text("BigCodeBench/13\n\n BigCodeBench/15 \n")
    (tmp_path / "hard.json").write_text(json.dumps(ids))
    jsonl(tmp_path / "hard.jsonl", [row(13), row(15)])
    for name in ("hard.txt", "hard.json", "hard.jsonl"):
        assert read_hard_ids(str(tmp_path / name)) == ids


def test_hard_ids_that_are_missing_or_repeated_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DajError, match=r"hard_ids: no file .* Give the 148 task ids"):
        read_hard_ids(str(tmp_path / "absent.txt"))
    path = tmp_path / "hard.txt"
    for text, reason in (("", "no id"), ("BigCodeBench/13\nBigCodeBench/13", "BigCodeBench/13 twice")):
        path.write_text(text)
        with pytest.raises(DajError, match=reason):
            read_hard_ids(str(path))


RATES = {"BigCodeBench/1": {"a": 0.5, "b": 1.0}, "BigCodeBench/2": {"a": 0.0, "b": 0.25}}


def test_pass_rates_are_read_alike_from_a_table_from_rows_and_from_official_results(tmp_path: Path) -> None:
    table = tmp_path / "rates.json"
    table.write_text(json.dumps(RATES))
    flat = [{"task_id": n, "policy": p, "pass_rate": r} for n, of_task in RATES.items() for p, r in of_task.items()]
    rows = jsonl(tmp_path / "rates.jsonl", flat)
    results = {}
    for policy in "ab":
        graded = {
            name: [{"status": "pass"}] * round(4 * of_task[policy])
            + [{"status": "fail"}, {"status": "timeout"}, {"status": "fail"}, {"status": "fail"}][
                round(4 * of_task[policy]) :
            ]
            for name, of_task in RATES.items()
        }
        results[policy] = str(tmp_path / f"{policy}_eval_results.json")
        Path(results[policy]).write_text(json.dumps({"date": "", "eval": graded}))
    assert read_pass_rates(str(table)) == read_pass_rates(rows) == read_pass_rates(results) == RATES


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        ({"eval": {}}, "is a result file of the official grader, of one policy. Give one for each"),
        ({"BigCodeBench/1": 0.5}, "is no object of the form"),
        ({"BigCodeBench/1": {"a": "0.5"}}, "task 'BigCodeBench/1', a has pass rate '0.5'"),
        ({"BigCodeBench/1": {"a": True}}, "task 'BigCodeBench/1', a has pass rate True"),
    ],
)
def test_a_table_of_something_else_is_refused(tmp_path: Path, held: Any, reason: str) -> None:
    path = tmp_path / "rates.json"
    path.write_text(json.dumps(held))
    with pytest.raises(DajError, match=reason):
        read_pass_rates(str(path))


@pytest.mark.parametrize("graded", [[{"status": "maybe"}], [], [3], 3])
def test_results_without_a_status_are_refused_by_name(tmp_path: Path, graded: Any) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"eval": {"BigCodeBench/1": graded}}))
    with pytest.raises(DajError, match="task 'BigCodeBench/1' has status"):
        read_pass_rates({"a": str(path)})


def test_a_policy_that_stands_twice_for_a_task_is_refused(tmp_path: Path) -> None:
    twice = [{"task_id": "BigCodeBench/1", "policy": "a", "pass_rate": rate} for rate in (0.5, 0.6)]
    with pytest.raises(DajError, match="line 2: task 'BigCodeBench/1' has policy 'a'; wanted a name, once"):
        read_pass_rates(jsonl(tmp_path / "rates.jsonl", twice))


def test_a_map_of_libraries_gives_what_the_map_of_tasks_says(tmp_path: Path) -> None:
    rows = {"BigCodeBench/1": row(libs="['csv', 'time']")}
    of_tasks, of_libraries = tmp_path / "task2domain.json", tmp_path / "lib2domain.json"
    of_tasks.write_text(json.dumps({"BigCodeBench/1": ["System", "Time"], "BigCodeBench/2": ["Time"]}))
    of_libraries.write_text(json.dumps({"csv": "System", "time": "Time"}))
    assert (
        read_domains(str(of_tasks), rows)
        == read_domains(str(of_libraries), rows)
        == {"BigCodeBench/1": ["System", "Time"]}
    )


@pytest.mark.parametrize(
    "held", [{"os": "Systems"}, {"csv": "System"}, {"BigCodeBench/2": ["System"]}, {"BigCodeBench/1": []}]
)
def test_a_task_without_a_domain_is_refused_by_name(tmp_path: Path, held: Any) -> None:
    path = tmp_path / "domains.json"
    path.write_text(json.dumps(held))
    with pytest.raises(DajError, match=r"domains: .* for task 'BigCodeBench/1'.*wanted one of Computation"):
        read_domains(str(path), {"BigCodeBench/1": row(1)})


# The source


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Ten tasks, 0 and 1 Hard; the others pass the more often the higher their number; two libraries tie on 9."""
    rows = [row(n, libs="['os', 'math']" if n == 9 else "['os', 'csv', 'math']") for n in range(10)]
    rates = rates_of({n: n / 10 for n in range(2, 10)})
    response = "Here it is:\n```python\nimport os\ndef task_func(path):\n    return path\nprint(task_func('a'))\n```\n"
    written = [{"problem_id": f"BigCodeBench/{n}", "policy": "q", "code": response} for n in (0, 5, 77)]
    texts = {
        "domains": json.dumps({"os": "System", "csv": "System", "math": "Computation"}),
        "hard_ids": json.dumps(["BigCodeBench/0", "BigCodeBench/1", "BigCodeBench/99"]),
        "pass_rates": json.dumps(rates),
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.json").write_text(text)
    return {
        "tasks": jsonl(tmp_path / "tasks.jsonl", rows),
        "candidates": jsonl(tmp_path / "candidates.jsonl", written),
        **{name: str(tmp_path / f"{name}.json") for name in texts},
    }


def test_the_source_gives_every_task_its_side_and_its_domain(files: dict[str, str]) -> None:
    problems, _ = BigCodeBenchSource(**files).load()
    assert [split_of(p) for p in problems] == ["test"] * 2 + ["meta"] * 2 + ["train"] * 6
    assert {p.domain for p in problems} == {"System"}


def test_candidates_are_reduced_to_what_is_graded_and_those_of_other_tasks_left_aside(files: dict[str, str]) -> None:
    _, candidates = BigCodeBenchSource(**files).load()
    assert [c.problem_id for c in candidates] == ["BigCodeBench/0", "BigCodeBench/5"]
    assert {c.code for c in candidates} == {"import os\ndef task_func(path):\n    return path"}


def test_programs_with_imported_verdicts_can_stay_as_they_were_graded(files: dict[str, str]) -> None:
    _, candidates = BigCodeBenchSource(**files, sanitize=False).load()
    assert all(c.code.startswith("Here it is:") for c in candidates)


def test_candidates_for_other_tasks_only_are_an_error(files: dict[str, str]) -> None:
    jsonl(Path(files["candidates"]), [{"problem_id": "elsewhere", "policy": "q", "code": "pass"}])
    with pytest.raises(DajError, match="none of the 1 candidates"):
        BigCodeBenchSource(**files).load()


@pytest.mark.parametrize("name", ["tasks", "candidates", "domains", "hard_ids", "pass_rates"])
def test_a_file_that_is_not_there_is_an_error_that_says_what_it_is(files: dict[str, str], name: str) -> None:
    Path(files[name]).unlink()
    with pytest.raises(DajError, match=f"{name}: no file .*Give "):
        BigCodeBenchSource(**files).load()


def test_the_report_says_what_went_where_and_why(files: dict[str, str]) -> None:
    report, table = BigCodeBenchSource(**files).report()
    assert report["sides"] == {"train": 6, "meta": 2, "test": 2}
    assert report["domains"]["System"] == {"train": 6, "meta": 2, "test": 2}
    assert (report["tasks"], report["tests"], report["policies"], report["cut_rate"]) == (10, 20, ["a", "b"], 0.3)
    assert (report["several_domains"], report["domain_ties"]) == (10, 1)
    assert report["hard_ids_without_task"] == ["BigCodeBench/99"]
    assert json.loads(json.dumps(report)) == report
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(table)
    drawn = console.export_text()
    assert re.search(r"System +│ 6 +│ 2 +│ 2 ", drawn)
    assert "10 tasks name several domains, of which 1 majorities tie" in drawn
    assert "1 Hard ids have no task here: BigCodeBench/99" in drawn


def test_other_files_or_options_are_other_data(files: dict[str, str]) -> None:
    before = BigCodeBenchSource(**files).description()
    assert json.loads(json.dumps(before)) == before
    options: list[dict[str, Any]] = [{"variant": "complete"}, {"meta_share": 0.3}, {"sanitize": False}]
    assert all(BigCodeBenchSource(**files, **option).description() != before for option in options)
    for name, path in files.items():
        Path(path).write_text(Path(path).read_text() + "\n")
        after = BigCodeBenchSource(**files).description()
        assert after != before, name
        before = after
