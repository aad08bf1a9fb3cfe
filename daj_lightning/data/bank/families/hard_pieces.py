"""Hard families: a string cut into pieces, a day filled with meetings."""

from __future__ import annotations

from itertools import combinations, pairwise
from random import Random

from daj_lightning.data.bank.family import AT_LEAST, GREATER, Family, Params, axis, holds, letters


def _mirror_cuts(p: Params, s: str) -> int:
    totals = []
    for size in range(len(s)):
        for cuts in combinations(range(1, len(s)), size):
            pieces = [s[a:b] for a, b in zip((0, *cuts), (*cuts, len(s)), strict=True)]
            totals.append(sum(p["good"] if x == x[::-1] else p["bad"] * len(x) for x in pieces))
    return min(totals)


MIRROR_CUTS = Family(
    name="mirror-cuts",
    difficulty="hard",
    title="Mirror Pieces",
    method="mirrorCuts",
    arguments={"s": "str"},
    returns="int",
    task="Cut the string s into consecutive pieces, none of them empty; one piece is allowed. A piece that "
    "reads the same backwards, such as a single letter, costs $good. Any other piece costs $bad for each of "
    "its letters. Find the least total cost.",
    limits="s has 1 to 9 lowercase letters",
    space=([{"good": good, "bad": bad} for good in range(3, 9) for bad in range(2, good) if good < 3 * bad],),
    solve=_mirror_cuts,
    edges=lambda p: [
        ("a",),
        ("ab",),
        ("aa",),
        ("aba",),
        ("abcabcabc",),
        ("abccbaab",),
        ("aaaaaaaaa",),
        ("abcdeffed",),
        ("abcdaxyza",),
    ],
    draw=lambda p, rng, size: (letters(rng, min(9, size + 1), "ab" if rng.random() < 0.5 else "abc"),),
    variants=(
        """
def solve(s):
    best_at = [0]
    for j in range(1, len(s) + 1):
        costs = []
        for i in range(j):
            x = s[i:j]
            costs.append(best_at[i] + ($good if x == x[::-1] else $bad * len(x)))
        best_at.append(min(costs))
    return best_at[-1]
""",
        """
from functools import lru_cache
def solve(s):
    @lru_cache(None)
    def cost(i):
        if i == len(s):
            return 0
        pieces = [s[i:j] for j in range(i + 1, len(s) + 1)]
        return min(cost(i + len(x)) + ($good if x == x[::-1] else $bad * len(x)) for x in pieces)
    return cost(0)
""",
        """
from itertools import combinations
def solve(s):
    values = []
    for size in range(len(s)):
        for cuts in combinations(range(1, len(s)), size):
            ends = [0, *cuts, len(s)]
            parts = [s[a:b] for a, b in zip(ends, ends[1:])]
            values.append(sum($good if x == x[::-1] else $bad * len(x) for x in parts))
    return min(values)
""",
    ),
    gross=(
        """
def solve(s):
    total = 0
    while s:
        size = max(j for j in range(1, len(s) + 1) if s[:j] == s[:j][::-1])
        total += min($good, $bad * size)
        s = s[size:]
    return total
""",
        """
def solve(s):
    if s == s[::-1]:
        return $good
    return min($good * len(s), $bad * len(s))
""",
    ),
    subtle=(
        """
def solve(s):
    best_at = [0]
    for j in range(1, len(s) + 1):
        costs = []
        for i in range(j):
            x = s[i:j]
            same = len(x) > 1 and x == x[::-1]
            costs.append(best_at[i] + ($good if same else $bad * len(x)))
        best_at.append(min(costs))
    return best_at[-1]
""",
        """
def solve(s):
    best_at = [0]
    for j in range(1, len(s) + 1):
        costs = []
        for i in range(j):
            x = s[i:j]
            costs.append(best_at[i] + ($good if x[0] == x[-1] else $bad * len(x)))
        best_at.append(min(costs))
    return best_at[-1]
""",
    ),
)


def _calm_day(p: Params, pairs: list[list[int]]) -> int:
    worth = [0]
    for size in range(1, len(pairs) + 1):
        for day in combinations(sorted(pairs), size):
            if all(holds(later[0] - b, p["op"], p["rest"]) for (_, b), later in pairwise(day)):
                worth.append(sum(b - a + p["bonus"] for a, b in day))
    return max(worth)


CALM_DAY = Family(
    name="calm-day",
    difficulty="hard",
    title="A Calm Day",
    method="calmDay",
    arguments={"pairs": "pairs"},
    returns="int",
    task="An entry [a, b] of pairs is a meeting from a to b. Choose meetings so that between any two of them "
    "the start of the later one minus the end of the earlier one is $op_words $rest. A chosen meeting is "
    "worth its length b - a plus $bonus. Find the largest total worth.",
    limits="1 <= n <= 7, 0 <= a < b <= 40",
    space=((GREATER, AT_LEAST), axis("rest", [0, 1, 2, 3]), axis("bonus", [1, 3, 5])),
    solve=_calm_day,
    edges=lambda p: [
        ([[3, 8]],),
        ([[1, 5], [5 + p["rest"], 9 + p["rest"]]],),
        ([[6 + p["rest"], 9 + p["rest"]], [1, 5]],),
        ([[4, 9], [4, 9], [4, 9]],),
        ([[0, 20], [1, 6], [8, 13], [15, 20]],),
        ([[0, 7], [6, 9], [8 + p["rest"], 15 + p["rest"]]],),
        ([[30, 38], [0, 4], [10, 14], [20, 24], [4, 10], [14, 20], [24, 30]],),
        ([[0, 3], [20, 40], [2, 21], [5, 8], [11, 14]],),
    ],
    draw=lambda p, rng, size: (_meetings(rng, min(7, size), p["rest"]),),
    variants=(
        """
def solve(pairs):
    pairs.sort()
    best_at = []
    for i, (a, b) in enumerate(pairs):
        near = [best_at[j] for j in range(i) if a - pairs[j][1] $op $rest]
        best_at.append(max(near, default=0) + b - a + $bonus)
    return max(best_at)
""",
        """
from functools import lru_cache
def solve(pairs):
    @lru_cache(None)
    def best(end):
        values = [0]
        for a, b in pairs:
            if a - end $op $rest:
                values.append(b - a + $bonus + best(b))
        return max(values)
    return best(-9)
""",
        """
from itertools import combinations
def solve(pairs):
    values = [0]
    for size in range(1, len(pairs) + 1):
        for group in combinations(sorted(pairs), size):
            if all(b[0] - a[1] $op $rest for a, b in zip(group, group[1:])):
                values.append(sum(b - a + $bonus for a, b in group))
    return max(values)
""",
        """
def solve(pairs):
    dp = {-9: 0}
    for a, b in sorted(pairs):
        near = [dp[end] for end in dp if a - end $op $rest]
        dp[b] = max(dp.get(b, 0), max(near) + b - a + $bonus)
    return max(dp.values())
""",
    ),
    gross=(
        """
def solve(pairs):
    total = 0
    last = -9
    for a, b in sorted(pairs, key=lambda pair: pair[1]):
        if a - last $op $rest:
            total += b - a + $bonus
            last = b
    return total
""",
        """
def solve(pairs):
    pairs.sort()
    total = 0
    for i, (a, b) in enumerate(pairs):
        if i == 0 or a - pairs[i - 1][1] $op $rest:
            total += b - a + $bonus
    return total
""",
    ),
    subtle=(
        """
def solve(pairs):
    best_at = []
    for i, (a, b) in enumerate(pairs):
        near = [best_at[j] for j in range(i) if a - pairs[j][1] $op $rest]
        best_at.append(max(near, default=0) + b - a + $bonus)
    return max(best_at)
""",
        """
def solve(pairs):
    pairs.sort()
    best_at = []
    for i, (a, b) in enumerate(pairs):
        near = [best_at[j] for j in range(i) if a - pairs[j][1] $op $rest]
        best_at.append(max(near, default=$bonus) + b - a)
    return max(best_at)
""",
    ),
)


def _meetings(rng: Random, size: int, rest: int) -> list[list[int]]:
    """Meetings in no order; many begin about `rest` after another one ends."""
    pairs: list[list[int]] = []
    ends = [0]
    while len(pairs) < size:
        start = rng.choice(ends) + rest + rng.choice([-2, -1, 0, 0, 1])
        start = start if 0 <= start <= 30 else rng.randint(0, 20)
        pairs.append([start, start + rng.randint(1, 9)])
        ends.append(pairs[-1][1])
    rng.shuffle(pairs)
    return pairs


HARD_PIECES = (MIRROR_CUTS, CALM_DAY)
