"""A journal mends what a kill left of its last row, and touches nothing that is not its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daj_lightning.__main__ import main
from daj_lightning.data.candidates import ROW_BEGINS, ROW_KEYS
from daj_lightning.data.journal import Journal, checksum, read_checked
from daj_lightning.data.labels import FIRST_BEGINS, FIRST_KEYS
from daj_lightning.records import DajError

ROWS = [{"format": "daj labels 1", "k": 0}, {"k": 1}, {"k": 2}]


def labels(path: Path) -> Journal:
    return Journal(path, "labels", FIRST_KEYS, FIRST_BEGINS)


def candidates(path: Path) -> Journal:
    return Journal(path, "candidates", ROW_KEYS, ROW_BEGINS)


def written(path: Path) -> bytes:
    with labels(path) as journal:
        for row in ROWS:
            journal.append(row)
    return path.read_bytes()


def test_a_last_row_that_only_lacks_its_line_break_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    whole = written(path)
    path.write_bytes(whole[:-1])
    assert [row for _, row in read_checked(path, "labels")] == ROWS
    with labels(path):
        assert path.read_bytes() == whole


@pytest.mark.parametrize("tail", [b'{"k": 3', b'{"k": 3, "crc": "00000000"}', b"\0" * 30])
def test_a_torn_last_row_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "v.jsonl"
    whole = written(path)
    path.write_bytes(whole + tail)
    assert [row for _, row in read_checked(path, "labels")] == ROWS
    with labels(path):
        assert path.read_bytes() == whole


CANDIDATE = {"problem_id": "a", "policy": "hand", "code": "print(1)"}
PLAIN = {"a": 1}


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(PLAIN),
        json.dumps(PLAIN) + "\n" + json.dumps(PLAIN),
        json.dumps(PLAIN) + "\n",
        json.dumps(PLAIN, indent=2),
        "[1, 2]",
        "A text.\nWithout an end",
        "one line",
    ],
)
def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path, content: str) -> None:
    path = tmp_path / "notes.json"
    path.write_text(content)
    for journal in (labels(path), candidates(path)):
        with pytest.raises(DajError, match=r"notes\.json' is no file of .* left as it is; name another output"):
            journal.__enter__()
        assert path.read_text() == content


def test_a_file_of_candidates_is_no_output_of_label(tmp_path: Path) -> None:
    path = tmp_path / "candidates.jsonl"
    content = "\n".join([json.dumps(CANDIDATE)] * 2)
    path.write_text(content)
    with pytest.raises(DajError, match="is no file of labels"), labels(path):
        pass
    assert path.read_text() == content


def test_a_kill_within_the_first_row_leaves_an_empty_file_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    for torn in (ROW_BEGINS[:5], ROW_BEGINS + '"a/'):
        path.write_text(torn)
        with candidates(path):
            assert path.read_bytes() == b""


def test_rows_put_in_place_of_the_others_are_locked_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    before = written(path)
    with labels(path) as journal:
        journal.restart(ROWS[:1], keep_as=tmp_path / "old")
        journal.append({"k": 5})
        with pytest.raises(DajError, match="another process writes"), labels(path):
            pass
    assert [row for _, row in read_checked(path, "labels")] == [ROWS[0], {"k": 5}]
    assert (tmp_path / "old").read_bytes() == before
    assert checksum({"k": 5}) in path.read_text()
    assert not path.with_name("v.jsonl.part").exists()


def test_the_command_label_leaves_a_foreign_file_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "question_title": "A",
        "question_content": "Print n.",
        "platform": "atcoder",
        "question_id": "a",
        "contest_date": "2024-03-01T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": '[{"input": "1", "output": "1", "testtype": "stdin"}]',
        "private_test_cases": "[]",
        "metadata": "{}",
    }
    (tmp_path / "p.jsonl").write_text(json.dumps(row))
    path = tmp_path / "candidates.jsonl"
    path.write_text(json.dumps(CANDIDATE))
    files = ["--problems", str(tmp_path / "p.jsonl"), "--candidates", str(path), "--output", str(path)]
    assert main(["label", *files]) == 2
    assert "is no file of labels" in capsys.readouterr().err
    assert path.read_text() == json.dumps(CANDIDATE)
