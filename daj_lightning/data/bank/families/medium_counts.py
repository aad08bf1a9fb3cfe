"""Medium families: values, neighbours and children, counted."""

from __future__ import annotations

from random import Random

from daj_lightning.data.bank.family import COMPARISONS, Family, Params, axis, holds


def _mode_tie(p: Params, nums: list[int]) -> int:
    sizes = {x: nums.count(x) for x in nums}
    wanted = max(sizes.values()) if p["pick"] == "max" else min(sizes.values())
    tied = sorted(x for x, size in sizes.items() if size == wanted)
    if wanted < p["least"]:
        return int(p["missing"])
    return tied[0] if p["tie"] == "min" else tied[-1]


MODE_TIE = Family(
    name="mode-tie",
    difficulty="medium",
    title="Most or Least Frequent",
    method="frequentValue",
    arguments={"nums": "ints"},
    returns="int",
    task="Find the $pick_words frequent value among those that occur in nums; of several such values, take "
    "the $tie_words. If it occurs fewer than $least times, the answer is $missing.",
    limits="1 <= n <= 14, 1 <= nums[i] <= 20",
    space=(
        [
            {"pick": "max", "pick_words": "most", "sign": "-", "key": "-v"}
            | {"tie": "min", "backward": False, "tie_words": "smallest"},
            {"pick": "max", "pick_words": "most", "sign": "-", "key": "v"}
            | {"tie": "max", "backward": True, "tie_words": "largest"},
            {"pick": "min", "pick_words": "least", "sign": "", "key": "v"}
            | {"tie": "min", "backward": False, "tie_words": "smallest"},
            {"pick": "min", "pick_words": "least", "sign": "", "key": "-v"}
            | {"tie": "max", "backward": True, "tie_words": "largest"},
        ],
        axis("least", [2, 3]),
        axis("missing", [-1, 0, 99]),
    ),
    solve=_mode_tie,
    edges=lambda p: [
        ([5],),
        ([8] * p["least"],),
        ([8] * (p["least"] - 1),),
        ([3] * p["least"] + [9] * p["least"] + [6] * p["least"],),
        ([9] * (p["least"] + 1) + [4] * p["least"] + [1] * (p["least"] + 1),),
        ([2] * p["least"] + [7] * (p["least"] - 1),),
        ([11, 4, 11, 4, 11, 4, 11, 4, 4, 11, 20, 20, 20],),
        ([1, 2, 3, 4, 5, 6, 7],),
    ],
    draw=lambda p, rng, size: (_repeats(rng, size, p["least"]),),
    variants=(
        """
from collections import Counter
def solve(nums):
    counts = Counter(nums)
    best = $pick(counts, key=lambda v: (counts[v], $key))
    return best if counts[best] >= $least else $missing
""",
        """
def solve(nums):
    counts = {}
    for x in nums:
        counts[x] = counts.get(x, 0) + 1
    size = $pick(counts.values())
    if size < $least:
        return $missing
    return $tie(x for x in counts if counts[x] == size)
""",
        """
def solve(nums):
    values = sorted(set(nums), reverse=$backward)
    best = values[0]
    for x in values:
        if ${sign}nums.count(x) < ${sign}nums.count(best):
            best = x
    return best if nums.count(best) >= $least else $missing
""",
    ),
    gross=(
        """
from collections import Counter
def solve(nums):
    counts = Counter(nums)
    best = $tie(counts, key=lambda v: (v, counts[v]))
    return best if counts[best] >= $least else $missing
""",
        """
def solve(nums):
    counts = {}
    for x in nums:
        counts[x] = counts.get(x, 0) + 1
    size = $pick(counts.values())
    return size if size >= $least else $missing
""",
    ),
    subtle=(
        """
from collections import Counter
def solve(nums):
    counts = Counter(nums)
    best = $pick(counts, key=counts.get)
    return best if counts[best] >= $least else $missing
""",
        """
def solve(nums):
    values = [x for x in nums if nums.count(x) >= $least]
    if not values:
        return $missing
    size = $pick(nums.count(x) for x in values)
    return $tie(x for x in values if nums.count(x) == size)
""",
    ),
)


def _repeats(rng: Random, size: int, least: int) -> list[int]:
    """Few different values, many of them about `least` times."""
    nums: list[int] = []
    for value in rng.sample(range(1, 21), 1 + size // 3):
        nums += [value] * max(1, least + rng.choice([-1, 0, 0, 0, 1, 1]))
    rng.shuffle(nums)
    return nums[:14]


def _circle(p: Params, n: int) -> int:
    circle = list(range(p["first"], p["first"] + n))
    while len(circle) > 1:
        circle = circle[(p["step"] - 1) % len(circle) + 1 :] + circle[: (p["step"] - 1) % len(circle)]
    return circle[0]


CIRCLE = Family(
    name="circle-game",
    difficulty="medium",
    title="Circle Game",
    method="lastChild",
    arguments={"n": "int"},
    returns="int",
    task="n children stand in a circle, numbered from $first upwards in order. Counting starts at the child"
    " with number $first, and again and again every child counted as number $step leaves; the next "
    "count starts at the child after it. Find the number of the last child left.",
    limits="1 <= n <= 40",
    space=(axis("first", [1, 2, 5, 10]), axis("step", [2, 3, 4, 5, 6, 7])),
    solve=_circle,
    edges=lambda p: [(1,), (2,), (3,), (p["step"],), (p["step"] - 1,), (p["step"] + 1,), (40,), (39,)],
    draw=lambda p, rng, size: (rng.randint(size // 2 + 2, size * 4),),
    variants=(
        """
def solve(n):
    values = list(range($first, $first + n))
    i = 0
    while len(values) > 1:
        i = (i + $step - 1) % len(values)
        values.pop(i)
    return values[0]
""",
        """
def solve(n):
    best = 0
    for size in range(2, n + 1):
        best = (best + $step) % size
    return best + $first
""",
        """
from collections import deque
def solve(n):
    values = deque(range(n))
    for _ in range(n - 1):
        values.rotate(1 - $step)
        values.popleft()
    return values[0] + $first
""",
    ),
    gross=(
        """
def solve(n):
    values = list(range($first, $first + n))
    while len(values) > 1:
        values.pop($step % len(values))
    return values[0]
""",
        """
def solve(n):
    values = list(range($first, $first + n))
    while len(values) >= $step:
        values = [x for i, x in enumerate(values) if (i + 1) % $step]
    return values[-1]
""",
    ),
    subtle=(
        """
def solve(n):
    values = list(range($first, $first + n))
    i = 0
    while len(values) > 1:
        i = (i + $step) % len(values)
        values.pop(i)
    return values[0]
""",
        """
def solve(n):
    best = $first
    for size in range(2, n + 1):
        best = (best + $step) % size
    return best
""",
    ),
)


def _crowded_cells(p: Params, grid: list[str]) -> int:
    cells = {(r, c) for r, row in enumerate(grid) for c, x in enumerate(row) if x == "#"}
    offsets = [(0, 1), (1, 0), (0, -1), (-1, 0)] if p["near"] == "side" else [(1, 1), (1, -1), (-1, 1), (-1, -1)]
    return sum(holds(sum((r + a, c + b) in cells for a, b in offsets), p["op"], p["limit"]) for r, c in cells)


CROWDED_CELLS = Family(
    name="crowded-cells",
    difficulty="medium",
    title="Crowded Cells",
    method="crowdedCells",
    arguments={"grid": "grid"},
    returns="int",
    task="In a grid of the characters # and ., two different cells are neighbours if $near_words. Count the"
    " # cells for which the number of neighbours that are # is $op_words $limit.",
    limits="1 <= n <= 5, rows have equal length, 1 to 5",
    space=(
        COMPARISONS,
        axis("limit", [1, 2, 3]),
        [
            {
                "near": "side",
                "near_words": "they share a side",
                "offsets": "((0, 1), (1, 0), (0, -1), (-1, 0))",
                "test": "abs(r - a) + abs(c - b) == 1",
            },
            {
                "near": "corner",
                "near_words": "they touch at a corner only",
                "offsets": "((1, 1), (1, -1), (-1, 1), (-1, -1))",
                "test": "abs(r - a) == 1 and abs(c - b) == 1",
            },
        ],
    ),
    solve=_crowded_cells,
    edges=lambda p: [
        (["#"],),
        (["..", ".."],),
        (["#####"],),
        (["###", "###", "###"],),
        ([".#.", "###", ".#."],),
        (["#.#", ".#.", "#.#"],),
        (["#.#.#", ".#.#.", "#####", "##..#", "#..##"],),
        (["####", "#..#", "#..#", "####"],),
    ],
    draw=lambda p, rng, size: (_grid(rng, 2 + size // 4, 2 + size // 3, 0.65),),
    variants=(
        """
def solve(grid):
    cells = {(r, c) for r, row in enumerate(grid) for c, x in enumerate(row) if x == '#'}
    total = 0
    for r, c in cells:
        near = sum((r + a, c + b) in cells for a, b in $offsets)
        if near $op $limit:
            total += 1
    return total
""",
        """
def solve(grid):
    cells = [(r, c) for r in range(len(grid)) for c in range(len(grid[0])) if grid[r][c] == '#']
    total = 0
    for r, c in cells:
        near = [1 for a, b in cells if $test]
        total += len(near) $op $limit
    return total
""",
        """
def solve(grid):
    width = len(grid[0]) + 2
    text = '.' * width + ''.join(('.' + row + '.' for row in grid)) + '.' * width
    total = 0
    for i in range(len(text)):
        near = [text[i + a * width + b] for a, b in $offsets if text[i] == '#']
        if text[i] == '#' and near.count('#') $op $limit:
            total += 1
    return total
""",
    ),
    gross=(
        """
def solve(grid):
    cells = {(r, c) for r, row in enumerate(grid) for c, x in enumerate(row) if x == '#'}
    near = [(r + a, c + b) in cells for r, c in cells for a, b in $offsets]
    return sum(near)
""",
        """
def solve(grid):
    total = 0
    for r, row in enumerate(grid):
        for c, x in enumerate(row):
            if x == '#' and row.count('#') $op $limit:
                total += 1
    return total
""",
    ),
    subtle=(
        """
def solve(grid):
    cells = [(r, c) for r in range(len(grid)) for c in range(len(grid[0])) if grid[r][c] == '#']
    total = 0
    for r, c in cells:
        near = [1 for a, b in cells if max(abs(r - a), abs(c - b)) == 1]
        total += len(near) $op $limit
    return total
""",
        """
def solve(grid):
    total = 0
    for r in range(1, len(grid) - 1):
        for c in range(1, len(grid[0]) - 1):
            near = sum(grid[r + a][c + b] == '#' for a, b in $offsets)
            if grid[r][c] == '#' and near $op $limit:
                total += 1
    return total
""",
    ),
)


def _grid(rng: Random, height: int, width: int, share: float) -> list[str]:
    return ["".join("#" if rng.random() < share else "." for _ in range(width)) for _ in range(height)]


MEDIUM_COUNTS = (MODE_TIE, CIRCLE, CROWDED_CELLS)
