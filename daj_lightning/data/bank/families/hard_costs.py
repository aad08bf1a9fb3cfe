"""Hard families: the least cost of an edit, the largest value of a pack."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations, product

from daj_lightning.data.bank.family import Family, Params, axis, letters


def _edit_cost(p: Params, s: str, t: str) -> int:
    @lru_cache(None)
    def cost(i: int, j: int) -> int:
        options = [0] if i == len(s) and j == len(t) else []
        if i < len(s):
            options.append(p["remove"] + cost(i + 1, j))
        if j < len(t):
            options.append(p["add"] + cost(i, j + 1))
        if i < len(s) and j < len(t):
            options.append((0 if s[i] == t[j] else p["change"]) + cost(i + 1, j + 1))
        return min(options)

    return cost(0, 0)


EDIT_COST = Family(
    name="edit-cost",
    difficulty="hard",
    title="Cost of an Edit",
    method="editCost",
    arguments={"s": "str", "t": "str"},
    returns="int",
    task="Turn the string s into the string t. Inserting a letter costs $add, deleting a letter costs "
    "$remove, and replacing a letter by another one costs $change. Find the least total cost.",
    limits="s and t have 1 to 8 lowercase letters",
    space=(
        [
            {"add": add, "remove": remove, "change": change}
            for add, remove in product(range(1, 5), repeat=2)
            for change in range(2, add + remove)
            if add != remove
        ],
    ),
    solve=_edit_cost,
    edges=lambda p: [
        ("a", "a"),
        ("a", "b"),
        ("ab", "ba"),
        ("abcd", "d"),
        ("c", "abcde"),
        ("aaaaaa", "bbbbbb"),
        ("abcabcab", "cabcabca"),
        ("abab", "baba"),
    ],
    draw=lambda p, rng, size: (
        letters(rng, min(8, rng.randint(1 + size // 3, size)), "abc"),
        letters(rng, min(8, rng.randint(1 + size // 3, size)), "abc"),
    ),
    variants=(
        """
def solve(s, t):
    dp = [j * $add for j in range(len(t) + 1)]
    for i, a in enumerate(s):
        last, dp = (dp, [(i + 1) * $remove])
        for j, b in enumerate(t):
            cost = last[j] + (0 if a == b else $change)
            dp.append(min(cost, last[j + 1] + $remove, dp[j] + $add))
    return dp[-1]
""",
        """
from functools import lru_cache
def solve(s, t):
    @lru_cache(None)
    def cost(i, j):
        if i == 0 or j == 0:
            return i * $remove + j * $add
        best = min(cost(i - 1, j) + $remove, cost(i, j - 1) + $add)
        same = s[i - 1] == t[j - 1]
        return min(best, cost(i - 1, j - 1) + (0 if same else $change))
    return cost(len(s), len(t))
""",
        """
def solve(s, t):
    dp = {}
    for i in range(len(s) + 1):
        for j in range(len(t) + 1):
            best = i * $remove + j * $add
            if i and j:
                cost = 0 if s[i - 1] == t[j - 1] else $change
                best = min(dp[i - 1, j] + $remove, dp[i, j - 1] + $add, dp[i - 1, j - 1] + cost)
            dp[i, j] = best
    return dp[len(s), len(t)]
""",
    ),
    gross=(
        """
def solve(s, t):
    total = sum($change for a, b in zip(s, t) if a != b)
    if len(s) > len(t):
        return total + (len(s) - len(t)) * $remove
    return total + (len(t) - len(s)) * $add
""",
        """
def solve(s, t):
    dp = [j * $remove for j in range(len(t) + 1)]
    for i, a in enumerate(s):
        last, dp = (dp, [(i + 1) * $add])
        for j, b in enumerate(t):
            cost = last[j] + (0 if a == b else $change)
            dp.append(min(cost, last[j + 1] + $add, dp[j] + $remove))
    return dp[-1]
""",
    ),
    subtle=(
        """
from functools import lru_cache
def solve(s, t):
    @lru_cache(None)
    def cost(i, j):
        if i == 0 or j == 0:
            return i * $remove + j * $add
        if s[i - 1] != t[j - 1]:
            return min(cost(i - 1, j) + $remove, cost(i, j - 1) + $add)
        return cost(i - 1, j - 1)
    return cost(len(s), len(t))
""",
        """
def solve(s, t):
    dp = [j * $add for j in range(len(t) + 1)]
    for i, a in enumerate(s):
        last, dp = (dp, [0])
        for j, b in enumerate(t):
            cost = last[j] + (0 if a == b else $change)
            dp.append(min(cost, last[j + 1] + $remove, dp[j] + $add))
    return dp[-1]
""",
    ),
)


def _packed_value(p: Params, items: list[list[int]], capacity: int) -> int:
    best = [0]
    for room in range(1, capacity + 1):
        fitting = [(w, v - p["fee"]) for w, v in items if w <= room]
        best.append(max([best[-1]] + [best[room - w] + profit for w, profit in fitting]))
    if p["mode"] == "many":
        return best[capacity]
    packs = [pack for size in range(len(items) + 1) for pack in combinations(items, size)]
    packs = [pack for pack in packs if sum(w for w, _ in pack) <= capacity]
    return max(sum(v - p["fee"] for _, v in pack) for pack in packs)


PACKED_VALUE = Family(
    name="packed-value",
    difficulty="hard",
    title="Packed Value",
    method="packedValue",
    arguments={"items": "pairs", "capacity": "int"},
    returns="int",
    task="An entry [w, v] of items has weight w and value v. It may be packed $mode_words, for a fee of $fee "
    "each time. Find the largest total value minus fees with a total weight of at most capacity; packing "
    "nothing gives 0.",
    limits="1 <= n <= 6, 1 <= w <= 9, 1 <= v <= 20, 1 <= capacity <= 20",
    space=(
        [
            {
                "mode": "once",
                "mode_words": "at most once",
                "walk": "capacity, w - 1, -1",
                "wrong": "w, capacity + 1",
                "next": "i + 1",
            },
            {
                "mode": "many",
                "mode_words": "any number of times",
                "walk": "w, capacity + 1",
                "wrong": "capacity, w - 1, -1",
                "next": "i",
            },
        ],
        axis("fee", range(1, 10)),
    ),
    solve=_packed_value,
    edges=lambda p: [
        ([[2, 8]], 1),
        ([[2, 8]], 2),
        ([[3, 9]], 11),
        ([[4, p["fee"]], [1, p["fee"] + 1]], 6),
        ([[1, 1], [2, 1]], 9),
        ([[3, 10], [4, 14], [5, 17]], 9),
        ([[6, 20], [5, 15], [5, 15], [4, 9]], 10),
        ([[1, 7], [2, 13], [3, 20], [9, 20], [8, 19], [7, 20]], 20),
    ],
    draw=lambda p, rng, size: (
        [[rng.randint(1, 7), rng.randint(3, 16)] for _ in range(min(6, 1 + size // 2))],
        rng.randint(size, 2 * size),
    ),
    variants=(
        """
def solve(items, capacity):
    dp = [0] * (capacity + 1)
    for w, v in items:
        for c in range($walk):
            dp[c] = max(dp[c], dp[c - w] + v - $fee)
    return dp[capacity]
""",
        """
from functools import lru_cache
def solve(items, capacity):
    @lru_cache(None)
    def best(i, room):
        if i == len(items):
            return 0
        w, v = items[i]
        if w > room:
            return best(i + 1, room)
        return max(best(i + 1, room), best($next, room - w) + v - $fee)
    return best(0, capacity)
""",
        """
def solve(items, capacity):
    items = [(w, v - $fee) for w, v in items]
    dp = [0] * (capacity + 1)
    for w, v in items:
        for c in range($walk):
            if dp[c - w] + v > dp[c]:
                dp[c] = dp[c - w] + v
    return dp[-1]
""",
    ),
    gross=(
        """
def solve(items, capacity):
    total = 0
    for w, v in sorted(items, key=lambda item: item[0] / item[1]):
        if w <= capacity and v > $fee:
            total += v - $fee
            capacity -= w
    return total
""",
        """
def solve(items, capacity):
    dp = [0] * (capacity + 1)
    for w, v in items:
        for c in range($wrong):
            dp[c] = max(dp[c], dp[c - w] + v - $fee)
    return dp[capacity]
""",
    ),
    subtle=(
        """
def solve(items, capacity):
    dp = [0] * (capacity + 1)
    for w, v in items:
        for c in range($walk):
            dp[c] = max(dp[c], dp[c - w] + v)
    return max(dp[capacity] - $fee, 0)
""",
        """
def solve(items, capacity):
    dp = [0] * capacity + [0]
    for w, v in items:
        if w < capacity and v > $fee:
            for c in range($walk):
                dp[c] = max(dp[c], dp[c - w] + v - $fee)
    return dp[capacity]
""",
    ),
)


HARD_COSTS = (EDIT_COST, PACKED_VALUE)
