"""The smallest task that takes comparing programs."""

from __future__ import annotations

from collections import Counter

import pytest

from daj_lightning.data import LargestNumberSource
from daj_lightning.execution import Sandbox, grade
from daj_lightning.records import DajError


def test_the_program_that_prints_the_largest_number_passes_and_no_other_does() -> None:
    problems, candidates = LargestNumberSource(num_problems=10, num_candidates=3, seed=4).load()
    for problem in problems[:3]:
        own = [c for c in candidates if c.problem_id == problem.problem_id]
        numbers = [int(c.code[len("print(") : -1]) for c in own]
        assert problem.statement == f"Largest of {' '.join(map(str, numbers))}"
        assert [grade(problem, c, Sandbox()).passed for c in own] == [n == max(numbers) for n in numbers]


def test_no_number_stands_in_two_problems_and_those_of_one_differ_in_the_first_digit() -> None:
    problems, candidates = LargestNumberSource(num_problems=300, num_candidates=3).load()
    assert len({c.code for c in candidates}) == len(candidates) == 900
    for k, problem in enumerate(problems):
        own = candidates[3 * k : 3 * k + 3]
        assert {c.problem_id for c in own} == {problem.problem_id}
        assert len({c.code[len("print(")] for c in own}) == 3


def test_six_of_ten_problems_train_and_every_domain_is_on_every_side() -> None:
    problems, _ = LargestNumberSource(num_problems=300).load()
    assert Counter(problem.split for problem in problems) == {"train": 180, "meta": 60, "test": 60}
    for side in ("train", "meta", "test"):
        assert len({problem.domain for problem in problems if problem.split == side}) == 6


@pytest.mark.parametrize(("problems", "candidates"), [(300, 1), (5, 3), (301, 3), (90, 10)])
def test_what_the_numbers_do_not_allow_is_refused(problems: int, candidates: int) -> None:
    with pytest.raises(DajError, match=f"got {problems} problems of {candidates}"):
        LargestNumberSource(problems, candidates)
