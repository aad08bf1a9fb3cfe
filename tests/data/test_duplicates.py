"""A copy on another side is found and leaves the side that trains; what a test tells apart is no copy."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from datetime import date

import pytest

from daj_lightning.data import BankSource
from daj_lightning.data.canonical import canonical_program
from daj_lightning.data.duplicates import Deduplicated, deduplicate, similar_statements, told_apart, word_grams
from daj_lightning.data.splits import split_of
from daj_lightning.records import Candidate, Problem, TestCase

STATEMENT = """Given is a list of n numbers. Find the largest sum of a block of consecutive numbers, where
the empty block counts too and has the sum 0. Input: a line with n, then the numbers. Output: one integer."""
DATES = {"train": date(2024, 1, 1), "meta": date(2024, 9, 1), "test": date(2025, 3, 1), "unseen": date(2025, 3, 2)}
ONE_TEST = (TestCase("1\n5\n", "5\n"),)


def problem(
    name: str,
    side: str,
    statement: str = STATEMENT,
    tests: Sequence[TestCase] = ONE_TEST,
    function_name: str | None = None,
) -> Problem:
    platform = "leetcode" if function_name else "atcoder"
    return Problem(
        problem_id=name,
        title=name,
        statement=statement,
        platform=platform,
        difficulty="easy",
        release_date=DATES[side],
        starter_code="",
        function_name=function_name,
        public_tests=(),
        hidden_tests=tuple(tests),
        split="unseen" if side == "unseen" else None,
    )


def clean(problems: Sequence[Problem], candidates: Sequence[Candidate] = (), threshold: float = 0.8) -> Deduplicated:
    sides = {p.problem_id: split_of(p) or "" for p in problems}
    return deduplicate(problems, candidates, sides, threshold)


def left(problems: Sequence[Problem], threshold: float = 0.8) -> list[str]:
    return [p.problem_id for p in clean(problems, threshold=threshold).problems]


def apart(*sides: str) -> list[Problem]:
    """A problem of its own on each side, named after it."""
    return [problem(side, side, f"{side} asks for something entirely else about {side}") for side in sides]


def write(problem_id: str, *codes: str) -> list[Candidate]:
    return [Candidate(f"{problem_id}/{k}", problem_id, "toy", code) for k, code in enumerate(codes)]


def programs_left(problems: Sequence[Problem], candidates: Sequence[Candidate]) -> list[str]:
    return [c.candidate_id for c in clean(problems, candidates).candidates]


# Statements


def test_a_copy_with_other_layout_and_date_leaves_the_training_side_and_stays_in_the_test() -> None:
    copy = problem("old", "train", "  " + STATEMENT.replace(" ", "\n  ").upper() + "\n")
    found = clean([copy, problem("new", "test")], write("old", "print(1)") + write("new", "print(2)"))
    assert [p.problem_id for p in found.problems] == ["new"]
    assert [c.candidate_id for c in found.candidates] == ["new/0"], "its candidates go with it"
    [repeat] = found.repeats
    assert (repeat.id, repeat.side, repeat.repeats, repeat.repeated_side) == ("old", "train", "new", "test")
    assert (repeat.kind, repeat.similarity, repeat.removed) == ("statement", 1.0, True)


def test_a_reworded_copy_goes_where_its_tests_share_no_input() -> None:
    reworded = STATEMENT.replace("one integer", "a single integer")
    assert left([problem("old", "train", reworded, [TestCase("2\n1 1\n", "2\n")]), problem("new", "test")]) == ["new"]


def test_a_reworded_copy_goes_where_a_shared_input_has_the_same_output() -> None:
    reworded = STATEMENT.replace("one integer", "a single integer")
    same = [TestCase("1 \n5", "5.0"), TestCase("1\n-1\n", "0\n")]  # 5.0 is right where 5 is expected
    assert left([problem("old", "train", reworded, same), problem("new", "test")]) == ["new"]


def test_two_instances_of_one_task_stay_where_a_test_tells_them_apart() -> None:
    """One word differs, and the input "1, 5" has another answer."""
    other = STATEMENT.replace("largest", "smallest")
    assert left([problem("old", "train", other, [TestCase("1 \n5", "0\n")]), problem("new", "test")]) == ["old", "new"]


def test_one_text_is_one_problem_whatever_its_tests_expect() -> None:
    """Of "print any" one answer stands in each copy, and an expectation may be damaged."""
    again = problem("old", "train", f" {STATEMENT}\n", [TestCase("1\n5\n", "6\n")])
    assert left([again, problem("new", "test")]) == ["new"]


def test_public_tests_tell_apart_too_and_those_of_another_encoding_do_not() -> None:
    a, b = problem("a", "train", tests=[TestCase("[1, 2]", "3")]), problem("b", "test", tests=[TestCase("[1, 2]", "4")])
    assert told_apart(a, b)
    assert not told_apart(problem("a", "train", tests=a.hidden_tests, function_name="f"), b)
    functional = [problem(p.problem_id, "test", tests=p.hidden_tests, function_name="f") for p in (a, b)]
    assert told_apart(*functional)
    same = problem("c", "test", tests=[TestCase("[1, 2]\n", "3.0")], function_name="f")
    assert not told_apart(functional[0], same), "3 and 3.0 are one value to the grader"
    unreadable = problem("d", "test", tests=[TestCase("1", "{")], function_name="f")
    assert not told_apart(unreadable, unreadable)


def test_one_task_on_two_platforms_is_a_copy() -> None:
    """Their inputs cannot be compared, so nothing tells them apart."""
    other = problem("old", "train", tests=[TestCase("[5]", "0")], function_name="largestSum")
    assert left([other, problem("new", "test")]) == ["new"]


def test_the_threshold_is_where_a_copy_begins() -> None:
    """A word in the middle of 43 stands in 3 of the 41 3-grams on each side: 38 of 44 are shared, 0.864."""
    words = [f"w{k}" for k in range(43)]
    a, b = problem("a", "train", " ".join(words)), problem("b", "test", " ".join([*words[:20], "x", *words[21:]]))
    assert left([a, b], threshold=38 / 44) == ["b"]
    assert left([a, b], threshold=38 / 44 + 1e-6) == ["a", "b"]
    assert left([a, problem("b", "test", a.statement)], threshold=1.0) == ["b"]


def test_meta_loses_against_the_test_and_wins_against_train() -> None:
    assert left([problem("t", "train"), problem("m", "meta")]) == ["m"]
    assert left([problem("m", "meta"), problem("e", "test")]) == ["e"]
    assert left([problem("m", "meta"), problem("u", "unseen")]) == ["u"]


def test_a_removed_meta_problem_removes_no_training_problem() -> None:
    """A chain: t is like m and m like e, but t is not like e."""
    words = [f"w{k}" for k in range(43)]
    t, m = " ".join(["x", "y", "z", *words[3:]]), " ".join(words)
    e = " ".join([*words[:40], "x", "y", "z"])
    chain = [problem("t", "train", t), problem("m", "meta", m), problem("e", "test", e)]
    assert {(a, b) for a, b, _ in similar_statements(chain, {p.problem_id: p.problem_id for p in chain}, 0.8)} == {
        ("t", "m"),
        ("m", "e"),
    }
    assert left(chain) == ["t", "e"]


def test_between_the_two_test_sets_a_copy_is_counted_and_stays() -> None:
    problems = [problem("e", "test"), problem("u", "unseen")]
    found = clean(problems, write("e", "print(1)") + write("u", "print( 1 )"))
    assert found.problems == problems
    assert len(found.candidates) == 2
    assert [(r.kind, r.id, r.repeats, r.removed) for r in found.repeats] == [
        ("statement", "u", "e", False),
        ("program", "u/0", "e/0", False),
    ]
    assert found.counts()["statement"]["unseen/test"] == found.counts()["program"]["unseen/test"] == 1


def test_copies_within_a_side_stay() -> None:
    problems = [problem("a", "train"), problem("b", "train")]
    found = clean(problems, write("a", "print(1)", "print( 1)") + write("b", "print(1)"))
    assert (len(found.problems), len(found.candidates), found.repeats) == (2, 3, [])


def test_a_copy_names_what_it_repeats_on_the_strongest_side() -> None:
    found = clean([problem("t", "train"), *(problem(side, side) for side in ("unseen", "meta", "test"))])
    assert {(r.id, r.repeats) for r in found.repeats} == {("t", "test"), ("meta", "test"), ("unseen", "test")}
    assert found.counts()["statement"] == {
        "unseen/test": 1,
        "meta/test": 1,
        "meta/unseen": 0,
        "train/test": 1,
        "train/unseen": 0,
        "train/meta": 0,
    }


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.8, 1.0])
def test_the_index_finds_what_comparing_every_pair_finds(threshold: float) -> None:
    rng = random.Random(0)
    base = [rng.choices("abcdefgh", k=20) for _ in range(6)]
    problems = []
    for k in range(120):
        words = list(rng.choice(base))[: rng.choice((0, 1, 2, 10, 20, 20, 20))]
        for _ in range(rng.randrange(3) if words else 0):
            words[rng.randrange(len(words))] = "x"
        problems.append(problem(f"p{k}", rng.choice(("train", "meta", "test")), " ".join(words)))
    sides = {p.problem_id: split_of(p) or "" for p in problems}
    grams = {p.problem_id: word_grams(p.statement) for p in problems}
    wanted = {
        frozenset((a, b))
        for a, b in itertools.combinations(grams, 2)
        if sides[a] != sides[b] and len(grams[a] & grams[b]) / len(grams[a] | grams[b]) >= threshold
    }
    found = [frozenset((a, b)) for a, b, _ in similar_statements(problems, sides, threshold)]
    assert len(found) == len(set(found))
    assert set(found) == wanted
    assert wanted


# Programs


def test_a_renamed_program_leaves_the_training_side() -> None:
    mine, theirs = "n = int(input())\nprint(n + 2)", "x=int(input())  # read\nprint(x+2)"
    problems = apart("train", "test")
    candidates = write("train", "print(3)", mine) + write("test", theirs)
    assert programs_left(problems, candidates) == ["train/0", "test/0"]
    assert programs_left(problems[::-1], candidates[::-1]) == ["test/0", "train/0"]


def test_programs_that_differ_in_a_constant_stay() -> None:
    candidates = write("train", "print(int(input()) + 2)") + write("test", "print(int(input()) + 3)")
    assert programs_left(apart("train", "test"), candidates) == ["train/0", "test/0"]


def test_programs_of_meta_lose_against_the_tests_and_win_against_train() -> None:
    problems = apart("train", "meta", "unseen")
    codes = ("print(1)", "print(2)", "print(3)")
    candidates = write("train", codes[0], codes[1]) + write("meta", codes[1], codes[2]) + write("unseen", codes[2])
    assert programs_left(problems, candidates) == ["train/0", "meta/0", "unseen/0"]


def test_unfinished_and_unreadable_programs_are_compared_too() -> None:
    """The first is cut off, the second holds a null byte, the third nests too deep for any parser."""
    codes = ("def f(x):\n    if x:", "print(1)\0", "(" * 5000 + "1")
    candidates = write("train", *codes, "def f(y):\n    if y:") + write("test", *codes)
    assert programs_left(apart("train", "test"), candidates) == ["train/3", "test/0", "test/1", "test/2"]


def test_a_problem_that_is_left_may_have_lost_every_program() -> None:
    found = clean(apart("train", "test"), write("train", "print(1)") + write("test", "print(1)"))
    assert [p.problem_id for p in found.problems] == ["train", "test"]
    assert [c.candidate_id for c in found.candidates] == ["test/0"]


def test_a_program_of_a_removed_problem_removes_nothing() -> None:
    """old repeats new and goes; the program it shares with "train" is then on one side only."""
    problems = [*apart("train"), problem("old", "meta"), problem("new", "test")]
    candidates = write("train", "print(7)") + write("old", "print(7)") + write("new", "print(8)")
    assert programs_left(problems, candidates) == ["train/0", "new/0"]


def test_the_bank_is_clean_of_programs_on_two_sides_and_its_tests_are_whole() -> None:
    """The policy "hasty" stops so early that its programs for different problems meet."""
    problems, candidates = BankSource(num_problems=240, train_policy="hasty", other_policy="hasty").load()
    sides = {p.problem_id: split_of(p) or "" for p in problems}
    found = clean(problems, candidates)
    assert {r.kind for r in found.repeats if r.removed} == {"statement", "program"}
    where: dict[str, set[str]] = {}
    for candidate in found.candidates:
        where.setdefault(canonical_program(candidate.code), set()).add(sides[candidate.problem_id])
    assert [on for on in where.values() if len(on) > 1 and on & {"train", "meta"}] == []
    tests = {name for name, side in sides.items() if side in ("test", "unseen")}
    assert tests <= {p.problem_id for p in found.problems}
    assert [c for c in found.candidates if c.problem_id in tests] == [c for c in candidates if c.problem_id in tests]
