"""Commands take problems as files, as patterns or from the hub, and their digest is of what was read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from daj_lightning.data.jsonl import sha256_of
from daj_lightning.data.problems import read_problems
from daj_lightning.records import DajError


def task(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "task_id": f"BigCodeBench/{number}",
        "complete_prompt": 'def task_func():\n    """One."""\n',
        "instruct_prompt": "Write task_func.",
        "canonical_solution": "    return 1",
        "code_prompt": "def task_func():\n",
        "test": "import unittest\nclass TestCases(unittest.TestCase):\n    def test_1(self):\n        pass\n",
        "entry_point": "task_func",
        "doc_struct": "{}",
        "libs": "['os']",
    }
    return {**row, **changes}


def save(path: Path, rows: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_pattern_stands_for_the_files_it_matches(tmp_path: Path) -> None:
    files = [save(tmp_path / f"tasks{k}.jsonl", [task(k)]) for k in range(2)]
    by_name, digest = read_problems(files, "bigcodebench")
    assert list(by_name) == ["BigCodeBench/0", "BigCodeBench/1"]
    assert read_problems([str(tmp_path / "tasks*.jsonl")], "bigcodebench") == (by_name, digest)
    save(tmp_path / "tasks1.jsonl", [task(1, instruct_prompt="Changed.")])
    assert read_problems(files, "bigcodebench")[1] != digest


def test_a_data_set_of_the_hub_is_digested_by_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory stands in for the hub's repository; the library reads both alike."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    digests = []
    for k, prompt in enumerate(("Write task_func.", "Write task_func.", "Changed.")):
        save(tmp_path / str(k) / "data" / "v0.1.4-00000-of-00001.jsonl", [task(7, instruct_prompt=prompt)])
        found, digest = read_problems([f"hub:{tmp_path / str(k)}"], "bigcodebench")
        assert [(name, problem.statement) for name, problem in found.items()] == [("BigCodeBench/7", prompt)]
        digests.append(digest)
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("benchmark", ["livecodebench", "bigcodebench"])
def test_a_pattern_that_matches_nothing_is_named(tmp_path: Path, benchmark: Any) -> None:
    with pytest.raises(DajError, match=r"no file '.*nothing\*\.jsonl'"):
        read_problems([str(tmp_path / "nothing*.jsonl")], benchmark)


def test_a_files_digest_is_of_its_bytes_and_no_file_has_none(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(tmp_path / "nothing") is None
    assert sha256_of(tmp_path) is None
