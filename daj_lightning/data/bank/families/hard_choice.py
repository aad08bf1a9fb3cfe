"""Hard families: the best chain, split and route."""

from __future__ import annotations

from itertools import combinations, pairwise
from random import Random

from daj_lightning.data.bank.family import COMPARISONS, Family, Params, axis, holds, integers


def _best_chain(p: Params, nums: list[int]) -> int:
    chains = [
        chain
        for size in range(1, len(nums) + 1)
        for chain in combinations(nums, size)
        if all(holds(b - a, p["op"], p["step"]) for a, b in pairwise(chain))
    ]
    return max(len(chain) if p["measure"] == "length" else sum(chain) for chain in chains)


BEST_CHAIN = Family(
    name="best-chain",
    difficulty="hard",
    title="Best Chain",
    method="bestChain",
    arguments={"nums": "ints"},
    returns="int",
    task="A chain is made by deleting any number of values from nums, not all, and keeping the order of the"
    " rest; in it, every value minus the value just before it is $op_words $step. Find the largest "
    "$measure of a chain.",
    limits="1 <= n <= 9, 1 <= nums[i] <= 30",
    space=(
        COMPARISONS,
        axis("step", [-1, 0, 1, 2, 3]),
        [{"measure": "length", "gain": 1}, {"measure": "sum", "gain": "x"}],
    ),
    solve=_best_chain,
    edges=lambda p: [
        ([5],),
        ([7] * 5,),
        ([9, 8, 7, 6, 5, 4, 3],),
        ([4, 5, 6, 7, 8, 9, 10],),
        ([10 + p["step"] * i for i in range(6)],),
        ([12 + (p["step"] + 1) * i for i in range(5)],),
        ([15 + (p["step"] - 1) * i for i in range(6)],),
        ([30, 1, 29, 2, 28, 3, 27, 4],),
        ([2, 30, 3, 4, 5, 6],),
    ],
    draw=lambda p, rng, size: (integers(rng, min(size, 9), 1, 14),),
    variants=(
        """
def solve(nums):
    dp = []
    for i, x in enumerate(nums):
        near = [dp[j] for j in range(i) if x - nums[j] $op $step]
        dp.append(max(near, default=0) + $gain)
    return max(dp)
""",
        """
def solve(nums):
    dp = [0] * len(nums)
    for i, x in enumerate(nums):
        for j in range(i):
            if x - nums[j] $op $step:
                dp[i] = max(dp[i], dp[j])
        dp[i] += $gain
    return max(dp)
""",
        """
from functools import lru_cache
def solve(nums):
    @lru_cache(None)
    def best(i):
        x = nums[i]
        later = [best(j) for j in range(i + 1, len(nums)) if nums[j] - x $op $step]
        return $gain + max(later, default=0)
    return max(best(i) for i in range(len(nums)))
""",
    ),
    gross=(
        """
def solve(nums):
    last = nums[0]
    total = 0
    for i, x in enumerate(nums):
        if i == 0 or x - last $op $step:
            total += $gain
            last = x
    return total
""",
        """
def solve(nums):
    dp = [0] * len(nums)
    for i, x in enumerate(nums):
        if i > 0 and x - nums[i - 1] $op $step:
            dp[i] = dp[i - 1]
        dp[i] += $gain
    return max(dp)
""",
    ),
    subtle=(
        """
def solve(nums):
    dp = []
    for i, x in enumerate(nums):
        near = [dp[j] for j in range(i) if x - nums[j] $op $step]
        dp.append(max(near, default=0) + $gain)
    return dp[-1]
""",
        """
def solve(nums):
    dp = []
    for i, x in enumerate(nums):
        near = [dp[j] for j in range(i) if x - nums[j] $op $step]
        dp.append((near[-1] if near else 0) + $gain)
    return max(dp)
""",
    ),
)


def _maze_steps(p: Params, grid: list[str]) -> int:
    goal, reached, seen = (len(grid) - 1, len(grid[0]) - 1), {(0, 0)}, {(0, 0)}
    for steps in range(len(grid) * len(grid[0])):
        if goal in reached:
            return steps
        around = {(r + a, c + b) for r, c in reached for a, b in p["moves"]}
        inside = {(r, c) for r, c in around if 0 <= r <= goal[0] and 0 <= c <= goal[1]}
        reached = {(r, c) for r, c in inside if grid[r][c] != p["wall"]} - seen
        seen |= reached
    return int(p["missing"])


MAZE_STEPS = Family(
    name="maze-steps",
    difficulty="hard",
    title="Steps Through a Maze",
    method="mazeSteps",
    arguments={"grid": "grid"},
    returns="int",
    task="In grid, $wall is a wall and . is free; the top left and bottom right cells are free. A step goes"
    " from a free cell to a free cell $moves_words. Find the least number of steps from top left to "
    "bottom right, or $missing if there is no way.",
    limits="1 <= n <= 5, rows have equal length, 1 to 6",
    space=(
        [
            {"moves_words": "that shares a side with it", "moves": ((0, 1), (1, 0), (0, -1), (-1, 0))},
            {"moves_words": "one place to the right, left or below", "moves": ((0, 1), (0, -1), (1, 0))},
            {"moves_words": "one place to the right, above or below", "moves": ((0, 1), (1, 0), (-1, 0))},
        ],
        axis("wall", ["#", "X"]),
        axis("missing", [-1, 0, 50, 99]),
    ),
    solve=_maze_steps,
    edges=lambda p: [
        (["."],),
        (["......"],),
        ([f".{p['wall']}", f"{p['wall']}."],),
        (["...", "...", "..."],),
        ([f".{p['wall']}...", f".{p['wall']}.{p['wall']}.", f"...{p['wall']}."],),
        (["....", f"{p['wall'] * 3}.", "....", f".{p['wall'] * 3}", "...."],),
        ([f".{p['wall'] * 2}", f"..{p['wall']}", f"{p['wall']}..", "..."],),
        ([f".{p['wall']}."] * 2 + ["..."],),
        (["....", f"{p['wall'] * 2}.{p['wall']}", "...."],),
    ],
    draw=lambda p, rng, size: (_maze(rng, 1 + size // 3, 2 + size // 3 if size < 5 else 3 + size // 4, p["wall"]),),
    variants=(
        """
def solve(grid):
    cells = {(r, c) for r, row in enumerate(grid) for c, x in enumerate(row) if x != '$wall'}
    dist = {(0, 0): 0}
    queue = [(0, 0)]
    while queue:
        r, c = queue.pop(0)
        near = {(r + a, c + b) for a, b in $moves} & cells
        cells -= near
        for cell in near - {(0, 0)}:
            dist[cell] = dist[r, c] + 1
            queue.append(cell)
    return dist.get((len(grid) - 1, len(grid[0]) - 1), $missing)
""",
        """
def solve(grid):
    cells = {(r, c) for r, row in enumerate(grid) for c, x in enumerate(row) if x != '$wall'}
    layer = {(0, 0)}
    for steps in range(len(cells)):
        if (len(grid) - 1, len(grid[0]) - 1) in layer:
            return steps
        cells -= layer
        layer = {(r + a, c + b) for r, c in layer for a, b in $moves} & cells
    return $missing
""",
        """
def solve(grid):
    cells = [(r, c) for r, row in enumerate(grid) for c, x in enumerate(row) if x == '.']
    dist = {(0, 0): 0}
    for _ in cells:
        for r, c in cells:
            near = [dist.get((r - a, c - b), 99) + 1 for a, b in $moves]
            dist[r, c] = min(dist.get((r, c), 99), min(near))
    best = dist[cells[-1]]
    return best if best < 99 else $missing
""",
    ),
    gross=(
        """
def solve(grid):
    dist = {(0, 0): 0}
    for r, row in enumerate(grid):
        for c, x in enumerate(row):
            if x != '$wall' and (r or c):
                dist[r, c] = min(dist.get((r - a, c - b), 99) for a, b in $moves) + 1
    best = dist[r, c]
    return best if best < 99 else $missing
""",
        """
def solve(grid):
    cells = {(r, c) for r, row in enumerate(grid) for c, x in enumerate(row) if x != '$wall'}
    stack = [(0, 0)]
    while stack:
        r, c = stack.pop()
        cells.discard((r, c))
        stack += [(r + a, c + b) for a, b in $moves if (r + a, c + b) in cells]
    goal = (len(grid) - 1, len(grid[0]) - 1)
    return sum(goal) if goal not in cells else $missing
""",
    ),
    subtle=(
        """
def solve(grid):
    cells = {(r, c) for r, row in enumerate(grid) for c, x in enumerate(row) if x != '$wall'}
    layer = {(0, 0)}
    for steps in range(len(grid) + len(grid[0])):
        if (len(grid) - 1, len(grid[0]) - 1) in layer:
            return steps
        cells -= layer
        layer = {(r + a, c + b) for r, c in layer for a, b in $moves} & cells
    return $missing
""",
        """
def solve(grid):
    cells = {(r, c) for r, row in enumerate(grid) for c, x in enumerate(row) if x != '$wall'}
    layer = {(0, 0)}
    steps = 0
    while layer:
        cells -= layer
        layer = {(r + a, c + b) for r, c in layer for a, b in $moves} & cells
        steps += 1
    return steps - 1 if (len(grid) - 1, len(grid[0]) - 1) not in cells else $missing
""",
    ),
)


def _maze(rng: Random, height: int, width: int, wall: str) -> list[str]:
    """A grid with some walls, none of them at the ends."""
    rows = [[wall if rng.random() < 0.3 else "." for _ in range(width)] for _ in range(height)]
    rows[0][0] = rows[-1][-1] = "."
    return ["".join(row) for row in rows]


def _fair_split(p: Params, nums: list[int]) -> int:
    totals = []
    for cuts in combinations(range(1, len(nums)), p["parts"] - 1):
        blocks = [nums[a:b] for a, b in zip((0, *cuts), (*cuts, len(nums)), strict=True)]
        loads = sorted(sum(block) + p["fee"] * len(block) for block in blocks)
        totals.append(loads[-1] if p["other"] == "max" else loads[0])
    return min(totals) if p["pick"] == "min" else max(totals)


FAIR_SPLIT = Family(
    name="fair-split",
    difficulty="hard",
    title="Fair Split",
    method="fairSplit",
    arguments={"nums": "ints"},
    returns="int",
    task="Cut nums into exactly $parts blocks of consecutive values, none empty. The load of a block is the"
    " sum of its values plus $fee for each value in it. Cut so that the $goal is as $wish as possible,"
    " and give that load.",
    limits="$parts <= n <= 9, 0 <= nums[i] <= 20",
    space=(
        [
            {"goal": "largest load", "wish": "small", "pick": "min", "other": "max"},
            {"goal": "smallest load", "wish": "large", "pick": "max", "other": "min"},
        ],
        axis("parts", [2, 3, 4]),
        axis("fee", [1, 2, 3, 4]),
    ),
    solve=_fair_split,
    edges=lambda p: [
        ([5] * p["parts"],),
        (list(range(1, p["parts"] + 1)),),
        ([4] * 8,),
        ([0] * 6,),
        ([20, 1, 1, 1, 1, 1, 1],),
        ([1, 1, 1, 1, 1, 1, 20],),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9],),
        ([9, 0, 7, 0, 5, 0, 3, 0, 1],),
    ],
    draw=lambda p, rng, size: (integers(rng, min(9, size + p["parts"] - 2), 0, 20),),
    variants=(
        """
from itertools import combinations, pairwise
def solve(nums):
    values = []
    for cuts in combinations(range(1, len(nums)), $parts - 1):
        ends = [0, *cuts, len(nums)]
        values.append($other(sum(nums[a:b]) + $fee * (b - a) for a, b in zip(ends, ends[1:])))
    return $pick(values)
""",
        """
from functools import lru_cache
def solve(nums):
    @lru_cache(None)
    def best(start, parts):
        if parts == 1:
            return sum(nums[start:]) + $fee * (len(nums) - start)
        ends = range(start + 1, len(nums) - parts + 2)
        return $pick($other(sum(nums[start:j]) + $fee * (j - start), best(j, parts - 1)) for j in ends)
    return best(0, $parts)
""",
        """
def solve(nums):
    nums = [x + $fee for x in nums]
    dp = [sum(nums[i:]) for i in range(len(nums))]
    for _ in range($parts - 1):
        last = dp
        dp = []
        for i in range(len(last) - 1):
            dp.append($pick($other(sum(nums[i:j]), last[j]) for j in range(i + 1, len(last))))
    return dp[0]
""",
    ),
    gross=(
        """
from itertools import combinations, pairwise
def solve(nums):
    values = []
    for cuts in combinations(range(1, len(nums)), $parts - 1):
        ends = [0, *cuts, len(nums)]
        values.append($pick(sum(nums[a:b]) + $fee * (b - a) for a, b in zip(ends, ends[1:])))
    return $other(values)
""",
        """
def solve(nums):
    size = len(nums) // $parts
    ends = [i * size for i in range($parts)] + [len(nums)]
    return $other(sum(nums[a:b]) + $fee * (b - a) for a, b in zip(ends, ends[1:]))
""",
    ),
    subtle=(
        """
from itertools import combinations, pairwise
def solve(nums):
    values = []
    for cuts in combinations(range(1, len(nums)), $parts - 1):
        ends = [0, *cuts, len(nums)]
        values.append($other(sum(nums[a:b]) for a, b in zip(ends, ends[1:])) + $fee)
    return $pick(values)
""",
        """
from itertools import combinations, pairwise
def solve(nums):
    values = []
    for cuts in combinations(range(1, len(nums)), $parts - 1):
        ends = [0, *cuts]
        values.append($other(sum(nums[a:b]) + $fee * (b - a) for a, b in zip(ends, ends[1:])))
    return $pick(values)
""",
    ),
)


HARD_CHOICE = (BEST_CHAIN, MAZE_STEPS, FAIR_SPLIT)
