"""Majority by output: real programs in the real sandbox, and no look at what they should print."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from daj_lightning.evaluation.clustering import biggest, cluster_picks, spelling
from daj_lightning.evaluation.field import Field
from daj_lightning.execution import Sandbox
from daj_lightning.records import Candidate, Problem, TestCase


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox()


def problem(name: str, function_name: str | None = None) -> Problem:
    """Expected outputs are nonsense: whoever looked at them would pick nothing."""
    return Problem(
        problem_id=name,
        title=name,
        statement="Double it.",
        platform="leetcode" if function_name else "atcoder",
        difficulty="easy",
        release_date=date(2025, 3, 1),
        starter_code="",
        function_name=function_name,
        public_tests=(TestCase("1", "no"), TestCase("2", "no")),
        hidden_tests=(),
    )


def field(problem: Problem, *programs: str) -> Field:
    name = problem.problem_id
    graded = [(Candidate(f"{name}/{i}", name, "toy", code), False) for i, code in enumerate(programs)]
    return Field({name: graded}, {name: "easy"}, {name: problem})


CRASHES = "import sys\nsys.exit(3)"


def test_the_first_of_the_biggest_group_is_taken_and_crashes_are_no_group(sandbox: Sandbox) -> None:
    """Three crash; two print the double, one with other white space; one prints the square."""
    programs = (
        "print(int(input()) ** 2)",
        CRASHES,
        CRASHES,
        CRASHES,
        "print(2 * int(input()))",
        "n = int(input())\nprint(n + n, '')",
    )
    assert cluster_picks(field(problem("p"), *programs), sandbox, 2) == {"p": 4}


def test_programs_must_agree_on_every_input(sandbox: Sandbox) -> None:
    """n ** 2 and n agree on 1; 2 n and n + n agree everywhere."""
    programs = (
        "print(int(input()))",
        "print(int(input()) ** 2)",
        "print(2 * int(input()))",
        "print(2 * int(input()) + 0)",
    )
    assert cluster_picks(field(problem("p"), *programs), sandbox, 1) == {"p": 2}


def test_methods_are_compared_by_value(sandbox: Sandbox) -> None:
    made = "class Solution:\n    def f(self, n):\n        return {}"
    programs = (made.format("None"), made.format("[n, n + 1]"), made.format("(n, n + 1)"))
    assert cluster_picks(field(problem("p", "f"), *programs), sandbox, 1) == {"p": 1}


def test_where_nothing_runs_the_first_program_is_taken_and_without_inputs_nothing_is_said(sandbox: Sandbox) -> None:
    broken = field(problem("p"), "", CRASHES, "import")
    assert cluster_picks(broken, sandbox, 1) == {"p": 1}
    blind = replace(problem("p"), public_tests=())
    assert cluster_picks(field(blind, "print(1)"), sandbox, 1) == {}
    assert cluster_picks(field(blind, CRASHES, "print(1)"), sandbox, 1, {"p": ["7"]}) == {"p": 1}


def test_the_first_of_equal_groups_wins() -> None:
    assert biggest({3: ("x",), 1: ("y",), 5: ("x",), 4: ("y",), 0: None}) == 1
    assert biggest({}) == 0


def test_one_value_has_one_spelling() -> None:
    assert spelling(" 1  2\n\n", functional=False) == spelling("1 2", functional=False)
    assert spelling("[1,2]", functional=True) == spelling("[1, 2]", functional=True)
    assert spelling("not json", functional=True) == "not json"
