"""Hard families: ways counted modulo a number."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from random import Random

from daj_lightning.data.bank.family import Family, Params, axis, holds, merged

_MODULI = axis("mod", [7, 8, 9, 10, 11, 12, 13, 16])


def _coin_ways(p: Params, coins: list[int], amount: int) -> int:
    if p["mode"] == "once":
        return sum(sum(c) == amount for k in range(len(coins) + 1) for c in combinations(coins, k)) % int(p["mod"])

    @lru_cache(None)
    def ways(left: int, allowed: tuple[int, ...]) -> int:
        if left == 0:
            return 1
        fitting = [(i, c) for i, c in enumerate(allowed) if c <= left]
        return sum(ways(left - c, allowed[i:] if p["mode"] == "bag" else allowed) for i, c in fitting)

    return ways(amount, tuple(coins)) % int(p["mod"])


_COIN_MODES = [
    {
        "mode": "bag",
        "mode_words": "a coin may be used any number of times and the order of coins does not matter",
        "outer": "c in coins",
        "inner": "v in range(1, amount + 1)",
    },
    {
        "mode": "order",
        "mode_words": "a coin may be used any number of times and different orders are different ways",
        "outer": "v in range(1, amount + 1)",
        "inner": "c in coins",
    },
]


# Few ways, so a small modulus: a large one would never matter.
_COINS_ONCE = {
    "mode": "once",
    "mode_words": "a coin may be used at most once and the order of coins does not matter",
    "outer": "c in coins",
    "inner": "v in range(amount, 0, -1)",
}


COIN_WAYS = Family(
    name="coin-ways",
    difficulty="hard",
    title="Ways to Pay",
    method="waysToPay",
    arguments={"coins": "ints", "amount": "int"},
    returns="int",
    task="The list coins holds different coin values. Count the ways to pay exactly amount, where "
    "$mode_words. Paying 0 with no coin is one way. Give the count modulo $mod.",
    limits="1 <= n <= 8, 1 <= coins[i] <= 12, 0 <= amount <= 30",
    space=([*merged(_COIN_MODES, _MODULI), *merged([_COINS_ONCE], axis("mod", [2, 3, 4]))],),
    solve=_coin_ways,
    edges=lambda p: [
        ([3], 0),
        ([4], 2),
        ([4], 4),
        ([2], 6),
        ([1, 2, 3, 4, 5], 9),
        ([2, 4, 6, 8, 10], 20),
        ([5, 1, 2, 9, 4, 3, 8, 7], 17),
        ([1, 2, 3, 5, 7, 12], 30),
    ],
    draw=lambda p, rng, size: (rng.sample(range(1, 9), 1 + 2 * size // 3), rng.randint(size, 2 * size + 1)),
    variants=(
        """
def solve(coins, amount):
    ways = [1] + [0] * amount
    for $outer:
        for $inner:
            if c <= v:
                ways[v] = (ways[v] + ways[v - c]) % $mod
    return ways[amount]
""",
        """
def solve(coins, amount):
    ways = [0] * (amount + 1)
    ways[0] = 1
    for $outer:
        for $inner:
            ways[v] += ways[v - c] if v >= c else 0
    return ways[amount] % $mod
""",
        """
from collections import defaultdict
def solve(coins, amount):
    ways = defaultdict(int)
    ways[0] = 1
    for $outer:
        for $inner:
            ways[v] = (ways[v] + ways[v - c]) % $mod
    return ways[amount]
""",
    ),
    gross=(
        """
def solve(coins, amount):
    ways = [1] + [0] * amount
    for $inner:
        for $outer:
            if c <= v:
                ways[v] = (ways[v] + ways[v - c]) % $mod
    return ways[amount]
""",
        """
def solve(coins, amount):
    total = 0
    for c in coins:
        if amount % c == 0:
            total += amount // c
    return total % $mod
""",
    ),
    subtle=(
        """
def solve(coins, amount):
    ways = [1] + [0] * amount
    for $outer:
        for $inner:
            if c < v:
                ways[v] = (ways[v] + ways[v - c]) % $mod
            elif c == v:
                ways[v] = 1
    return ways[amount]
""",
        """
def solve(coins, amount):
    ways = [1] + [0] * amount
    for $outer:
        for $inner:
            if c <= v:
                ways[v] += ways[v - c]
    return ways[amount] % $mod if amount else 0
""",
    ),
)


def _grid_paths(p: Params, grid: list[str]) -> int:
    @lru_cache(None)
    def paths(r: int, c: int) -> int:
        if r >= len(grid) or c >= len(grid[0]) or grid[r][c] == "#":
            return 0
        if (r, c) == (len(grid) - 1, len(grid[0]) - 1):
            return 1
        return sum(paths(r + a, c + b) for a, b in p["moves"])

    return paths(0, 0) % int(p["mod"])


GRID_PATHS = Family(
    name="grid-paths",
    difficulty="hard",
    title="Paths in a Grid",
    method="gridPaths",
    arguments={"grid": "grid"},
    returns="int",
    task="Count the paths in grid from the top left to the bottom right cell that only stand on . cells, "
    "never on # cells. A step goes $moves_words. If the first or last cell is #, there is no path. "
    "Give the count modulo $mod.",
    limits="1 <= n <= 5, rows have equal length, 1 to 6",
    space=(
        [
            {"moves_words": "one cell right or one down", "moves": ((0, 1), (1, 0))},
            {
                "moves_words": "one cell right, one down, or one diagonally down right",
                "moves": ((0, 1), (1, 0), (1, 1)),
            },
            {"moves_words": "one or two cells right, or one down", "moves": ((0, 1), (0, 2), (1, 0))},
            {"moves_words": "one cell right, or one or two down", "moves": ((0, 1), (1, 0), (2, 0))},
        ],
        _MODULI,
    ),
    solve=_grid_paths,
    edges=lambda p: [
        (["."],),
        (["#"],),
        (["#.", ".."],),
        (["..", ".#"],),
        (["...", "...", "..."],),
        (["..#", "##.", "..."],),
        ([".....", ".#...", ".....", "...#.", "....."],),
        (["......"] * 5,),
        ([".#.", ".#.", "..."],),
    ],
    draw=lambda p, rng, size: (_grid(rng, 1 + size // 3, 2 + size // 3 if size < 5 else 3 + size // 4),),
    variants=(
        """
def solve(grid):
    ways = {}
    for r, row in enumerate(grid):
        for c, cell in enumerate(row):
            near = sum(ways.get((r - a, c - b), 0) for a, b in $moves)
            if r == 0 and c == 0:
                near = 1
            ways[r, c] = near % $mod if cell == '.' else 0
    return ways[r, c]
""",
        """
from functools import lru_cache
def solve(grid):
    @lru_cache(None)
    def count(r, c):
        if r < 0 or c < 0 or grid[r][c] == '#':
            return 0
        if r == 0 and c == 0:
            return 1
        return sum(count(r - a, c - b) for a, b in $moves) % $mod
    return count(len(grid) - 1, len(grid[0]) - 1)
""",
        """
from collections import Counter
def solve(grid):
    ways = Counter({(0, 0): 1})
    for r, row in enumerate(grid):
        for c, cell in enumerate(row):
            if cell == '#':
                ways[r, c] = 0
            for a, b in $moves:
                ways[r + a, c + b] += ways[r, c]
    return ways[r, c] % $mod
""",
    ),
    gross=(
        """
def solve(grid):
    ways = {}
    for r, row in enumerate(grid):
        for c, cell in enumerate(row):
            near = max(ways.get((r - a, c - b), 0) for a, b in $moves)
            ways[r, c] = near + 1 if cell == '.' else 0
    return ways[r, c] % $mod
""",
        """
from collections import Counter
def solve(grid):
    ways = Counter({(0, 0): 1})
    for r, row in enumerate(grid):
        for c, cell in enumerate(row):
            for a, b in $moves:
                ways[r + a, c + b] += ways[r, c]
    return ways[r, c] % $mod
""",
    ),
    subtle=(
        """
def solve(grid):
    ways = {(0, 0): 1}
    for r, row in enumerate(grid):
        for c, cell in enumerate(row):
            near = sum(ways.get((r - a, c - b), 0) for a, b in $moves)
            if r or c:
                ways[r, c] = near % $mod if cell == '.' else 0
    return ways[r, c]
""",
        """
def solve(grid):
    ways = {}
    for r, row in enumerate(grid):
        for c, cell in enumerate(row):
            near = sum(ways.get((r - a, c - b), 0) for a, b in ((0, 1), (1, 0)))
            if r == 0 and c == 0:
                near = 1
            ways[r, c] = near % $mod if cell != '#' else 0
    return ways[r, c]
""",
    ),
)


def _grid(rng: Random, height: int, width: int) -> list[str]:
    """A grid with few # cells, none of them at the ends."""
    rows = [["#" if rng.random() < 0.2 else "." for _ in range(width)] for _ in range(height)]
    rows[0][0] = rows[-1][-1] = "."
    return ["".join(row) for row in rows]


def _part_ways(p: Params, n: int) -> int:
    @lru_cache(None)
    def ways(left: int, last: int) -> int:
        if left == 0:
            return 1
        parts = range(1, min(left, p["parts"]) + 1)
        return sum(ways(left - part, part) for part in parts if last == 0 or holds(part, p["op"], last))

    return ways(n, 0) % int(p["mod"])


PART_WAYS = Family(
    name="part-ways",
    difficulty="hard",
    title="Ways to Split a Number",
    method="partWays",
    arguments={"n": "int"},
    returns="int",
    task="Count the sequences of numbers from 1 to $parts whose sum is n and in which every number except "
    "the first is $rule the number before it. Give the count modulo $mod.",
    limits="1 <= n <= 30",
    space=(
        [
            {"op": "!=", "rule": "different from"},
            {"op": ">=", "rule": "at least as large as"},
            {"op": "<=", "rule": "at most as large as"},
        ],
        axis("parts", [3, 4, 5]),
        _MODULI,
    ),
    solve=_part_ways,
    edges=lambda p: [(1,), (2,), (3,), (p["parts"],), (p["parts"] + 1,), (2 * p["parts"],), (20,), (30,)],
    draw=lambda p, rng, size: (rng.randint(size, size + 2) if size < 5 else rng.randint(size, 3 * size),),
    variants=(
        """
from functools import lru_cache
def solve(n):
    @lru_cache(None)
    def count(left, last):
        if left == 0:
            return 1
        parts = range(1, min(left, $parts) + 1)
        return sum(count(left - p, p) for p in parts if last == 0 or p $op last) % $mod
    return count(n, 0)
""",
        """
def solve(n):
    dp = [[0] * ($parts + 1) for _ in range(n + 1)]
    for v in range(1, n + 1):
        for p in range(1, min(v, $parts) + 1):
            near = [dp[v - p][q] for q in range(1, $parts + 1) if p $op q]
            dp[v][p] = 1 if p == v else sum(near) % $mod
    return sum(dp[n]) % $mod
""",
        """
from collections import Counter
def solve(n):
    ways = Counter({(p, p): 1 for p in range(1, $parts + 1)})
    for v in range(1, n):
        for last in range(1, $parts + 1):
            for p in range(1, $parts + 1):
                if p $op last:
                    ways[v + p, p] += ways[v, last]
    return sum(ways[n, p] for p in range(1, $parts + 1)) % $mod
""",
    ),
    gross=(
        """
def solve(n):
    ways = [1] + [0] * n
    for v in range(1, n + 1):
        for p in range(1, min(v, $parts) + 1):
            ways[v] += ways[v - p]
    return ways[n] % $mod
""",
        """
def solve(n):
    ways = [1] + [0] * n
    for p in range(1, $parts + 1):
        for v in range(n, p - 1, -1):
            ways[v] += ways[v - p]
    return ways[n] % $mod
""",
    ),
    subtle=(
        """
from functools import lru_cache
def solve(n):
    @lru_cache(None)
    def count(left, last):
        if left == 0:
            return 1
        parts = range(1, min(left, $parts) + 1)
        return sum(count(left - p, p) for p in parts if p $op last) % $mod
    return count(n, 1)
""",
        """
def solve(n):
    dp = [[0] * ($parts + 1) for _ in range(n + 1)]
    for v in range(1, n + 1):
        for p in range(1, min(v, $parts) + 1):
            near = [dp[v - p][q] for q in range(1, $parts) if p $op q]
            dp[v][p] = 1 if p == v else sum(near) % $mod
    return sum(dp[n]) % $mod
""",
    ),
)


HARD_WAYS = (COIN_WAYS, GRID_PATHS, PART_WAYS)
