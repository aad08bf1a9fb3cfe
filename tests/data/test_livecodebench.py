"""LiveCodeBench's rows are read in their official packing, and a hostile download is refused."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from daj_lightning.data import LiveCodeBenchSource, candidate_from_row, problem_from_row, read_jsonl
from daj_lightning.data.splits import split_of
from daj_lightning.records import DajError, TestCase

HIDDEN = [{"input": "5 7\n", "output": "12\n", "testtype": "stdin"}, {"input": "é", "output": "ü", "testtype": "stdin"}]


def packed(value: Any) -> str:
    """As the data set's authors pack: base64 of zlib of a pickle."""
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def row(**changes: Any) -> dict[str, Any]:
    return {
        "question_title": "Sum",
        "question_content": "Add two numbers.",
        "platform": "atcoder",
        "question_id": "abc001_a",
        "contest_id": "abc001",
        "contest_date": "2024-08-01T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps([{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]),
        "private_test_cases": packed(json.dumps(HIDDEN)),
        "metadata": "{}",
        **changes,
    }


def test_a_row_in_the_official_packing_is_read() -> None:
    problem = problem_from_row(row())
    assert problem.hidden_tests == (TestCase("5 7\n", "12\n"), TestCase("é", "ü"))
    assert problem.public_tests == (TestCase("1 2\n", "3\n"),)
    assert (problem.problem_id, problem.title, problem.statement) == ("abc001_a", "Sum", "Add two numbers.")
    assert (problem.domain, problem.release_date, problem.function_name) == ("atcoder-easy", date(2024, 8, 1), None)


def test_private_tests_in_plain_json_say_the_same() -> None:
    assert problem_from_row(row(private_test_cases=json.dumps(HIDDEN))) == problem_from_row(row())


def test_a_functional_problem_names_its_method() -> None:
    problem = problem_from_row(row(platform="leetcode", metadata='{"func_name": "addTwo"}', starter_code="class ..."))
    assert (problem.function_name, problem.starter_code, problem.domain) == ("addTwo", "class ...", "leetcode-easy")


def test_only_the_banks_mark_makes_a_row_unseen() -> None:
    assert problem_from_row(row(metadata='{"bank": {"family": "f", "unseen": true}}')).split == "unseen"
    for metadata in ('{"bank": {"family": "f"}}', '{"bank": {"unseen": false}}', '{"func_name": "f"}', ""):
        assert problem_from_row(row(metadata=metadata)).split is None


class Touch:
    """Unpickled by the ordinary loader, it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_that_names_a_class_is_refused_and_not_run(tmp_path: Path) -> None:
    evil = packed(Touch(tmp_path / "ran"))
    with pytest.raises(DajError, match=r"'abc001_a': private tests.*nor a pickle of the text of one"):
        problem_from_row(row(private_test_cases=evil))
    assert not (tmp_path / "ran").exists()
    pickle.loads(zlib.decompress(base64.b64decode(evil)))
    assert (tmp_path / "ran").exists()  # it would have run


@pytest.mark.parametrize("pack", [packed, str], ids=["packed", "plain"])
def test_tests_longer_than_the_cap_are_refused_and_the_cap_can_be_raised(tmp_path: Path, pack: Any) -> None:
    long = pack(json.dumps([{"input": "1" * 2**20, "output": "", "testtype": "stdin"}]))
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row(private_test_cases=long)))
    with pytest.raises(DajError, match=r"'abc001_a'.*unfold to more than 1048576 bytes; refused.*max_tests_mib"):
        LiveCodeBenchSource(str(path), "", max_tests_mib=1).load_problems()
    (problem,) = LiveCodeBenchSource(str(path), "", max_tests_mib=2).load_problems()
    assert len(problem.hidden_tests[0].input) == 2**20


@pytest.mark.parametrize(
    "text",
    [
        "not base64!",
        base64.b64encode(b"no zlib").decode(),
        base64.b64encode(zlib.compress(b"no pickle")).decode(),
        base64.b64encode(zlib.compress(pickle.dumps("[]" * 500))[:-12]).decode(),  # cut off
        packed(["a list, no text"]),
        packed("text, but no JSON"),
        "é",
    ],
)
def test_private_tests_that_cannot_be_read_are_an_error_that_names_the_row(text: str) -> None:
    with pytest.raises(DajError, match="abc001_a"):
        problem_from_row(row(private_test_cases=text))


def test_a_row_without_a_field_is_refused_by_name() -> None:
    short = row()
    del short["difficulty"], short["metadata"]
    with pytest.raises(DajError, match=r"row 'abc001_a' lacks \['difficulty', 'metadata'\]"):
        problem_from_row(short)


def test_a_problem_without_any_test_is_refused() -> None:
    with pytest.raises(DajError, match="'abc001_a': no test at all; every program would pass"):
        problem_from_row(row(public_test_cases="[]", private_test_cases=packed("[]")))


def test_a_line_that_is_not_an_object_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n{"a": \n')
    with pytest.raises(DajError, match="line 3 is not JSON"):
        read_jsonl(path, "rows")
    path.write_text('{"a": 1}\n\n[2]\n')
    with pytest.raises(DajError, match="line 3 holds a list, wanted an object"):
        read_jsonl(path, "rows")
    path.write_text('{"a": 1}\n\n{"a": 2}\n')
    assert read_jsonl(path, "rows") == [{"a": 1}, {"a": 2}]
    with pytest.raises(DajError, match="no file"):
        read_jsonl(tmp_path / "missing.jsonl", "rows")


def test_a_candidate_without_code_or_policy_is_refused() -> None:
    with pytest.raises(DajError, match=r"c.jsonl, line 7: a candidate lacks \['policy'\]"):
        candidate_from_row({"problem_id": "p", "code": "pass"}, "c.jsonl, line 7")
    with pytest.raises(DajError, match=r"c.jsonl, line 7: candidate .* has no code"):
        candidate_from_row({"problem_id": "p", "policy": "q", "code": " \n"}, "c.jsonl, line 7")


def write_source(tmp_path: Path, candidates: list[dict[str, str]]) -> LiveCodeBenchSource:
    rows = [row(), row(question_id="cf_1", platform="codeforces")]
    for name, records in (("problems", rows), ("candidates", candidates)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return LiveCodeBenchSource(str(tmp_path / "problems.jsonl"), str(tmp_path / "candidates.jsonl"))


def test_codeforces_is_left_out_with_its_candidates(tmp_path: Path) -> None:
    written = [{"problem_id": name, "policy": "q", "code": "pass"} for name in ("cf_1", "abc001_a", "abc001_a")]
    problems, candidates = write_source(tmp_path, written).load()
    assert {p.problem_id: split_of(p) for p in problems} == {"abc001_a": "meta", "cf_1": None}
    assert [(c.problem_id, c.policy, c.code) for c in candidates] == [("abc001_a", "q", "pass")] * 2
    assert len({c.candidate_id for c in candidates}) == 2


def test_candidates_for_other_problems_only_are_an_error(tmp_path: Path) -> None:
    source = write_source(tmp_path, [{"problem_id": "elsewhere", "policy": "q", "code": "pass"}])
    with pytest.raises(DajError, match="none of the 1 candidates"):
        source.load()


def test_an_edited_file_of_the_same_size_is_other_data(tmp_path: Path) -> None:
    before = write_source(tmp_path, [{"problem_id": "abc001_a", "policy": "q", "code": "print(1)"}]).description()
    after = write_source(tmp_path, [{"problem_id": "abc001_a", "policy": "q", "code": "print(2)"}]).description()
    assert before != after


def raw_packed(pickled: bytes) -> str:
    return base64.b64encode(zlib.compress(pickled)).decode()


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x04Nr" + (2**31 - 1).to_bytes(4, "little") + b".",  # put at memo index 2**31: tens of gigabytes
        b"\x80\x04X\xff\xff\xff\x7f.",  # a string of 2 GB that is not there
        pickle.dumps("[" * 100_000),  # JSON too deep to read
    ],
    ids=["memo", "length", "depth"],
)
def test_ten_bytes_cannot_take_the_machines_memory(pickled: bytes) -> None:
    with pytest.raises(DajError, match="abc001_a"):
        problem_from_row(row(private_test_cases=raw_packed(pickled)))


def test_a_test_that_is_not_text_is_refused() -> None:
    tests = json.dumps([{"input": 5, "output": None, "testtype": "stdin"}])
    with pytest.raises(DajError, match="not text"):
        problem_from_row(row(private_test_cases=tests))


def test_other_candidates_leave_what_identifies_the_problems_as_it_was(tmp_path: Path) -> None:
    """So that verdicts on programs that stay need not be made again."""
    first = write_source(tmp_path, [{"problem_id": "abc001_a", "policy": "q", "code": "pass"}])
    before, problems_before = first.description(), first.problems_description()
    second = write_source(tmp_path, [{"problem_id": "abc001_a", "policy": "q", "code": "import os"}])
    assert second.description() != before
    assert second.problems_description() == problems_before
    (tmp_path / "problems.jsonl").write_text(json.dumps(row(private_test_cases="[]")))
    assert second.problems_description() != problems_before
