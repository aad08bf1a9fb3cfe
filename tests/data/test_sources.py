"""The bank as a source: two sets of problems, each written for by its own policy."""

from __future__ import annotations

import pytest

from daj_lightning.data import BankSource
from daj_lightning.data.splits import split_of


def test_the_bank_writes_each_side_with_its_policy() -> None:
    problems, candidates = BankSource(num_problems=60, num_unseen=12, num_candidates=2).load()
    side = {p.problem_id: split_of(p) for p in problems}
    assert list(side.values()).count("unseen") == 12
    assert {(side[c.problem_id], c.policy) for c in candidates} == {
        ("train", "weak"),
        ("meta", "strong"),
        ("test", "strong"),
        ("unseen", "foreign"),
    }
    assert len(side) == 72
    assert len(candidates) == 2 * 72


def test_the_unseen_problems_are_of_families_that_no_other_side_has() -> None:
    problems, _ = BankSource(num_problems=60, num_unseen=12, num_candidates=1).load()
    families = {unseen: {p.title for p in problems if (p.split == "unseen") is unseen} for unseen in (True, False)}
    assert families[True]
    assert not families[True] & families[False]


def test_the_bank_can_do_without_unseen_problems() -> None:
    problems, _ = BankSource(num_problems=60, num_unseen=0, num_candidates=1).load()
    assert len(problems) == 60
    assert not any(p.split == "unseen" for p in problems)


@pytest.mark.parametrize("changed", [{"num_unseen": 1}, {"unseen_policy": "weak"}, {"num_problems": 1}, {"seed": 1}])
def test_another_choice_of_problems_or_policies_is_other_data(changed: dict) -> None:
    assert BankSource(**changed).description() != BankSource().description()
