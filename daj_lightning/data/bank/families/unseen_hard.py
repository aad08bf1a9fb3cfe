"""Unseen hard families: a game of stones, the cheapest wires between houses."""

from __future__ import annotations

from random import Random

from daj_lightning.data.bank.family import Family, Params, axis


def _stone_game(p: Params, n: int) -> int:
    wins: list[bool] = []
    for size in range(n + 1):
        moves = [x for x in p["moves"] if x <= size]
        wins.append(any(not wins[size - x] for x in moves) if moves else p["stuck"] == "wins")
    return sum(wins[1:])


STONE_GAME = Family(
    name="stone-game",
    difficulty="hard",
    title="Game of Stones",
    method="winningPiles",
    arguments={"n": "int"},
    returns="int",
    task="Two players take turns at a pile of stones. A move takes away exactly $moves_words stones, never "
    "more than there are. A player who cannot move $stuck the game, and both play as well as possible. Of the "
    "piles with 1, 2, ..., n stones, count those that the player who moves first wins.",
    limits="1 <= n <= 40",
    space=(
        [
            {"moves_words": " or ".join(map(str, moves)), "moves": moves, "least": moves[0]}
            for moves in ((1, 3), (2, 3), (1, 4), (2, 5), (3, 4), (1, 3, 4), (2, 4, 5), (1, 2, 5), (2, 3, 7))
        ],
        [{"stuck": "loses", "last": "False"}, {"stuck": "wins", "last": "True"}],
    ),
    solve=_stone_game,
    edges=lambda p: [(1,), (2,), (3,), (p["least"] + 2,), (p["moves"][-1],), (p["moves"][-1] + 1,), (39,), (40,)],
    draw=lambda p, rng, size: (rng.randint(size, size + 3) if size < 5 else rng.randint(size, 4 * size),),
    variants=(
        """
def solve(n):
    wins = []
    for size in range(n + 1):
        after = [wins[size - x] for x in $moves if x <= size]
        wins.append(False in after if after else $last)
    return sum(wins[1:])
""",
        """
from functools import lru_cache
def solve(n):
    @lru_cache(None)
    def wins(size):
        if size < $least:
            return $last
        for x in $moves:
            if x <= size and not wins(size - x):
                return True
        return False
    return sum(wins(size) for size in range(1, n + 1))
""",
        """
def solve(n):
    wins = [$last] * $least + [False] * (n + 9)
    for size in range(n + 1):
        if wins[size]:
            continue
        for x in $moves:
            wins[size + x] = True
    return sum(wins[1:n + 1])
""",
        """
def solve(n):
    wins = {size: $last for size in range($least)}
    total = sum(wins[size] for size in wins if 0 < size <= n)
    for size in range($least, n + 1):
        wins[size] = any(not wins[size - x] for x in $moves if x <= size)
        total += wins[size]
    return total
""",
    ),
    gross=(
        """
def solve(n):
    total = 0
    for size in range(1, n + 1):
        turns = 0
        for x in sorted($moves, reverse=True):
            turns += size // x
            size %= x
        total += (turns % 2 == 1) != $last
    return total
""",
        """
def solve(n):
    wins = []
    for size in range(n + 1):
        after = [wins[size - x] for x in $moves if x <= size]
        wins.append(True in after or size in $moves)
    return sum(wins[1:])
""",
    ),
    subtle=(
        """
def solve(n):
    wins = []
    for size in range(n + 1):
        after = [wins[size - x] for x in $moves if x < size]
        wins.append(False in after if after else $last)
    return sum(wins[1:])
""",
        """
def solve(n):
    wins = []
    for size in range(n):
        after = [wins[size - x] for x in $moves if x <= size]
        wins.append(False in after if after else $last)
    return sum(wins[1:])
""",
    ),
)


def _wires(p: Params, pairs: list[list[int]]) -> int:
    """Every wire from the cheapest on, if it joins two groups of houses."""
    groups = [{i} for i in range(len(pairs))]
    costs = []
    for i, (x, y) in enumerate(pairs):
        for j, (u, v) in enumerate(pairs[:i]):
            across, along = abs(x - u), abs(y - v)
            cost = {"sum": across + along, "max": max(across, along), "steep": across + 2 * along}[p["metric"]]
            costs.append((cost + p["fee"], i, j))
    total = 0
    for cost, i, j in sorted(costs):
        one, other = (next(group for group in groups if k in group) for k in (i, j))
        if one is not other:
            total += cost
            groups.remove(other)
            one |= other
    return total


WIRES = Family(
    name="wire-houses",
    difficulty="hard",
    title="Wires Between Houses",
    method="wireHouses",
    arguments={"pairs": "pairs"},
    returns="int",
    task="Every entry [x, y] of pairs is a house. A wire between two houses costs $metric_words, plus $fee. Lay "
    "wires so that all houses are connected, directly or through others. Find the least total cost; a single "
    "house needs no wire.",
    limits="1 <= n <= 6, 0 <= x <= 20, 0 <= y <= 20",
    space=(
        [
            {
                "metric": "sum",
                "cost": "abs(a[0] - b[0]) + abs(a[1] - b[1])",
                "metric_words": "the difference of their x plus that of their y",
            },
            {
                "metric": "max",
                "cost": "max(abs(a[0] - b[0]), abs(a[1] - b[1]))",
                "metric_words": "the larger one of the differences of their x and of their y",
            },
            {
                "metric": "steep",
                "cost": "abs(a[0] - b[0]) + 2 * abs(a[1] - b[1])",
                "metric_words": "the difference of their x plus twice that of their y",
            },
        ],
        axis("fee", [1, 2, 3, 4, 5, 6]),
    ),
    solve=_wires,
    edges=lambda p: [
        ([[4, 7]],),
        ([[0, 0], [20, 20]],),
        ([[0, 0], [9, 1], [3, 0], [6, 1]],),
        ([[5, 5], [5, 15], [15, 5], [15, 15], [10, 10]],),
        ([[0, 3], [1, 18], [1, 2], [0, 19], [2, 3], [2, 20]],),
        ([[10, 0], [0, 10], [20, 10], [10, 20], [12, 11]],),
        ([[0, 0], [0, 5], [0, 10], [0, 15], [0, 20]],),
        ([[7, 7], [2, 3], [7, 7], [16, 1]],),
    ],
    draw=lambda p, rng, size: (_houses(rng, min(6, 1 + size // 2) if size > 4 else size),),
    variants=(
        """
def solve(pairs):
    joined = pairs[:1]
    rest = pairs[1:]
    total = 0
    while rest:
        size, b = min(($cost, b) for a in joined for b in rest)
        total += size + $fee
        joined.append(b)
        rest.remove(b)
    return total
""",
        """
def solve(pairs):
    label = list(range(len(pairs)))
    wires = [($cost, i, j) for i, a in enumerate(pairs) for j, b in enumerate(pairs[:i])]
    total = 0
    for size, i, j in sorted(wires):
        if label[i] != label[j]:
            total += size + $fee
            label = [label[i] if x == label[j] else x for x in label]
    return total
""",
        """
def solve(pairs):
    dist = [0] + [999] * len(pairs[1:])
    total = 0
    left = set(range(len(pairs)))
    for _ in pairs:
        i = min(left, key=lambda j: dist[j])
        left.discard(i)
        total += dist[i]
        for j in left:
            a, b = (pairs[i], pairs[j])
            dist[j] = min(dist[j], $cost + $fee)
    return total
""",
    ),
    gross=(
        """
def solve(pairs):
    total = 0
    for a, b in zip(pairs, pairs[1:]):
        total += $cost + $fee
    return total
""",
        """
def solve(pairs):
    a = pairs[0]
    total = 0
    for b in pairs[1:]:
        total += $cost + $fee
    return total
""",
    ),
    subtle=(
        """
def solve(pairs):
    total = 0
    for i, b in enumerate(pairs):
        if i > 0:
            total += min($cost for a in pairs[:i]) + $fee
    return total
""",
        """
def solve(pairs):
    a = pairs[0]
    rest = pairs[1:]
    total = 0
    while rest:
        size, a = min(($cost, b) for b in rest)
        total += size + $fee
        rest.remove(a)
    return total
""",
    ),
)


def _houses(rng: Random, size: int) -> list[list[int]]:
    """Houses in two streets and a few elsewhere."""
    streets = [rng.randint(0, 20), rng.randint(0, 20)]
    houses = [[rng.randint(0, 20), rng.choice([*streets, rng.randint(0, 20)])] for _ in range(size)]
    rng.shuffle(houses)
    return houses


UNSEEN_HARD = (STONE_GAME, WIRES)
