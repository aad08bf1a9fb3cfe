"""Official rows on disk: every format gives the same problems, and their tests stay there until they are asked for."""

from __future__ import annotations

import base64
import gzip
import json
import os
import pickle
import random
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from daj_lightning.data import LiveCodeBenchSource, json_stream, official_files
from daj_lightning.data.hidden_tests import HiddenTests, TestCache
from daj_lightning.data.packing import read_tests
from daj_lightning.data.splits import split_of
from daj_lightning.records import DajError, Problem, TestCase

STDIN = [{"input": "5 7\n", "output": "12\n", "testtype": "stdin"}]
FUNCTIONAL = [{"input": '"a\\"b"\n[1]', "output": '"\\\\é😀"', "testtype": "functional"}]


def packed(text: str, protocol: int = pickle.DEFAULT_PROTOCOL) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(text, protocol))).decode()


def row(name: str = "evil_1", **changes: Any) -> dict[str, Any]:
    return {
        "question_title": "Sum",
        "question_content": "Add two numbers.",
        "platform": "atcoder",
        "question_id": name,
        "contest_id": "abc001",
        "contest_date": "2024-08-01T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps(STDIN),
        "private_test_cases": packed(json.dumps(STDIN)),
        "metadata": "{}",
        **changes,
    }


def write(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    with path.open("w") as file:
        for record in rows:
            file.write(json.dumps(record) + "\n")
    return path


def load(*paths: Path | str, **arguments: Any) -> list[Problem]:
    return LiveCodeBenchSource([str(path) for path in paths], "", **arguments).load_problems()


def everything(problems: Iterable[Problem]) -> list[Any]:
    return [(p.problem_id, p.release_date, p.public_tests, p.function_name, tuple(p.hidden_tests)) for p in problems]


ROWS = [
    row("packed"),
    row("json", private_test_cases=json.dumps(STDIN * 3)),
    row(
        "functional",
        platform="leetcode",
        public_test_cases="[]",
        private_test_cases=json.dumps(FUNCTIONAL, ensure_ascii=False),
        metadata='{"func_name": "f"}',
    ),
]


def test_every_format_holds_the_same_problems(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.jsonl", ROWS)
    wanted = everything(load(plain))
    assert [len(tests) for *_, tests in wanted] == [1, 3, 1]
    assert wanted[2][-1] == (TestCase(FUNCTIONAL[0]["input"], FUNCTIONAL[0]["output"]),)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    (tmp_path / "a.txt").write_bytes(plain.read_bytes().replace(b"\n", b"\r\n\r\n").rstrip())  # another editor's
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet", row_group_size=2)
    for other in ("a.jsonl.gz", "a.parquet", "a.txt"):
        assert everything(load(tmp_path / other)) == wanted


def test_parquet_may_have_dates_of_its_own(tmp_path: Path) -> None:
    rows = [row(contest_date=datetime(2025, 2, 1, 7, 30))]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert load(tmp_path / "a.parquet")[0].release_date == date(2025, 2, 1)


def test_a_release_is_several_files_or_a_pattern_of_them(tmp_path: Path) -> None:
    for number, name in enumerate(["test.jsonl", "test2.jsonl"]):
        write(tmp_path / name, [row(f"p{number}")])
    assert [p.problem_id for p in load(tmp_path / "test*.jsonl")] == ["p0", "p1"]
    assert [p.problem_id for p in load(tmp_path / "test2.jsonl", tmp_path / "test.jsonl")] == ["p1", "p0"]
    with pytest.raises(DajError, match=r"no file .*nothing\*.jsonl"):
        load(tmp_path / "nothing*.jsonl")


@pytest.mark.parametrize(
    "changes",
    [
        {"contest_date": "2024-08-01"},
        {"contest_date": "2024-08-01T07:30:00"},
        {"metadata": ""},
        {"metadata": None},
        {"starter_code": None},
        {"private_test_cases": json.dumps(STDIN)},
        {"private_test_cases": json.dumps(STDIN, indent=1)},
        {"private_test_cases": packed(json.dumps(STDIN), protocol=2)},
        {"private_test_cases": packed(json.dumps(STDIN), protocol=5)},
        {"candidates": [{"model": "m", "code": "pass"}]},
    ],
    ids=lambda changes: " ".join(f"{key}={str(value)[:10]!r}" for key, value in changes.items()),
)
def test_what_rows_look_like_in_practice_is_read_alike(tmp_path: Path, changes: dict[str, Any]) -> None:
    (problem,) = load(write(tmp_path / "rows.jsonl", [row(**changes)]))
    test = TestCase("5 7\n", "12\n")
    assert everything([problem]) == [("evil_1", date(2024, 8, 1), (test,), None, (test,))]
    assert problem.starter_code == ""


# What is refused


def unfolding(mebibytes: int, head: bytes) -> str:
    """Some kilobytes that unfold to `head` and white space."""
    stream = zlib.compressobj(9)
    text = [stream.compress(head), *(stream.compress(b" " * 2**20) for _ in range(mebibytes)), stream.flush()]
    return base64.b64encode(b"".join(text)).decode()


def string_header(length: int) -> bytes:
    """The beginning of a pickled string that says it is so long."""
    return b"\x80\x04X" + length.to_bytes(4, "little")


class Gadget:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("exit 1",)


def one_test(**changes: Any) -> str:
    return json.dumps([{**STDIN[0], **changes}])


def without(*fields: str) -> dict[str, Any]:
    return {key: value for key, value in row().items() if key not in fields}


GADGET = base64.b64encode(zlib.compress(pickle.dumps(Gadget()))).decode()
PACKED = packed(one_test(input="1 2 3"))
MANY = [[]] * 2_500_000
HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "bomb": (row(private_test_cases=unfolding(400, string_header(2**31))), "unfold to more"),
    "lying bomb": (row(private_test_cases=unfolding(400, string_header(8) + b"[]")), "pickle operation b' '"),
    "bomb of memos": (row(private_test_cases=unfolding(0, b"\x80\x04" + b"\x94" * 2**28)), "16 operations"),
    "gadget": (row(private_test_cases=GADGET), "nor a pickle of the text of one"),
    "truncated": (row(private_test_cases=PACKED[:-6]), "cut off"),
    "truncated by fours": (row(private_test_cases=PACKED[:-8]), "cut off"),
    "more behind": (row(private_test_cases=PACKED + "AAAA"), "behind the end|adding"),
    "empty list": (row(public_test_cases="[]", private_test_cases=packed("[]")), "no test at all"),
    "10 MB of lists": (row(private_test_cases="[" + "[]," * 3_400_000 + "[]]"), "test 1: is no object"),
    "10 MB of numbers": (row(private_test_cases="[" + "1," * 5_000_000 + "1]"), "test 1: is no object"),
    "10 MB of nothing": (row(private_test_cases="x" * 10**7), "neither a JSON list nor the official packing"),
    "10 MB of quotes": (row(private_test_cases='[{"input": "' + '\\"' * 2_500_000), "ends within a string"),
    "10 MB of metadata": (row(metadata=json.dumps({"a": MANY})), "metadata is .* 65536 characters"),
    "10 MB elsewhere": (row(more=MANY), "field 'more' .*1048576 characters"),
    "20 MB elsewhere": (row(starter_code="x" * 20 * 2**20), "16777216 bytes besides its private tests"),
    "missing fields": (without("difficulty", "metadata"), r"lacks \['difficulty', 'metadata'\]"),
    "no private tests": (without("private_test_cases"), r"lacks \['private_test_cases'\]"),
    "private tests as a list": (row(private_test_cases=STDIN), "private_test_cases is no text"),
    "private tests elsewhere": (row(more={"private_test_cases": "x"}, private_test_cases=[]), "within another field"),
    "unknown testtype": (row(private_test_cases=one_test(testtype="shell")), "testtype 'shell'; wanted stdin or"),
    "no testtype": (row(private_test_cases='[{"input": "", "output": ""}]'), r"test 1: lacks \['testtype'\]"),
    "another field": (row(private_test_cases=one_test(weight="1")), "has the field 'weight'"),
    "no text": (row(private_test_cases=one_test(input=5)), "its input is not text"),
    "no func_name": (row(public_test_cases="[]", private_test_cases=one_test(testtype="functional")), "func_name"),
    "two types": (
        row(private_test_cases=one_test(testtype="functional"), metadata='{"func_name": "f"}'),
        "types functional, stdin; a problem has one",
    ),
    "date": (row(contest_date="02/01/2025"), "contest_date is '02/01/2025', wanted an ISO date"),
    "no date": (row(contest_date=None), "contest_date is None"),
    "platform": (row(platform="elsewhere"), "platform is 'elsewhere', wanted one of atcoder, codeforces, leetcode"),
    "difficulty": (row(difficulty=""), "difficulty is '', wanted one of easy, medium, hard"),
}


def peak_mib() -> float:
    """Memory of this process at its highest since `watch_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def watch_peak() -> float:
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mib()


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_row_is_refused_by_its_name_at_once_and_in_little_memory(tmp_path: Path, kind: str) -> None:
    hostile, why = HOSTILE[kind]
    path = write(tmp_path / "rows.jsonl", [row("good"), hostile])
    before, start = watch_peak(), time.process_time()
    with pytest.raises(DajError, match=rf"(?s)rows.jsonl, line 2: row 'evil_1'.*({why})"):
        load(path)
    assert time.process_time() - start < 1
    assert peak_mib() - before < 100


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("x" * 10**7, "holds no object"),
        ("[" + "[]," * 3_400_000 + "[]]", "holds no object"),
        ('{"question_id": "evil_1", "a": ' + "[" * 10**7, "too deep"),
        ('{"question_id": "evil_1", "private_test_cases": "' + "a" * 10**7, "ends within its private tests"),
        ('{"question_id": "evil_1", "private_test_cases": ""', "ends early"),
        ('{"question_id": "evil_1", "question_id": "b"}', "twice"),
        ('{"question_id": "evil_1"} {}', "behind the end"),
    ],
    ids=["text", "list", "deep", "open", "cut", "twice", "two"],
)
def test_a_line_that_is_no_row_is_refused_by_its_number(tmp_path: Path, line: str, why: str) -> None:
    path = write(tmp_path / "rows.jsonl", [row("good")])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DajError, match=rf"rows.jsonl, line 2: .*{why}") as raised:
        load(path)
    assert ("evil_1" in str(raised.value)) is ("evil_1" in line)


def test_an_id_that_stands_twice_is_refused_with_both_places(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one.jsonl", [row("p"), row("q")]), write(tmp_path / "two.jsonl", [row("q")])
    with pytest.raises(DajError, match=r"row 'q' stands twice: .*one.jsonl, line 2, and .*two.jsonl, line 1"):
        load(one, two)


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz"])
def test_a_damaged_file_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"{}" * 500)[:-9])
    with pytest.raises(DajError, match=rf"{name} cannot be"):
        load(tmp_path / name)


def test_a_hub_that_cannot_be_reached_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DajError, match=r"data set 'nobody/nothing' cannot be had.*test\*.jsonl elsewhere and give the"):
        load("hub:nobody/nothing")
    with pytest.raises(DajError, match=r"data set 'a/b/c' cannot be had from the hub \(HFValidationError"):
        load("hub:a/b/c")


# Tests that stay on disk


def counted(tests: list[tuple[str, str]], cache: TestCache, reads: list[int]) -> HiddenTests:
    """Tests that note in `reads` how many they are, each time they are read."""
    text = json.dumps([{"input": a, "output": b, "testtype": "stdin"} for a, b in tests])

    def pieces() -> Iterator[str]:
        reads.append(len(tests))
        return iter([text])

    return HiddenTests("p", pieces, 2**20, len(tests), sum(len(a) + len(b) for a, b in tests), cache)


def test_hidden_tests_are_a_sequence() -> None:
    tests = counted([("1", "2"), ("3", "4"), ("5", "6")], TestCache(), [])
    assert len(tests) == 3
    assert list(tests) == [tests[0], tests[1], tests[-1]]
    assert tests[1:] == (TestCase("3", "4"), TestCase("5", "6"))
    assert tests[::-1] == tuple(reversed(tests))
    with pytest.raises(IndexError):
        tests[3]


def test_tests_asked_for_again_are_read_once_and_those_asked_for_long_ago_anew() -> None:
    reads: list[int] = []
    cache = TestCache(max_bytes=1500)
    one, two, three = (counted([("x" * 300, "")] * n, cache, reads) for n in (1, 2, 1))  # 500, 1000, 500 bytes
    for tests in (one, one, two, two, one):
        list(tests)
    assert reads == [1, 2]
    list(three)  # `two` was used longest ago, and goes
    list(one)
    list(two)
    assert reads == [1, 2, 1, 2]


def test_tests_larger_than_the_cache_are_read_one_at_a_time_and_never_held() -> None:
    reads: list[int] = []
    cache = TestCache(max_bytes=1000)
    small, large = counted([("a", "b")], cache, reads), counted([("x" * 500, "y")] * 4, cache, reads)
    list(small)
    assert next(iter(large)) == TestCase("x" * 500, "y")
    assert len(list(large)) == 4
    list(small)
    assert reads == [1, 4, 4]


def test_threads_that_ask_for_the_same_tests_read_them_once() -> None:
    reads: list[int] = []
    tests = counted([("1", "2")] * 50, TestCache(), reads)
    seen: list[int] = []
    threads = [threading.Thread(target=lambda: seen.append(len(list(tests)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (seen, reads) == ([50] * 8, [50])


def test_a_file_that_changes_while_it_is_in_use_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [row()])
    (problem,) = load(path)
    with path.open("a") as file:
        file.write("\n")
    with pytest.raises(DajError, match="changed"):
        list(problem.hidden_tests)


def test_loading_and_reading_many_megabytes_of_tests_takes_the_memory_of_a_few(tmp_path: Path) -> None:
    """30 problems of 2 MB of tests, and one of 100 MB."""
    rng = random.Random(0)
    tests = [{**STDIN[0], "input": " ".join(str(rng.randrange(10**9)) for _ in range(50_000))} for _ in range(4)]
    few, many = (
        base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests * n)), level=1)).decode() for n in (1, 50)
    )

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(31):
            yield row(f"p{number}", private_test_cases=many if number == 15 else few)

    path = write(tmp_path / "rows.jsonl", rows())
    before = watch_peak()
    problems = load(path)
    assert peak_mib() - before < 20
    before = watch_peak()
    assert sum(len(test.input) for problem in problems for test in problem.hidden_tests) > 155e6
    assert peak_mib() - before < 70  # 32 of them the cache's


# Pieces of any size


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_where_a_text_is_cut_into_pieces_does_not_matter(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(json_stream, "_STEP", 7)
    signs = ["a", "\\", '"', "\n", "é", "😀", "1 2 ", "\t", "/", "u", "{", "]", ",", "\x01", "\u2028"]
    rng = random.Random(size)
    for number in range(200):
        tests = [
            {"input": "".join(rng.choices(signs, k=rng.randrange(40))), "output": "\\" * k, "testtype": "stdin"}
            for k in range(rng.randrange(4))
        ]
        text = json.dumps(tests, ensure_ascii=number % 2 == 0, indent=number % 3 or None)
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        read = [(test.input, test.output) for test in read_tests(pieces, 10**6)]
        assert read == [(test["input"], test["output"]) for test in tests]
        assert len(list(read_tests(pieces, 10**6, keep=False))) == len(tests)


@pytest.mark.parametrize("window", [80, 101, 333])
def test_where_the_window_on_a_file_ends_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS)
    wanted = everything(load(path))
    monkeypatch.setattr(official_files, "_PIECE", window)
    monkeypatch.setattr(official_files, "_STEP", 9)
    assert everything(load(path)) == wanted


@pytest.mark.parametrize(
    "text", [r'[{"input": "\x"', r'[{"input": "\u12G4"', '[{"input": "a\nb"', '[{"input" 1', "[1", "[]]"]
)
def test_text_that_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"escape|control|found|no object|behind"):
        list(read_tests([text], 100))


# The test period of the paper


def test_the_test_period_holds_its_first_day_and_not_its_last_and_no_codeforces(tmp_path: Path) -> None:
    dated = {
        "before": "2025-01-31T23:59:59",
        "first": "2025-02-01T00:00:00",
        "first-morning": "2025-02-01T07:30",
        "last-evening": "2025-04-30T23:59",
        "after": "2025-05-01T00:00:00",
        "after-plain": "2025-05-01",
    }
    rows = [row(name, contest_date=day) for name, day in dated.items()]
    rows.append(row("cf", platform="codeforces", contest_date="2025-02-01T00:00:00"))
    assert {p.problem_id: split_of(p) for p in load(write(tmp_path / "rows.jsonl", rows))} == {
        "before": "meta",
        "first": "test",
        "first-morning": "test",
        "last-evening": "test",
        "after": None,
        "after-plain": None,
        "cf": None,
    }
