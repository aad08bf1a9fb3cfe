"""The program in a response is found as LiveCodeBench finds it, and a candidate's row is checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from daj_lightning.data import candidate_from_row
from daj_lightning.data.candidates import extract_code, fingerprint, read_candidates
from daj_lightning.records import Candidate, DajError


@pytest.mark.parametrize(
    ("response", "code"),
    [
        ("```python\nprint(1)\n```", "print(1)"),
        ("Think.\n```python\nprint(1)\n```\nDone.", "print(1)"),
        ("```\nfirst\n```\nor\n```python\nlast\n```", "last"),
        ("```python\na\n\n  b\n```", "a\n\n  b"),
        ("no fence at all", ""),
        ("```python\ncut off", ""),
        ("", ""),
        ("```\n```", ""),
        ("    ```python\nindented\n    ```", "indented"),
        ("x = '```'\nbetween\ny = '```'", "between"),  # any line that holds a fence
        ("```a``` one line", ""),
        ("```python\na\n```\n```", ""),  # the last two lines with a fence, not the last pair
        ("```python\r\nprint(1)\r\n```", "print(1)\r"),  # only line feeds end a line
        ("```python\na\x0cb\u2028c\n```", "a\x0cb\u2028c"),
    ],
)
def test_the_code_stands_between_the_last_two_lines_with_a_fence(response: str, code: str) -> None:
    assert extract_code(response) == code


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_row_without_an_id_is_called_by_its_line_wherever_the_file_lies(tmp_path: Path) -> None:
    row = {"problem_id": "p", "policy": "q", "code": "pass"}
    path = write(tmp_path / "c.jsonl", {**row, "candidate_id": 7}, {**row, "finish_reason": "stop"})
    assert list(read_candidates(path)) == [Candidate("7", "p", "q", "pass"), Candidate("p/q/line 2", "p", "q", "pass")]
    assert candidate_from_row(row, "some/where.jsonl, line 2").candidate_id == "p/q/line 2"


def test_a_response_without_code_is_a_candidate_and_a_row_without_either_is_a_mistake(tmp_path: Path) -> None:
    blank = {"candidate_id": "c", "problem_id": "p", "policy": "q", "code": ""}
    assert [c.code for c in read_candidates(write(tmp_path / "c.jsonl", blank))] == [""]
    assert candidate_from_row({**blank, "response": "I cannot."}, "c.jsonl, line 1").code == ""
    with pytest.raises(DajError, match="line 1: candidate 'c' has no code"):
        candidate_from_row(blank, "c.jsonl, line 1")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"problem_id": "p", "code": "pass"}, r"lacks \['policy'\]"),
        ({"problem_id": "p", "policy": "q", "code": None}, "code is a NoneType, wanted text"),
        ({"problem_id": 3, "policy": "q", "code": ""}, "problem_id is a int, wanted text"),
    ],
)
def test_a_row_that_is_no_candidate_is_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    good = {"problem_id": "p", "policy": "q", "code": "pass"}
    with pytest.raises(DajError, match=rf"c\.jsonl, line 2: .*{said}"):
        list(read_candidates(write(tmp_path / "c.jsonl", good, row)))


def test_a_fingerprint_is_of_the_code_alone() -> None:
    one = Candidate("a", "p", "q", "pass")
    assert (
        fingerprint(one) == fingerprint(Candidate("b", "r", "s", "pass")) != fingerprint(Candidate("a", "p", "q", ""))
    )
    assert len(fingerprint(Candidate("a", "p", "q", "\ud800"))) == 16  # a lone surrogate, which JSON can hold
