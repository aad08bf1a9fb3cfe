"""The mutation operators, one by one."""

from __future__ import annotations

import ast
from random import Random

import pytest

from daj_lightning.data.bank.candidates import POLICIES
from daj_lightning.data.bank.dress import fold
from daj_lightning.data.bank.families import FAMILIES_BY_NAME, UNSEEN_BY_NAME
from daj_lightning.data.bank.family import fill
from daj_lightning.data.bank.mutations import OPERATORS, mutate, replaced, sites
from daj_lightning.data.bank.operators import PLAIN
from daj_lightning.data.bank.slips import SLIPS

CORES = [
    fold(ast.parse(fill(variant, family.instances()[0])))
    for family in (*FAMILIES_BY_NAME.values(), *UNSEEN_BY_NAME.values())
    for variant in family.variants
]


def outcomes(body: str, operator: str) -> set[str]:
    """Every body that the operator can make of this one."""
    core = ast.parse(f"def solve(x, y):\n    {body}\n    return 0.5")
    mutations = [mutate(core, {operator: 1.0}, Random(seed)) for seed in range(60)]
    texts = {ast.unparse(mutation.core) for mutation in mutations if mutation is not None}
    return {text.removeprefix("def solve(x, y):\n    ").removesuffix("\n    return 0.5") for text in texts}


@pytest.mark.parametrize(
    ("operator", "before", "after"),
    [
        ("compare_strictness", "y = x < 3", {"y = x <= 3"}),
        ("compare_strictness", "y = x == 3", set()),
        ("flip_comparison", "y = x == 3", {"y = x != 3"}),
        ("swap_and_or", "y = x and y", {"y = x or y"}),
        ("drop_condition", "y = x and y", {"y = x", "y = y"}),
        ("drop_condition", "y = [a for a in x if a > 0]", {"y = [a for a in x]"}),
        ("drop_branch", "y = x if y else 1", {"y = x", "y = 1"}),
        ("drop_guard", "y = max(x) if x else -1", {"y = max(x)"}),
        ("off_by_one_constant", "y = x > 3", {"y = x > 4", "y = x > 2"}),
        ("swap_arithmetic", "y = x + y", {"y = x - y"}),
        ("swap_operands", "y = x - y", {"y = y - x"}),
        ("swap_operands", "y = x + y", set()),
        ("drop_modulus", "y = (x + y) % 7", {"y = x + y"}),
        ("drop_negation", "y = -x", {"y = x"}),
        ("drop_term", "y = x + 1", {"y = x", "y = 1"}),
        ("wrong_initial", "y = 0", {"y = 1"}),
        ("swap_min_max", "y = max(x, y)", {"y = min(x, y)"}),
        ("wrong_aggregate", "y = sum(x)", {"y = max(x)"}),
        ("drop_call", "y = sorted(set(x))", {"y = list(set(x))", "y = sorted(list(x))"}),
        ("wrong_order", "y = sorted(x, reverse=True)", {"y = sorted(x, reverse=False)"}),
        ("range_bound", "y = range(2, x)", {"y = range(3, x)", "y = range(2, x + 1)", "y = range(2, x - 1)"}),
        ("slice_bound", "y = x[:2]", {"y = x[:3]", "y = x[:1]"}),
        ("wrong_index", "y = x[y]", {"y = x[y - 1]"}),
        ("drop_statement", "x += 1", {"return 0.5"}),
        ("wrong_variable", "y = x + 1", {"y = y + 1"}),
        (
            "wrong_variable",
            "for i, a in enumerate(x):\n        return i",
            {"for i, a in enumerate(y):\n        return i"},
        ),
        ("wrong_accumulator", "x += 1", {"y += 1"}),
        ("wrong_accumulator", "while y < 9:\n        x += 1", set()),
        ("wrong_constant", "y = x % 7 + 3", {"y = x % 3 + 3", "y = x % 7 + 7"}),
        ("wrong_constant", "y = x % 4 + 3", set()),
        ("index_for_value", "y = x[y]", {"y = y"}),
        ("count_for_sum", "y = sum((1 for a in x))", {"y = sum((a for a in x))"}),
        ("count_for_sum", "y = sum((a for a in x))", {"y = sum((1 for a in x))"}),
        ("count_for_sum", "y = sum(x)", {"y = len(x)"}),
        ("confuse_equality", "y = x == 3", {"y = x <= 3", "y = x >= 3"}),
        ("confuse_equality", "y = x < 3", {"y = x == 3"}),
        ("confuse_equality", "y = x == 'a'", set()),
        ("swap_arguments", "y = f(x, 1)", {"y = f(1, x)"}),
        ("swap_arguments", "y = x[0, 1]", {"y = x[1, 0]"}),
        ("swap_arguments", "y = max(x, 1)", set()),
        ("swap_targets", "a, b = x", {"b, a = x"}),
        ("drop_default", "y = x.get(y, 0)", {"y = x[y]"}),
        ("drop_default", "y = max(x, default=0)", {"y = max(x)"}),
        ("drop_start", "y = range(x + 1, y)", {"y = range(y)"}),
        ("drop_start", "y = range(1, y)", set()),
        ("drop_start", "y = x[y:]", {"y = x[:]"}),
        ("overwrite", "y += x", {"y = x"}),
        ("overwrite", "y -= x", set()),
        ("alias_rows", "y = [[0] * x for _ in range(y)]", {"y = [[0] * x] * y"}),
        ("swap_statements", "y += 1\n    x = y", {"x = y\n    y += 1"}),
        (
            "dedent_last",
            "for a in x:\n        y += a\n        x = a",
            {"for a in x:\n        y += a\n    x = a"},
        ),
        ("indent_next", "for a in x:\n        y += a", {"for a in x:\n        y += a\n        return 0.5"}),
        (
            "reset_in_loop",
            "y = 0\n    for a in x:\n        y += a",
            {"for a in x:\n        y = 0\n        y += a"},
        ),
        ("stop_at_first", "for a in x:\n        y += a", {"for a in x:\n        y += a\n        break"}),
        (
            "wrong_jump",
            "for a in x:\n        if a:\n            continue",
            {"for a in x:\n        if a:\n            break"},
        ),
    ],
)
def test_an_operator_makes_exactly_its_mistake(operator: str, before: str, after: set[str]):
    assert {text.replace("def solve(x, y):\n    ", "") for text in outcomes(before, operator)} == after


@pytest.mark.parametrize("operator", OPERATORS)
def test_an_operator_changes_the_program_names_itself_and_leaves_the_original_alone(operator: str):
    applied = 0
    for core in CORES:
        before = ast.unparse(core)
        mutation = mutate(core, {operator: 1.0}, Random(0))
        if mutation is not None:
            applied += 1
            assert mutation.operator == operator
            assert ast.unparse(ast.parse(ast.unparse(mutation.core))) != before
        assert ast.unparse(core) == before
    assert applied, "no variant of the bank has a place for this operator"


def test_every_operator_belongs_to_a_policy_and_every_policy_names_known_ones():
    assert set().union(*(policy.operators for policy in POLICIES.values())) == set(OPERATORS)


def test_no_slip_makes_a_program_that_an_operator_of_training_makes():
    """Every mutant of every variant, by both kinds of operators."""
    for core in CORES:
        of_training, of_foreign = (
            {ast.unparse(replaced(core, *site)) for found in sites(core, names).values() for site in found}
            for names in (PLAIN, SLIPS)
        )
        assert of_foreign, "foreign would only ever write this variant without a mistake"
        assert not of_training & of_foreign


def test_slips_are_the_operators_of_foreign_and_of_nobody_else():
    assert set(POLICIES["foreign"].operators) == set(SLIPS)
    assert not set(SLIPS) & set().union(*(POLICIES[name].operators for name in ("weak", "strong", "hasty")))
    assert len(SLIPS) >= 6


def test_what_steers_a_while_is_left_alone():
    core = ast.parse("def solve(n):\n    t = 0\n    while n > 0:\n        t += n % 7\n        n //= 7\n    return t")
    for seed in range(200):
        mutation = mutate(core, dict.fromkeys(OPERATORS, 1.0), Random(seed))
        assert mutation is not None
        text = ast.unparse(mutation.core)
        assert "while n > 0" in text
        assert "n //= 7" in text


def test_the_heavier_operator_is_drawn_more_often():
    core = ast.parse("def solve(x):\n    return min(x, 3) if x > 5 else 0")
    names = [
        mutation.operator
        for seed in range(400)
        if (mutation := mutate(core, {"swap_min_max": 3.0, "compare_strictness": 1.0}, Random(seed)))
    ]
    assert 0.68 <= names.count("swap_min_max") / len(names) <= 0.82
