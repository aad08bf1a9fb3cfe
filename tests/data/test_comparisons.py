"""Every mixed pair in both orders, or one drawn; a reference that passed and gives no candidate away."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from asking import CANDIDATES, PROBLEM, TEMPLATE, A, B, C
from daj_lightning.data import mixed_comparisons, voting_comparisons
from daj_lightning.data.comparisons import References
from daj_lightning.judge import Voting
from daj_lightning.records import Candidate, Comparison, DajError, ReferenceUse

ALWAYS = References(support=1.0)


def mixed(
    passing: str, candidates: Sequence[Candidate] = CANDIDATES, max_pairs: int = 8, seed: int = 0, **options: Any
) -> list[Comparison]:
    passed = {c.candidate_id: c.candidate_id in passing for c in candidates}
    return mixed_comparisons(PROBLEM, candidates, passed, TEMPLATE, max_pairs, seed, **options)


def test_every_mixed_pair_appears_in_both_orders_and_no_other_pair_does() -> None:
    """A and C pass: AB, AD, CB, CD are mixed; AC (both pass) and BD (neither does) teach nothing."""
    asked = {c.candidate_ids: c.passed for c in mixed("AC")}
    right_first = {("A", "B"), ("A", "D"), ("C", "B"), ("C", "D")}
    assert asked == {
        **dict.fromkeys(right_first, (True, False)),
        **{(wrong, right): (False, True) for right, wrong in right_first},
    }


@pytest.mark.parametrize("passing", ["ABCD", ""])
def test_a_problem_whose_candidates_all_pass_or_all_fail_is_left_out(passing: str) -> None:
    assert mixed(passing) == []


def test_a_limit_on_pairs_keeps_both_orders_of_each_one_kept() -> None:
    asked = [c.candidate_ids for c in mixed("AC", max_pairs=3)]
    assert len(asked) == 6
    assert {pair[::-1] for pair in asked} == set(asked)


def test_which_pairs_are_kept_depends_on_the_seed_alone() -> None:
    kept = {seed: [c.candidate_ids for c in mixed("AC", max_pairs=1, seed=seed)] for seed in range(20)}
    assert all(kept[seed] == [c.candidate_ids for c in mixed("AC", max_pairs=1, seed=seed)] for seed in kept)
    assert len({pairs[0] for pairs in kept.values()}) > 1


def test_the_prompt_shows_the_candidates_in_the_order_of_the_comparison() -> None:
    for asked in mixed("AC"):
        first, second = (asked.prompt.index(f"print('{name}')") for name in asked.candidate_ids)
        assert first < second


def test_a_comparison_carries_its_problem_and_every_policy() -> None:
    other = replace(B, policy="another")
    first, _ = mixed("A", [A, other])
    assert (first.problem_id, first.domain, first.difficulty) == ("plus-1", "atcoder-easy", "easy")
    assert (first.policy, first.kind) == ("another+toy", "mixed")


def test_the_rounds_are_those_of_the_voting_whoever_passes() -> None:
    voting = Voting(rounds=20, seed=5)
    passed = {"A": True, "B": True, "C": False, "D": False}
    rounds = voting_comparisons(PROBLEM, CANDIDATES, passed, TEMPLATE, voting)
    assert [c.candidate_ids for c in rounds] == [("ABCD"[i], "ABCD"[j]) for i, j in voting.draw(4, PROBLEM.problem_id)]
    assert {c.passed for c in rounds} == set(itertools.product([True, False], repeat=2))
    assert {c.kind for c in rounds} == {"round"}


def test_the_label_flips_with_the_order_and_nothing_else_does() -> None:
    asked = {c.candidate_ids: c for c in mixed("AC")}
    for ids, one in asked.items():
        other = asked[ids[::-1]]
        assert one.passed == other.passed[::-1]
        assert sum(one.passed) == 1
        assert one.passed == tuple(name in "AC" for name in ids)
        assert (one.problem_id, one.domain, one.policy) == (other.problem_id, other.domain, other.policy)
        assert sorted(one.prompt.splitlines()) == sorted(other.prompt.splitlines())


def many(number: int) -> list[Candidate]:
    """Programs that differ; the first half is named "r.." (right)."""
    return [Candidate(f"{'rw'[2 * i // number]}{i}", PROBLEM.problem_id, "toy", f"print({i})") for i in range(number)]


def test_without_swap_each_pair_is_asked_in_one_order_drawn_by_the_seed() -> None:
    """20 x 20 pairs: the right program stands first in about half of them."""
    programs = many(40)
    passed = {c.candidate_id: c.candidate_id[0] == "r" for c in programs}
    asked = mixed_comparisons(PROBLEM, programs, passed, TEMPLATE, 400, 0, swap=False)
    assert len({frozenset(c.candidate_ids) for c in asked}) == len(asked) == 400
    assert 160 <= sum(c.passed == (True, False) for c in asked) <= 240  # 200 expected, standard deviation 10
    assert all(c.passed == tuple(name[0] == "r" for name in c.candidate_ids) for c in asked)
    assert asked == mixed_comparisons(PROBLEM, programs, passed, TEMPLATE, 400, 0, swap=False)
    assert asked != mixed_comparisons(PROBLEM, programs, passed, TEMPLATE, 400, 1, swap=False)


def test_without_swap_the_same_pairs_are_asked() -> None:
    both, one = mixed("AC", max_pairs=3), mixed("AC", max_pairs=3, swap=False)
    assert {frozenset(c.candidate_ids) for c in both} == {frozenset(c.candidate_ids) for c in one}


def test_by_default_no_prompt_shows_a_reference() -> None:
    for asked in (mixed("AC"), mixed("AC", references=References())):
        assert {(c.reference_id, c.reference_use) for c in asked} == {(None, ReferenceUse.NONE)}
        assert not any("# Reference" in c.prompt for c in asked)


def test_a_reference_passed_and_is_neither_candidate() -> None:
    """A and C pass: a pair with A is shown C, a pair with C is shown A, never a program that fails."""
    for asked in mixed("AC", references=ALWAYS):
        expected = "C" if "A" in asked.candidate_ids else "A"
        assert (asked.reference_id, asked.reference_use) == (expected, ReferenceUse.SHOWN)
        reference, submissions = asked.prompt.split("--- Solution 1 ---")
        assert f"print('{expected}')" in reference.split("# Reference")[1]
        assert f"print('{expected}')" not in submissions


def test_both_orders_of_a_pair_are_shown_the_same_reference() -> None:
    programs = many(40)
    passed = {c.candidate_id: c.candidate_id[0] == "r" for c in programs}
    asked = mixed_comparisons(PROBLEM, programs, passed, TEMPLATE, 50, 0, references=ALWAYS)
    shown = {c.candidate_ids: c.reference_id for c in asked}
    assert all(shown[ids] == shown[ids[::-1]] for ids in shown)
    assert len(set(shown.values())) > 5


def test_a_copy_of_a_candidate_is_no_reference() -> None:
    """C passes too, but is A with a comment and another name: shown, it would say that A is right."""
    right = replace(A, code="n = int(input())\nprint(n)")
    copy = replace(C, code="value = int(input())  # read\nprint(value)")
    passed = {"A": True, "B": False, "C": True}
    asked = mixed_comparisons(PROBLEM, [right, B, copy], passed, TEMPLATE, 8, 0, references=ALWAYS)
    assert {(c.reference_id, c.reference_use) for c in asked} == {(None, ReferenceUse.LACKING)}
    assert not any("# Reference" in c.prompt for c in asked)


def test_a_pair_whose_right_program_is_the_only_one_goes_without_and_says_so() -> None:
    assert {(c.reference_id, c.reference_use) for c in mixed("A", references=ALWAYS)} == {(None, ReferenceUse.LACKING)}


def test_support_and_drop_are_shares_and_the_drop_takes_each_order_alone() -> None:
    """400 pairs, support 0.5, drop 0.25: 200 pairs are drawn, 300 of their 400 comparisons show a program."""
    programs = many(40)
    passed = {c.candidate_id: c.candidate_id[0] == "r" for c in programs}
    asked = mixed_comparisons(PROBLEM, programs, passed, TEMPLATE, 400, 0, references=References(0.5, 0.25))
    uses = {c.candidate_ids: c.reference_use for c in asked}
    drawn = {ids for ids, use in uses.items() if use is not ReferenceUse.NONE}
    assert {ids[::-1] for ids in drawn} == drawn
    assert 320 <= len(drawn) <= 480  # 400 expected, standard deviation 20
    shown = {ids for ids in drawn if uses[ids] is ReferenceUse.SHOWN}
    assert 0.68 <= len(shown) / len(drawn) <= 0.82
    assert any(ids[::-1] not in shown for ids in shown)
    for one in asked:
        assert ("# Reference" in one.prompt) == (one.reference_id is not None) == (one.candidate_ids in shown)


def test_a_dropped_comparison_is_the_one_without_support() -> None:
    bare = {c.candidate_ids: c.prompt for c in mixed("AC")}
    dropped = mixed("AC", references=References(support=1.0, drop=1.0))
    assert {c.reference_use for c in dropped} == {ReferenceUse.DROPPED}
    assert {c.candidate_ids: c.prompt for c in dropped} == bare


@pytest.mark.parametrize("shares", [(1.5, 0.0), (-0.1, 0.0), (0.5, 2.0)])
def test_shares_outside_0_and_1_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(DajError, match="are shares from 0 to 1"):
        References(*shares)


def test_a_drop_of_nothing_is_refused() -> None:
    with pytest.raises(DajError, match=r"reference_drop=0\.5 has nothing to drop while data\.reference_support is 0"):
        References(drop=0.5)
