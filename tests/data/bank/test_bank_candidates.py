"""The bank's candidates: alike in everything but what they compute."""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import product
from typing import NamedTuple

import pytest

from daj_lightning.data.bank import POLICIES, UNSEEN_FAMILIES, bank_candidates, bank_rows, unseen_rows
from daj_lightning.data.bank.candidates import (
    BY_HAND,
    CORRECT,
    POLICIES as POLICY_TABLE,
    TRUNCATE,
    Program,
    write_programs,
)
from daj_lightning.data.bank.families import FAMILIES_BY_NAME, UNSEEN_BY_NAME
from daj_lightning.data.bank.mutations import OPERATORS
from daj_lightning.records import DajError

Row = Mapping[str, str]
RunPrograms = Callable[[Sequence[tuple[Row, str]]], list[bool]]

ROWS = bank_rows()
PAPER_POLICIES = ("weak", "strong")
SAMPLE = ROWS[:120] + unseen_rows()[:24]
"""Four instances of every family."""


def is_unseen(row: Row) -> bool:
    return bool(json.loads(row["metadata"])["bank"].get("unseen", False))


class Graded(NamedTuple):
    row: Row
    program: Program
    passed: bool


@cache
def written(policy: str) -> list[tuple[Row, Program]]:
    """Eight programs for every problem of the sample."""
    known = {**FAMILIES_BY_NAME, **UNSEEN_BY_NAME}
    families = [known[json.loads(row["metadata"])["bank"]["family"]] for row in SAMPLE]
    return [
        (row, program)
        for family, row in zip(families, SAMPLE, strict=True)
        for program in write_programs(family, row, policy, 8, seed=0)
    ]


@pytest.fixture(scope="module", params=(*PAPER_POLICIES, "foreign"))
def graded(request: pytest.FixtureRequest, run_programs: RunPrograms) -> list[Graded]:
    """The candidates of one policy for the sample, executed."""
    passed = run_programs([(row, program.code) for row, program in written(request.param)])
    return [Graded(row, program, ok) for (row, program), ok in zip(written(request.param), passed, strict=True)]


@pytest.mark.parametrize("policy", POLICIES)
def test_equal_arguments_give_equal_candidates_and_another_seed_gives_others(policy: str):
    first = bank_candidates(ROWS[7], policy=policy, num_candidates=8)
    assert bank_candidates(dict(ROWS[7]), policy=policy, num_candidates=8) == first
    assert bank_candidates(ROWS[7], policy=policy, num_candidates=8, seed=1) != first


@pytest.mark.parametrize("policy", POLICIES)
def test_a_problem_has_as_many_different_candidates_as_asked_for(policy: str):
    for row in SAMPLE[::3]:
        candidates = bank_candidates(row, policy=policy, num_candidates=8)
        assert len({candidate.code for candidate in candidates}) == len(candidates) == 8
        assert len({candidate.candidate_id for candidate in candidates}) == 8
        assert {(c.problem_id, c.policy) for c in candidates} == {(row["question_id"], policy)}


@pytest.mark.parametrize("policy", POLICIES)
def test_every_program_is_in_the_normal_form_of_ast_unparse(policy: str):
    for _, program in written(policy):
        if program.origin != TRUNCATE:
            assert ast.unparse(ast.parse(program.code)) == program.code
            assert "#" not in program.code.replace("'#'", ""), "a comment would tell"


def test_hardly_a_program_has_more_than_fourteen_lines():
    lengths = [len(list(filter(None, program.code.split("\n")))) for _, program in written("weak") + written("strong")]
    assert sum(length <= 14 for length in lengths) / len(lengths) > 0.98
    assert max(lengths) <= 16


@pytest.mark.parametrize("policy", ["strong", "foreign"])
def test_hardly_a_name_is_met_in_wrong_programs_only(policy: str):
    names: dict[str, Counter[str]] = {"right": Counter(), "wrong": Counter()}
    for _, program in written(policy):
        found = {node.id for node in ast.walk(ast.parse(program.code)) if isinstance(node, ast.Name)}
        names["right" if program.origin == CORRECT else "wrong"].update(found)
    only_wrong = sum(count for name, count in names["wrong"].items() if name not in names["right"])
    assert only_wrong < 0.005 * names["wrong"].total()


def test_weak_errs_grossly_and_strong_subtly():
    origins = {policy: Counter(program.origin for _, program in written(policy)) for policy in PAPER_POLICIES}
    gross = {
        "flip_comparison",
        "negate_condition",
        "swap_arithmetic",
        "wrong_aggregate",
        "swap_and_or",
        TRUNCATE,
    }
    subtle = {"compare_strictness", "off_by_one_constant", "drop_guard", "range_bound", "wrong_index"}
    assert sum(origins["weak"][name] for name in gross) > 10 * sum(origins["strong"][name] for name in gross)
    assert sum(origins["strong"][name] for name in subtle) > 4 * sum(origins["weak"][name] for name in subtle)
    mistakes = {policy: {*count} - {CORRECT, BY_HAND} for policy, count in origins.items()}
    assert mistakes["weak"] & mistakes["strong"], "the policies overlap"
    assert all(len(names) >= 8 for names in mistakes.values())


def test_most_mistakes_of_hasty_are_unfinished_programs():
    mistakes = [program.origin for _, program in written("hasty") if program.origin != CORRECT]
    assert mistakes.count(TRUNCATE) > len(mistakes) / 2


def test_a_program_that_stops_early_has_at_least_one_line():
    """The shortest programs have two lines, and two may be missing."""
    short = [row for row in bank_rows(num_problems=540) if row["question_id"].startswith("divisor-sum")]
    codes = [c.code for row in short for c in bank_candidates(row, policy="hasty", num_candidates=8)]
    assert all(code.strip() for code in codes)
    assert any(len(code.splitlines()) == 1 for code in codes)


def test_foreign_makes_no_mutation_of_another_policy_and_leaves_no_program_unfinished():
    origins = Counter(program.origin for _, program in written("foreign"))
    trained = set().union(*(POLICY_TABLE[name].operators for name in POLICIES if name != "foreign"))
    assert not set(origins) & (trained | {TRUNCATE})
    assert not set(POLICY_TABLE["foreign"].operators) & trained
    assert len(set(origins) - {CORRECT, BY_HAND}) >= 12


def test_every_policy_writes_for_unseen_families():
    met = {program.origin for row, program in written("strong") if is_unseen(row)}
    assert {CORRECT, BY_HAND, "compare_strictness"} <= met
    assert {json.loads(row["metadata"])["bank"]["family"] for row in SAMPLE if is_unseen(row)} == set(UNSEEN_FAMILIES)
    for policy in POLICIES:
        assert sum(is_unseen(row) for row, _ in written(policy)) == 24 * 8


def test_about_half_of_the_candidates_pass_and_every_problem_has_both_kinds(graded: list[Graded]):
    assert 0.42 <= sum(entry.passed for entry in graded) / len(graded) <= 0.58
    kinds = {(entry.row["question_id"], entry.passed) for entry in graded}
    assert len(kinds) >= 2 * len(SAMPLE) * 0.97


def test_programs_without_a_mistake_pass(graded: list[Graded]):
    assert all(entry.passed for entry in graded if entry.program.origin == CORRECT)


def test_the_tests_kill_nine_mutants_in_ten(graded: list[Graded]):
    mutants = [entry for entry in graded if entry.program.origin in OPERATORS]
    assert len(mutants) > 250
    assert sum(not entry.passed for entry in mutants) / len(mutants) >= 0.9


def test_length_says_little_about_passing(graded: list[Graded]):
    """The chance that a passing candidate is longer than a failing one of the same problem."""
    pairs = [
        (len(right.program.code), len(wrong.program.code))
        for right, wrong in product([e for e in graded if e.passed], [e for e in graded if not e.passed])
        if right.row is wrong.row
    ]
    assert 0.4 <= sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs) <= 0.6


def test_an_unknown_policy_is_answered_with_the_known_ones():
    with pytest.raises(DajError, match=r"no policy 'gpt' in the bank; it knows 'weak', .*'strong', 'foreign'"):
        bank_candidates(ROWS[0], policy="gpt", num_candidates=8)


def test_a_row_from_elsewhere_is_refused():
    with pytest.raises(DajError, match="only for its own rows"):
        bank_candidates({**ROWS[0], "metadata": "{}"}, policy="weak", num_candidates=8)


def test_asking_for_more_candidates_than_there_are_says_how_many_there_are():
    with pytest.raises(DajError, match=r"ran out of different programs after \d+ of 4000"):
        bank_candidates(ROWS[0], policy="strong", num_candidates=4000)
