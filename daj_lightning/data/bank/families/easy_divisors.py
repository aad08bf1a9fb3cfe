"""Easy families: the divisors of a number."""

from __future__ import annotations

from random import Random

from daj_lightning.data.bank.family import COMPARISONS, Family, Params, axis, holds


def _divisor_sum(p: Params, n: int) -> int:
    chosen = [x for x in range(1, n + 1) if n % x == 0 and holds(x, p["op"], p["limit"])]
    return sum(chosen) if p["gain"] == "x" else len(chosen)


DIVISOR_SUM = Family(
    name="divisor-sum",
    difficulty="easy",
    title="Chosen Divisors",
    method="chosenDivisors",
    arguments={"n": "int"},
    returns="int",
    task="A divisor of n is a whole number from 1 to n, both included, that divides n without a rest. Take "
    "those divisors of n that are $op_words $limit, and find $gain_words. If no divisor qualifies, the "
    "answer is 0.",
    limits="1 <= n <= 400",
    space=(
        COMPARISONS,
        axis("limit", [4, 6, 9, 12]),
        [
            {"gain": "x", "other_gain": "1", "gain_words": "their sum"},
            {"gain": "1", "other_gain": "x", "gain_words": "how many they are"},
        ],
    ),
    solve=_divisor_sum,
    edges=lambda p: [
        (1,),
        (p["limit"],),
        (p["limit"] - 1,),
        (p["limit"] + 1,),
        (p["limit"] ** 2,),
        ((p["limit"] - 1) ** 2,),
        ((p["limit"] + 1) ** 2,),
        (3 * p["limit"],),
        (360,),
        (397,),
    ],
    draw=lambda p, rng, size: (_many_divisors(rng, size),),
    variants=(
        """
def solve(n):
    total = 0
    for x in range(1, n + 1):
        if n % x == 0 and x $op $limit:
            total += $gain
    return total
""",
        """
def solve(n):
    return sum($gain for x in range(1, n + 1) if x $op $limit and n % x == 0)
""",
        """
def solve(n):
    kept = set()
    for i in range(1, n + 1):
        if i * i <= n and n % i == 0:
            kept |= {i, n // i}
    return sum($gain for x in kept if x $op $limit)
""",
        """
def solve(n):
    total = 0
    for i in range(1, n + 1):
        x = n // i
        if x * i != n:
            continue
        if x $op $limit:
            total += $gain
    return total
""",
    ),
    gross=(
        """
def solve(n):
    total = 0
    for x in range(1, n + 1):
        if n % x == 0:
            total += $gain
    return total if total $op $limit else 0
""",
        """
def solve(n):
    total = 0
    for x in range(1, n + 1):
        if n % x == 0 and x $op $limit:
            total += $other_gain
    return total
""",
    ),
    subtle=(
        """
def solve(n):
    total = 0
    for x in range(1, n):
        if n % x == 0 and x $op $limit:
            total += $gain
    return total
""",
        """
def solve(n):
    total = 0
    for i in range(1, n + 1):
        if i * i <= n and n % i == 0:
            total += sum($gain for x in (i, n // i) if x $op $limit)
    return total
""",
    ),
)


def _many_divisors(rng: Random, size: int) -> int:
    """A product of two small numbers."""
    return rng.randint(2, 2 * size) * rng.randint(1, 2 * size)


EASY_DIVISORS = (DIVISOR_SUM,)
