"""The bank's problems: their schema, their spread, and the truth of their expected answers."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date

import pytest

from daj_lightning.data.bank import FAMILIES, UNSEEN_FAMILIES, bank_rows, unseen_rows
from daj_lightning.data.bank.dress import fold
from daj_lightning.data.bank.families import FAMILIES_BY_NAME, UNSEEN_BY_NAME
from daj_lightning.data.bank.family import Family, fill
from daj_lightning.data.bank.platforms import program, returns_once
from daj_lightning.data.livecodebench import problem_from_row
from daj_lightning.records import DajError

Row = Mapping[str, str]
RunPrograms = Callable[[Sequence[tuple[Row, str]]], list[bool]]

ROWS = bank_rows()
UNSEEN = unseen_rows()
EVERY_FAMILY = {**FAMILIES_BY_NAME, **UNSEEN_BY_NAME}


def bank_entry(row: Row) -> dict[str, object]:
    entry: dict[str, object] = json.loads(row["metadata"])["bank"]
    return entry


def family_of(row: Row) -> Family:
    return EVERY_FAMILY[str(bank_entry(row)["family"])]


def period(row: Row) -> str:
    day = problem_from_row(row).release_date
    if day < date(2024, 8, 1):
        return "train"
    return "meta" if day < date(2025, 2, 1) else "test"


def written(row: Row, templates: Sequence[str]) -> Iterator[tuple[Row, str]]:
    """The whole program of each template, as a function and, where it can be, as a script."""
    for template in templates:
        core = ast.parse(fill(template, bank_entry(row)["parameters"]))  # type: ignore[arg-type]
        for inline in {False, row["platform"] == "atcoder" and returns_once(core)}:
            copy = fold(ast.parse(ast.unparse(core)))
            yield row, program(copy, family_of(row), row["platform"], inline=inline)


def test_equal_arguments_give_equal_rows_and_another_seed_gives_others():
    assert bank_rows() == ROWS
    assert bank_rows(seed=1) != ROWS
    assert unseen_rows() == UNSEEN
    assert unseen_rows(seed=1) != UNSEEN


def test_no_two_problems_are_the_same():
    assert (len(ROWS), len(UNSEEN)) == (300, 60)
    assert len({row["question_id"] for row in ROWS + UNSEEN}) == 360
    instances = Counter(json.dumps(bank_entry(row), sort_keys=True) for row in ROWS + UNSEEN)
    assert max(instances.values()) == 1, "an instance met in training must not come back on the other platform"


def test_a_question_id_names_family_number_and_platform():
    for row in ROWS + UNSEEN:
        assert re.fullmatch(rf"{family_of(row).name}-\d{{3}}-{row['platform'][0]}", row["question_id"])


@pytest.mark.parametrize("num_problems", [150, 300])
def test_every_family_is_in_every_period(num_problems: int):
    met = {(family_of(row).name, period(row)) for row in bank_rows(num_problems=num_problems)}
    assert met == {(name, when) for name in FAMILIES for when in ("train", "meta", "test")}


def test_the_six_domains_are_equally_filled_in_each_period():
    filled = Counter((period(row), problem_from_row(row).domain) for row in ROWS)
    assert Counter(filled.values()) == {30: 6, 10: 12}  # train 6 x 30; meta and test 6 x 10 each
    assert {count for (when, _), count in filled.items() if when == "train"} == {30}


def test_ten_shared_and_two_unseen_families_of_each_difficulty():
    for families, count in ((FAMILIES_BY_NAME, 10), (UNSEEN_BY_NAME, 2)):
        assert Counter(family.difficulty for family in families.values()) == dict.fromkeys(
            ("easy", "medium", "hard"), count
        )


def test_every_family_has_fourteen_instances_or_more():
    sizes = {
        name: len({json.dumps(p, sort_keys=True) for p in EVERY_FAMILY[name].instances()}) for name in EVERY_FAMILY
    }
    assert min(sizes.values()) >= 14, sizes
    assert len(bank_rows(num_problems=420)) == 420


def test_no_row_of_the_bank_is_of_an_unseen_family():
    assert {family_of(row).name for row in bank_rows(num_problems=540)} == set(FAMILIES)
    assert {family_of(row).name for row in UNSEEN} == set(UNSEEN_FAMILIES)
    assert not set(FAMILIES) & set(UNSEEN_FAMILIES)
    for field in ("title", "method", "task", "variants"):
        met = {getattr(family, field) for family in FAMILIES_BY_NAME.values()}
        assert not met & {getattr(family, field) for family in UNSEEN_BY_NAME.values()}, field


def test_unseen_rows_say_so_and_fill_the_six_domains_of_the_test_period_alone():
    assert all(bank_entry(row)["unseen"] is True for row in UNSEEN)
    assert not any(bank_entry(row).get("unseen", False) for row in ROWS)
    assert Counter((period(row), problem_from_row(row).domain) for row in UNSEEN) == {
        ("test", domain): 10 for domain in {problem_from_row(row).domain for row in ROWS}
    }


def test_rows_read_as_livecodebench_problems_with_two_public_and_ten_to_sixteen_hidden_tests():
    for row in ROWS + UNSEEN:
        problem = problem_from_row(row)
        assert len(problem.public_tests) == 2
        assert 10 <= len(problem.hidden_tests) <= 16
        inputs = [test.input for test in problem.public_tests + problem.hidden_tests]
        assert len(set(inputs)) == len(inputs)
        assert (problem.function_name is not None) == (problem.platform == "leetcode") == bool(problem.starter_code)


def test_statements_have_40_to_90_words_and_name_every_argument():
    for row in ROWS + UNSEEN:
        text = row["question_content"]
        assert 40 <= len(text.split()) <= 90, row["question_id"]
        assert all(re.search(rf"\b{name}\b", text) for name in family_of(row).arguments)
        assert "$" not in text


def test_instances_of_a_family_have_different_statements():
    assert len({(row["platform"], row["question_content"]) for row in ROWS + UNSEEN}) == 360


def test_every_sequence_is_as_long_as_the_limits_allow():
    for row in ROWS + UNSEEN:
        bounds = re.search(r"(\d+) <= n <= (\d+)", row["question_content"])
        if bounds is None or row["platform"] == "atcoder":
            continue
        for test in problem_from_row(row).public_tests + problem_from_row(row).hidden_tests:
            values = [json.loads(line) for line in test.input.split("\n")]
            sizes = [len(value) for value in values if isinstance(value, list)] or [values[0]]
            assert all(int(bounds[1]) <= size <= int(bounds[2]) for size in sizes), row["question_id"]


def test_every_element_is_within_its_limits():
    for row in ROWS + UNSEEN:
        bounds = re.search(r"(-?\d+) <= \w+\[i\] <= (-?\d+)", row["question_content"])
        if bounds is None or row["platform"] == "atcoder":
            continue
        for test in problem_from_row(row).public_tests + problem_from_row(row).hidden_tests:
            values = json.loads(test.input.split("\n")[0])
            assert all(int(bounds[1]) <= value <= int(bounds[2]) for value in values), row["question_id"]


def test_every_correct_variant_reproduces_every_expected_output(run_programs: RunPrograms):
    programs = [entry for row in ROWS + UNSEEN for entry in written(row, family_of(row).variants)]
    failed = [row["question_id"] for (row, _), ok in zip(programs, run_programs(programs), strict=True) if not ok]
    assert not failed
    assert {row["platform"] for row, _ in programs} == {"atcoder", "leetcode"}
    assert all(len(set(family.variants)) >= 3 for family in EVERY_FAMILY.values())


def test_every_wrong_approach_is_wrong_somewhere(run_programs: RunPrograms):
    entries = [(row, t) for row in ROWS + UNSEEN for t in family_of(row).gross + family_of(row).subtle]
    programs = [next(written(row, [template])) for row, template in entries]
    failing = {template for (_, template), ok in zip(entries, run_programs(programs), strict=True) if not ok}
    assert failing == {t for family in EVERY_FAMILY.values() for t in family.gross + family.subtle}


def test_asking_for_more_problems_than_there_are_names_the_family_and_the_most():
    with pytest.raises(DajError, match=r"family 'packed-value' has 18 different problems; 600 .* Ask for 540 or fewer"):
        bank_rows(num_problems=600)
    with pytest.raises(DajError, match=r"has 18 different problems; 200 .* Ask for 108 or fewer"):
        unseen_rows(num_problems=200)
