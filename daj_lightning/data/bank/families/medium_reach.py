"""Medium families: how far a value sees, how far a region goes."""

from __future__ import annotations

from random import Random

from daj_lightning.data.bank.family import AT_LEAST, AT_MOST, COMPARISONS, Family, Params, axis, holds, integers


def _next_values(p: Params, nums: list[int]) -> list[int]:
    found = []
    for i, x in enumerate(nums):
        after = list(range(i + 1, len(nums))) if p["side"] == "right" else list(range(i))[::-1]
        near = [j for j in after if holds(nums[j], p["op"], x)]
        entry = nums[near[0]] if near and p["entry"] == "nums[j]" else abs(near[0] - i) if near else p["missing"]
        found.append(int(entry))
    return found


NEXT_VALUE = Family(
    name="next-value",
    difficulty="medium",
    title="Next Value in Sight",
    method="nextValues",
    arguments={"nums": "ints"},
    returns="ints",
    task="From every position of nums, look to the $side for the nearest value that is $op_words the value "
    "at the position itself. Its entry is $entry_words, or $missing if there is none. List the entries by "
    "rising position.",
    limits="1 <= n <= 12, 1 <= nums[i] <= 30",
    space=(
        COMPARISONS,
        [
            {"side": "right", "later": "range(i + 1, len(nums))", "order": "range(len(nums) - 1, -1, -1)"},
            {"side": "left", "later": "range(i - 1, -1, -1)", "order": "range(len(nums))"},
        ],
        [
            {"entry": "nums[j]", "entry_words": "the value found"},
            {"entry": "abs(j - i)", "entry_words": "the distance between the two positions"},
        ],
        axis("missing", [-1, 0, 99]),
    ),
    solve=_next_values,
    edges=lambda p: [
        ([5],),
        ([5] * 5,),
        ([1, 2, 3, 4, 5, 6],),
        ([9, 8, 7, 6, 5],),
        ([4, 9, 4, 1, 4, 9, 1, 9],),
        ([3, 3, 8, 8, 2, 2, 5, 5],),
        ([30, 1, 29, 2, 28, 3, 27],),
        ([7, 5, 6, 5, 7, 6, 8, 4, 8],),
    ],
    draw=lambda p, rng, size: (integers(rng, size + 1, 1, 9),),
    variants=(
        """
def solve(nums):
    found = []
    for i, x in enumerate(nums):
        best = $missing
        for j in $later:
            if nums[j] $op x:
                best = $entry
                break
        found.append(best)
    return found
""",
        """
def solve(nums):
    found = []
    for i, x in enumerate(nums):
        near = [$entry for j in $later if nums[j] $op x]
        found.append(near[0] if near else $missing)
    return found
""",
        """
def solve(nums):
    found = [$missing] * len(nums)
    stack = []
    for i in $order:
        while stack and not nums[stack[-1]] $op nums[i]:
            stack.pop()
        for j in stack[-1:]:
            found[i] = $entry
        stack.append(i)
    return found
""",
        """
def solve(nums):
    found = []
    for i in range(len(nums)):
        near = ($entry for j in $later if nums[j] $op nums[i])
        found.append(next(near, $missing))
    return found
""",
    ),
    gross=(
        """
def solve(nums):
    found = []
    for i, x in enumerate(nums):
        near = [$entry for j in $later if nums[j] $op x]
        found.append(near[-1] if near else $missing)
    return found
""",
        """
def solve(nums):
    found = []
    for i, x in enumerate(nums):
        near = [nums[j] for j in $later if nums[j] $op x]
        found.append(max(near, default=$missing))
    return found
""",
    ),
    subtle=(
        """
def solve(nums):
    seen = {}
    for i, x in enumerate(nums):
        near = [$entry for j in $later if nums[j] $op x]
        seen[x] = near[0] if near else $missing
    return [seen[x] for x in nums]
""",
        """
def solve(nums):
    found = []
    for i, x in enumerate(nums):
        near = [$entry for j in $later if nums[j] $op x]
        found.append(near[0] if len(near) > 1 else $missing)
    return found
""",
    ),
)


def _regions(p: Params, grid: list[str]) -> int:
    left = {(r, c) for r, row in enumerate(grid) for c, x in enumerate(row) if x == "#"}
    sizes = []
    while left:
        region = [left.pop()]
        for r, c in region:
            near = {(r + a, c + b) for a, b in p["moves"]} & left
            region += sorted(near)
            left -= near
        sizes.append(len(region))
    return sum(holds(size, p["op"], p["least"]) for size in sizes)


REGIONS = Family(
    name="count-regions",
    difficulty="medium",
    title="Regions of a Grid",
    method="countRegions",
    arguments={"grid": "grid"},
    returns="int",
    task="In a grid of the characters # and ., one can step from a # cell to another # cell if the two "
    "$moves_words. All cells that can be reached from a # cell, itself included, form its region. Count the "
    "regions whose number of cells is $op_words $least.",
    limits="1 <= n <= 5, rows have equal length, 1 to 6",
    space=(
        [
            {"moves_words": "share a side", "moves": ((0, 1), (1, 0), (0, -1), (-1, 0))},
            {"moves_words": "touch at a corner only", "moves": ((1, 1), (1, -1), (-1, 1), (-1, -1))},
            {
                "moves_words": "share a side or a corner",
                "moves": ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)),
            },
        ],
        (AT_LEAST, AT_MOST, {"op": "==", "op_words": "exactly"}),
        axis("least", [2, 3, 4]),
    ),
    solve=_regions,
    edges=lambda p: [
        (["#"],),
        (["..", ".."],),
        (["######"],),
        (["#.##.#", "#....#"],),
        (["#.#.#", "#.#.#", "###.#"],),
        (["#.#", ".#.", "#.#"],),
        (["#...#", ".#.#.", "..#..", ".#...", "#..##"],),
        (["###", "###", "###"],),
        (["##.###", "##.#..", "...#.#", "#.##.#", "#.#..#"],),
    ],
    draw=lambda p, rng, size: (_grid(rng, 2 + size // 4, 2 + size // 3),),
    variants=(
        """
def solve(grid):
    cells = {(r, c) for r, row in enumerate(grid) for c, x in enumerate(row) if x == '#'}
    def size(r, c):
        if (r, c) not in cells:
            return 0
        cells.discard((r, c))
        return 1 + sum(size(r + a, c + b) for a, b in $moves)
    sizes = [size(r, c) for r, c in sorted(cells)]
    return sum(x > 0 and x $op $least for x in sizes)
""",
        """
def solve(grid):
    label = {(r, c): (r, c) for r, row in enumerate(grid) for c, x in enumerate(row) if x == '#'}
    for _ in range(len(label)):
        for r, c in label:
            near = [label[r + a, c + b] for a, b in $moves if (r + a, c + b) in label]
            label[r, c] = min([label[r, c]] + near)
    found = list(label.values())
    return sum(found.count(x) $op $least for x in set(found))
""",
        """
def solve(grid):
    groups = []
    for r, row in enumerate(grid):
        for c, x in enumerate(row):
            near = {(r + a, c + b) for a, b in $moves}
            if x == '#':
                joined = [group for group in groups if group & near]
                groups = [group for group in groups if not group & near]
                groups.append({(r, c)}.union(*joined))
    return sum(len(group) $op $least for group in groups)
""",
    ),
    gross=(
        """
def solve(grid):
    blocks = [block for row in grid for block in row.split('.') if block]
    return sum(len(block) $op $least for block in blocks)
""",
        """
def solve(grid):
    cells = {(r, c) for r, row in enumerate(grid) for c, x in enumerate(row) if x == '#'}
    total = 0
    for r, c in cells:
        near = {(r + a, c + b) for a, b in $moves} & cells
        total += 1 + len(near) $op $least
    return total
""",
    ),
    subtle=(
        """
def solve(grid):
    groups = []
    for r, row in enumerate(grid):
        for c, x in enumerate(row):
            near = {(r + a, c + b) for a, b in $moves}
            joined = [group for group in groups if group & near]
            if x == '#' and joined:
                joined[0].add((r, c))
            elif x == '#':
                groups.append({(r, c)})
    return sum(len(group) $op $least for group in groups)
""",
        """
def solve(grid):
    label = {(r, c): (r, c) for r, row in enumerate(grid) for c, x in enumerate(row) if x == '#'}
    for r, c in label:
        near = [label[r + a, c + b] for a, b in $moves if (r + a, c + b) in label]
        label[r, c] = min([label[r, c]] + near)
    found = list(label.values())
    return sum(found.count(x) $op $least for x in set(found))
""",
    ),
)


def _grid(rng: Random, height: int, width: int) -> list[str]:
    return ["".join("#" if rng.random() < 0.5 else "." for _ in range(width)) for _ in range(height)]


MEDIUM_REACH = (NEXT_VALUE, REGIONS)
