"""`audit` from the command line: planted mistakes are found, nothing is lost, the pages say what they should."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from check_influence import make_rows, manner_row, turned_round, write_base
from daj_lightning.__main__ import main
from daj_lightning.data.preferences import Message, Preference
from daj_lightning.evaluation.audit_report import fenced, shortened

NUM_ROWS, NUM_META = 60, 24
TURNED = set(range(0, NUM_ROWS, 5))
"""One row in five."""
FAST = ("--base_dtype", "float32", "--lora_r", "4", "--lr", "3e-3", "--beta", "0.5", "--num_inner", "8", "--looks", "2")


def to_row(own: Preference) -> dict[str, Any]:
    chat = [message._asdict() for message in own.prompt if isinstance(message, Message)]
    answers = {name: [{"role": "assistant", "content": getattr(own, name)}] for name in ("chosen", "rejected")}
    return {"id": own.id, "domain": own.domain, "prompt": chat, **answers}


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def auc(scores: np.ndarray, is_bad: np.ndarray) -> float:
    """How often a bad row scores below a good one."""
    difference = scores[~is_bad][:, None] - scores[is_bad]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("base")
    write_base(directory, seed=0)
    return str(directory)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Rows of which one in five prefers bad manners, and two that say nothing; and a meta set of good manners."""
    directory, rng = tmp_path_factory.mktemp("files"), random.Random(1)
    rows = [replace(row, domain="right") for row in make_rows(NUM_ROWS, rng, [manner_row])]
    rows = [replace(turned_round(row), domain="wrong") if k in TURNED else row for k, row in enumerate(rows)]
    meta = make_rows(NUM_META, rng, [manner_row])
    same = to_row(rows[1]) | {"rejected": to_row(rows[1])["chosen"]}
    long = to_row(rows[1]) | {"prompt": [{"role": "user", "content": "sky " * 200}]}
    return (
        write(directory / "rows.jsonl", [*map(to_row, rows), same, long]),
        write(directory / "meta.jsonl", [*map(to_row, meta)]),
    )


@pytest.fixture(scope="module")
def audited(base: str, files: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("audit")
    arguments = ("--data", files[0], "--meta", files[1], "--model", base, "--output", str(output))
    assert main(["audit", *arguments, *FAST, "--max_length", "128"]) == 0
    return output


def columns(audited: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(audited / "audit.parquet")
    return {name: table[name].to_numpy() for name in table.column_names}


def test_turned_preferences_are_told_from_right_ones_by_their_influence(audited: Path) -> None:
    influence = columns(audited)["influence"][:NUM_ROWS].astype(float)
    is_turned = np.array([k in TURNED for k in range(NUM_ROWS)])
    assert auc(influence, is_turned) >= 0.9


def test_no_row_is_lost_and_those_that_say_nothing_say_why(audited: Path) -> None:
    found = columns(audited)
    assert found["row"].tolist() == list(range(1, NUM_ROWS + 3))
    assert sorted(found["rank"][:NUM_ROWS].astype(int)) == list(range(1, NUM_ROWS + 1))
    assert found["problem"][:NUM_ROWS].tolist() == [None] * NUM_ROWS
    assert found["problem"][NUM_ROWS] == "chosen and rejected are the same"
    assert found["problem"][NUM_ROWS + 1].startswith("its prompt has ")
    assert np.isnan(found["influence"][NUM_ROWS:].astype(float)).all()


def test_every_row_has_the_same_looks_and_the_columns_agree(audited: Path) -> None:
    found = {name: values[:NUM_ROWS] for name, values in columns(audited).items()}
    assert set(found["num_looks"].tolist()) == {2}
    margin, loss = found["margin"].astype(float), found["loss_after"].astype(float)
    np.testing.assert_allclose(loss, np.log1p(np.exp(-margin)), rtol=1e-5)
    influence = found["influence"].astype(float)
    assert (np.argsort(-influence, kind="stable") == np.argsort(found["rank"].astype(int))).all()
    np.testing.assert_allclose(found["z"].astype(float) * found["standard_error"].astype(float), influence, rtol=1e-6)


def test_what_a_row_opposes_is_a_row_of_the_meta_file(audited: Path) -> None:
    """A row's worst effect on one meta row is no better than its mean over all that it met."""
    found = {name: values[:NUM_ROWS] for name, values in columns(audited).items()}
    assert set(found["opposed"].astype(int)) <= set(range(1, NUM_META + 1))
    assert (found["opposed_influence"].astype(float) <= found["influence"].astype(float) + 1e-12).mean() > 0.9


def test_the_page_shows_the_harmful_rows_with_their_text_and_reason(audited: Path, files: tuple[str, str]) -> None:
    page = (audited / "audit.md").read_text()
    last = int(np.nanargmax(columns(audited)["rank"].astype(float)))
    harmful = page.split("## Most harmful")[1].split("## Most helpful")[0]
    assert harmful.split("### ")[1].startswith(
        f"Rank {NUM_ROWS} of {NUM_ROWS}: row {last + 1}, id {last}, domain wrong"
    )
    assert "the meta set wants the opposite preference: influence -" in harmful
    assert f"| data | {NUM_ROWS + 1} | chosen and rejected are the same |" in page
    domains = page.split("## By domain")[1].split("## ")[0]
    assert domains.index("| wrong | 12 | -") < domains.index("| right | 48 | +")
    assert harmful.count("### ") == 20


def test_two_audits_of_one_seed_are_equal_to_the_last_bit(
    audited: Path, base: str, files: tuple[str, str], tmp_path: Path
) -> None:
    arguments = ("--data", files[0], "--meta", files[1], "--model", base, "--output", str(tmp_path))
    assert main(["audit", *arguments, *FAST, "--max_length", "128"]) == 0
    assert (tmp_path / "audit.parquet").read_bytes() == (audited / "audit.parquet").read_bytes()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"--model": ""}, "which model? Influence is that on a model: give --model"),
        ({"--model": str(Path(__file__).parent)}, "cannot load the tokenizer of"),
        ({"--meta": "missing.jsonl"}, "meta: no file 'missing.jsonl'"),
        ({"--looks": "0"}, "looks=0"),
        ({"--show": "0"}, "show=0"),
        ({"--lr": "-1"}, "refused lr=-1"),
        ({"--lora_targets": "qkv"}, "lora_targets ['qkv'] match no linear layer"),
        ({"--output": __file__}, "is a file; name a directory"),
        ({"--domain_column": "topic"}, "row 1 has no 'topic'"),
        ({"--max_length": "8"}, "has no row that can be used; the first, row 1: its prompt has "),
    ],
)
def test_a_mistake_is_one_line(
    change: dict[str, str],
    why: str,
    base: str,
    files: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = {"--data": files[0], "--meta": files[1], "--model": base, "--output": str(tmp_path)} | change
    assert main(["audit", *(word for option in options.items() for word in option)]) == 2
    *bars, line = capsys.readouterr().err.splitlines()
    assert all(bar.startswith("Loading weights") for bar in bars if bar), "transformers' own"
    assert line.startswith("error: ")
    assert why in line


def test_text_needs_no_chat_template_and_chats_do(
    base: str, files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plain language model, text rows, and a single look each: influence without a standard error."""
    model = tmp_path / "plain"
    shutil.copytree(base, model)
    (model / "chat_template.jinja").unlink()
    rows = [{"prompt": k, "chosen": " red please", "rejected": " red now", "source": "s"} for k in ("sky", "snow")]
    data, output = write(tmp_path / "text.jsonl", rows), tmp_path / "text"
    arguments = ("--model", str(model), "--output", str(output), *FAST, "--looks", "1")
    assert main(["audit", "--data", data, "--meta", data, *arguments]) == 0
    found = pq.read_table(output / "audit.parquet").to_pylist()
    assert [(row["domain"], row["num_looks"], row["standard_error"], row["z"]) for row in found] == [
        ("s", 1, None, None)
    ] * 2
    assert "one look" in (output / "audit.md").read_text()
    assert main(["audit", "--data", data, "--meta", files[1], *arguments]) == 2
    assert "has no chat template" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["plain", "```python\nx\n```", "a ````` b", "`"])
def test_nothing_in_a_text_ends_its_block(text: str) -> None:
    first, *body, last = fenced(text).splitlines()
    assert first == last + "text"
    assert len(last) >= 3
    assert last not in text
    assert "\n".join(body) == text


def test_a_long_text_keeps_its_ends_and_says_what_is_left_out() -> None:
    assert shortened("a" * 10, 10) == "a" * 10
    assert shortened("a" * 600 + "b" * 600, 100) == f"{'a' * 50}\n[... 1,100 characters left out ...]\n{'b' * 50}"
