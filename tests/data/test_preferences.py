"""Preference files of others: what each kind of row becomes, what is refused, and that no row is lost."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import Prepared
from daj_lightning.data import PairDataset
from daj_lightning.data.pairs import read_pairs
from daj_lightning.data.preference_data import PreferenceData, fitting, prompt_ids
from daj_lightning.data.preferences import Message, Preference, read_preferences
from daj_lightning.judge import encode_prompt, load_tokenizer
from daj_lightning.records import DajError

ASK = {"role": "user", "content": "2 + 2?"}
YES = {"role": "assistant", "content": "4"}
NO = {"role": "assistant", "content": "5"}
TEXT = {"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(tmp_path: Path, *rows: Any, **columns: str) -> list[Preference]:
    return read_preferences(write(tmp_path / "rows.jsonl", list(rows)), "data", **columns)


def test_half_a_character_is_refused_by_its_row(tmp_path: Path) -> None:
    with pytest.raises(DajError, match=r"row 2 holds half a character"):
        read(tmp_path, TEXT, {**TEXT, "chosen": " 4 \ud83d"})


def test_text_stays_text(tmp_path: Path) -> None:
    assert read(tmp_path, TEXT) == [Preference(1, "1", "(none)", "2 + 2 =", " 4", " 5")]


def test_without_a_prompt_text_shares_its_beginning(tmp_path: Path) -> None:
    """As in TRL: the space before the first difference belongs to the answers."""
    (row,) = read(tmp_path, {"chosen": "Q: why? A: because", "rejected": "Q: why? A: no"})
    assert (row.prompt, row.chosen, row.rejected) == ("Q: why? A:", " because", " no")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [ASK], "chosen": [YES], "rejected": [NO]},
        {"chosen": [ASK, YES], "rejected": [ASK, NO]},
        {"prompt": "2 + 2?", "chosen": [ASK, YES], "rejected": [ASK, NO]},
    ],
    ids=["explicit", "implicit", "text beside chats, as in UltraFeedback"],
)
def test_a_chat_has_its_prompt_apart_or_at_the_beginning_of_both(tmp_path: Path, row: dict[str, Any]) -> None:
    assert read(tmp_path, row) == [Preference(1, "1", "(none)", (Message("user", "2 + 2?"),), "4", "5")]


def test_longer_chats_share_all_but_their_last_answer(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be brief."}
    (row,) = read(tmp_path, {"chosen": [system, ASK, NO, ASK, YES], "rejected": [system, ASK, NO, ASK, NO]})
    assert [message.role for message in row.prompt if isinstance(message, Message)] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    assert row.prompt_text == "system: Be brief.\n\nuser: 2 + 2?\n\nassistant: 5\n\nuser: 2 + 2?"
    assert (row.chosen, row.rejected, row.problem) == ("4", "5", "")


def test_our_own_pairs_ask_what_training_asks(prepared: Prepared) -> None:
    path = prepared.root / "train.jsonl"
    rows, pairs = read_preferences(path, "data"), read_pairs(path)
    tokenizer = load_tokenizer(str(prepared.base))
    assert [(r.id, r.domain, r.chosen, r.rejected) for r in rows] == [
        (p.problem_id, p.domain, p.chosen, p.rejected) for p in pairs
    ]
    assert [prompt_ids(tokenizer, r) for r in rows] == [encode_prompt(tokenizer, p.prompt) for p in pairs]


def test_a_preference_file_gives_the_token_rows_that_training_would_see(prepared: Prepared) -> None:
    path = prepared.root / "train.jsonl"
    rows, tokenizer = read_preferences(path, "data"), load_tokenizer(str(prepared.base))
    data = PreferenceData(rows, rows, tokenizer, 256, prepared.root)
    data.load_samples("pair")
    assert isinstance(data.train_set, PairDataset)
    assert data.train_set.samples == PairDataset(read_pairs(path), tokenizer, data.domains, 256).samples


def test_parquet_and_packed_json_lines_hold_the_same_rows(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "source": "x", "chosen": [ASK, YES], "rejected": [ASK, NO]},
        {"id": "b", "source": "y", "chosen": [ASK, NO], "rejected": [ASK, YES]},
    ]
    plain = read(tmp_path, *rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    (tmp_path / "rows.gz").write_bytes(gzip.compress((tmp_path / "rows.jsonl").read_bytes()))
    assert read_preferences(tmp_path / "rows.parquet", "data") == plain
    assert read_preferences(tmp_path / "rows.gz", "data") == plain
    assert [(row.id, row.domain) for row in plain] == [("a", "x"), ("b", "y")]


def test_id_and_domain_may_have_other_names(tmp_path: Path) -> None:
    (row,) = read(tmp_path, TEXT | {"uid": 7, "topic": "sums"}, id_column="uid", domain_column="topic")
    assert (row.id, row.domain) == ("7", "sums")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"chosen": " "}, "the chosen answer is empty"),
        ({"rejected": ""}, "the rejected answer is empty"),
        ({"rejected": " 4"}, "chosen and rejected are the same"),
        ({"prompt": ""}, "it has no prompt, and chosen and rejected share no beginning"),
        ({"prompt": [ASK], "chosen": [YES, ASK], "rejected": [NO]}, "after the prompt comes ['assistant', 'user']"),
        ({"prompt": None, "chosen": [ASK, YES], "rejected": [ASK, YES]}, "chosen and rejected are the same"),
        ({"prompt": [ASK], "chosen": [], "rejected": [NO]}, "after the prompt comes nothing"),
    ],
)
def test_a_row_that_says_nothing_stays_with_its_reason(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    (row,) = read(tmp_path, TEXT | change)
    assert row.problem.startswith(why)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "a", "chosen": "b"}, "row 2 has no 'rejected'"),
        (TEXT | {"chosen": 4}, "row 2: chosen is a int and rejected a str"),
        (TEXT | {"prompt": [ASK]}, "row 2: chosen and rejected are text, but prompt is a list"),
        ({"chosen": [ASK, {"role": "assistant"}], "rejected": [ASK, NO]}, "row 2, chosen, message 2 is"),
        ({"chosen": [ASK, YES], "rejected": [ASK, NO]}, "row 2 holds chat messages, and the rows before it text"),
    ],
)
def test_what_is_no_preference_stops_the_reading_at_its_row(tmp_path: Path, row: Any, why: str) -> None:
    with pytest.raises(DajError, match=r"rows\.jsonl") as error:
        read(tmp_path, TEXT, row)
    assert why in str(error.value)


def test_an_empty_file_and_a_broken_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DajError, match="has no row"):
        read(tmp_path)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(DajError, match="no parquet file that can be read"):
        read_preferences(tmp_path / "bad.parquet", "data")
    with pytest.raises(DajError, match="no file"):
        read_preferences(tmp_path / "missing.jsonl", "data")


def test_a_prompt_is_never_cut(prepared: Prepared, tmp_path: Path) -> None:
    """At 64 tokens a prompt of over a hundred has no room; its neighbour's answers alone are cut."""
    tokenizer = load_tokenizer(str(prepared.base))
    long = {"prompt": "x " * 100, "chosen": "yes", "rejected": "no"}
    wordy = {"prompt": "a?", "chosen": "yes " * 100, "rejected": "no"}
    rows = fitting(read(tmp_path, long, wordy), tokenizer, 80)
    assert rows[0].problem.startswith("its prompt has ")
    assert rows[1].problem == ""
    data = PreferenceData(rows[1:], rows[1:], tokenizer, 80, tmp_path)
    data.load_samples("pair")
    assert isinstance(data.train_set, PairDataset)
    (sample,) = data.train_set.samples
    assert [row.num_cut > 0 for row in sample.rows] == [True, False]
    assert list(sample.rows[0].prompt_ids) == prompt_ids(tokenizer, rows[1])


def test_every_row_gets_its_looks_whatever_the_warm_up_took(prepared: Prepared, tmp_path: Path) -> None:
    """Ten rows, windows of four, two looks: five windows after the warm-up hold each row twice."""
    tokenizer = load_tokenizer(str(prepared.base))
    rows = read(tmp_path, *(TEXT | {"prompt": f"{k} + 1 ="} for k in range(10)))
    data = PreferenceData(rows, rows, tokenizer, 64, tmp_path, num_inner=4, looks=2, warmup_windows=3)
    data.load_samples("pair")
    assert data.max_windows == 8
    seen = [k for number in range(3, 8) for k in data.window(number).inner.sample_ids.tolist()]
    assert sorted(seen) == sorted([*range(10), *range(10)])


def test_a_file_of_fewer_rows_than_a_window_holds_gets_its_looks_too(prepared: Prepared, tmp_path: Path) -> None:
    """Three rows in windows of sixteen: a single window would hold each five times, and a single look says nothing."""
    rows = read(tmp_path, *(TEXT | {"prompt": f"{k} + 1 ="} for k in range(3)))
    data = PreferenceData(rows, rows, load_tokenizer(str(prepared.base)), 64, tmp_path, num_inner=16, looks=4)
    data.load_samples("pair")
    seen = [data.window(number).inner.sample_ids.tolist() for number in range(data.warmup_windows, data.max_windows)]
    assert [sorted(window) for window in seen] == [[0, 1, 2]] * 4
