"""Unseen medium families: customers served at desks, a grid read along its diagonals."""

from __future__ import annotations

from random import Random

from daj_lightning.data.bank.family import Family, Params, axis, integers, letters


def _desks(p: Params, nums: list[int]) -> int:
    busy_until: list[int] = [0] * p["desks"]
    starts, ends = [], []
    for x in nums:
        desk = min(range(p["desks"]), key=lambda k: busy_until[k])
        starts.append(busy_until[desk])
        ends.append(starts[-1] + x)
        busy_until[desk] = ends[-1] + p["rest"]
    times = ends if p["entry"] == "start + x" else starts
    return max(times) if p["agg"] == "max" else sum(times)


DESKS = Family(
    name="service-desks",
    difficulty="medium",
    title="Service Desks",
    method="serveAll",
    arguments={"nums": "ints"},
    returns="int",
    task="All customers come at time 0; customer i needs nums[i] minutes at one of $desks desks. They are "
    "served in order: the next one goes to a desk as soon as one is free. After a customer, a desk is free "
    "again only $rest minutes later. Find $measure_words.",
    limits="1 <= n <= 10, 1 <= nums[i] <= 20",
    space=(
        axis("desks", [2, 3, 4]),
        axis("rest", [1, 2, 3]),
        [
            {"entry": "start + x", "agg": "max", "measure_words": "the time at which the last customer is done"},
            {"entry": "start", "agg": "sum", "measure_words": "the sum of the times at which customers begin"},
            {"entry": "start + x", "agg": "sum", "measure_words": "the sum of the times at which customers are done"},
        ],
    ),
    solve=_desks,
    edges=lambda p: [
        ([7],),
        ([3] * p["desks"],),
        ([3] * (p["desks"] + 1),),
        ([20, 1, 1, 1, 1, 1, 1],),
        ([1, 1, 1, 1, 1, 1, 1, 20],),
        ([9, 2, 5, 1, 8, 3, 7, 4, 6, 2],),
        ([12, 3, 11, 2, 10, 1, 9],),
        ([5, 5, 5, 5, 5, 5, 5, 5, 5],),
    ],
    draw=lambda p, rng, size: (integers(rng, size, 1, 15),),
    variants=(
        """
from heapq import heappop, heappush
def solve(nums):
    free = [0] * $desks
    found = []
    for x in nums:
        start = heappop(free)
        found.append($entry)
        heappush(free, start + x + $rest)
    return $agg(found)
""",
        """
def solve(nums):
    free = [0] * $desks
    found = []
    for x in nums:
        i = free.index(min(free))
        start = free[i]
        found.append($entry)
        free[i] = start + x + $rest
    return $agg(found)
""",
        """
def solve(nums):
    ends = []
    found = []
    for x in nums:
        start = sorted(ends)[-$desks] if len(ends) >= $desks else 0
        found.append($entry)
        ends.append(start + x + $rest)
    return $agg(found)
""",
        """
def solve(nums):
    ends = []
    found = []
    start = 0
    for x in nums:
        while sum(end > start for end in ends) >= $desks:
            start += 1
        found.append($entry)
        ends.append(start + x + $rest)
    return $agg(found)
""",
    ),
    gross=(
        """
def solve(nums):
    free = [0] * $desks
    found = []
    for i, x in enumerate(nums):
        start = free[i % $desks]
        found.append($entry)
        free[i % $desks] += x + $rest
    return $agg(found)
""",
        """
def solve(nums):
    free = [0] * $desks
    found = []
    for x in sorted(nums):
        free.sort()
        start = free[0]
        found.append($entry)
        free[0] += x + $rest
    return $agg(found)
""",
    ),
    subtle=(
        """
def solve(nums):
    start = 0
    found = []
    for i in range(0, len(nums), $desks):
        group = nums[i:i + $desks]
        found += [$entry for x in group]
        start += max(group) + $rest
    return $agg(found)
""",
        """
def solve(nums):
    free = [0] * $desks
    found = []
    for x in nums:
        free.sort()
        start = free.pop(0)
        found.append($entry)
        free.append(start + x + ($rest if start else 0))
    return $agg(found)
""",
    ),
)


def _diagonals(p: Params, grid: list[str]) -> str:
    lines: dict[int, str] = {}
    for r, row in enumerate(grid):
        for c, x in enumerate(row):
            key = r + c if p["key"] == "r + c" else r - c
            lines[key] = lines.get(key, "") + x
    text = ""
    for i, key in enumerate(sorted(lines)):
        up = {"1": False, "-1": True, "(-1) ** i": i % 2 == 1}[p["step"]]
        line = lines[key][::-1] if up else lines[key]
        text += line[: p["most"]]
    return text


DIAGONALS = Family(
    name="read-diagonals",
    difficulty="medium",
    title="Diagonals of a Grid",
    method="readDiagonals",
    arguments={"grid": "grid"},
    returns="str",
    task="Two cells of grid share a diagonal if they have the same $key_words. Take the diagonals by rising "
    "$key_words and read each $step_words; write down its first $most letters, or all if it is shorter. Give "
    "the whole text.",
    limits="1 <= n <= 5, rows have equal length, 1 to 5, of lowercase letters",
    space=(
        [
            {
                "key": "r + c",
                "other_key": "r - c",
                "key_words": "row number plus column number",
                "square": "range(2 * len(grid) - 1)",
            },
            {
                "key": "r - c",
                "other_key": "r + c",
                "key_words": "row number minus column number",
                "square": "range(1 - len(grid), len(grid))",
            },
        ],
        [
            {"step": "1", "step_words": "from top to bottom"},
            {"step": "-1", "step_words": "from bottom to top"},
            {"step": "(-1) ** i", "step_words": "downwards and upwards in turn, the first downwards"},
        ],
        axis("most", [1, 2, 3]),
    ),
    solve=_diagonals,
    edges=lambda p: [
        (["a"],),
        (["abcde"],),
        (["a", "b", "c", "d"],),
        (["ab", "cd"],),
        (["abc", "def", "ghi"],),
        (["abcde", "fghij"],),
        (["ab", "cd", "ef", "gh", "ij"],),
        (["abcde", "fghij", "klmno", "pqrst", "uvwxy"],),
    ],
    draw=lambda p, rng, size: (_letter_grid(rng, 1 + size // 3, rng.randint(2, 5) if size > 4 else 2 + size // 4),),
    variants=(
        """
def solve(grid):
    groups = {}
    for r, row in enumerate(grid):
        for c, x in enumerate(row):
            groups.setdefault($key, []).append(x)
    text = ''
    for i, k in enumerate(sorted(groups)):
        text += ''.join(groups[k][::$step][:$most])
    return text
""",
        """
def solve(grid):
    text = ''
    keys = {$key for r in range(len(grid)) for c in range(len(grid[0]))}
    for i, k in enumerate(sorted(keys)):
        kept = [x for r, row in enumerate(grid) for c, x in enumerate(row) if $key == k]
        text += ''.join(kept[::$step][:$most])
    return text
""",
        """
def solve(grid):
    text = ''
    groups = {}
    for r, row in enumerate(grid):
        for c, x in enumerate(row):
            groups[$key] = groups.get($key, '') + x
    for i, (k, line) in enumerate(sorted(groups.items())):
        text += line[::$step][:$most]
    return text
""",
    ),
    gross=(
        """
def solve(grid):
    text = ''
    for i, row in enumerate(grid):
        text += row[::$step][:$most]
    return text
""",
        """
def solve(grid):
    text = ''
    keys = {$other_key for r in range(len(grid)) for c in range(len(grid[0]))}
    for i, k in enumerate(sorted(keys)):
        kept = [x for r, row in enumerate(grid) for c, x in enumerate(row) if $other_key == k]
        text += ''.join(kept[::$step][:$most])
    return text
""",
    ),
    subtle=(
        """
def solve(grid):
    text = ''
    for i, k in enumerate($square):
        kept = [x for r, row in enumerate(grid) for c, x in enumerate(row) if $key == k]
        text += ''.join(kept[::$step][:$most])
    return text
""",
        """
def solve(grid):
    groups = {}
    for r, row in enumerate(grid):
        for c, x in enumerate(row):
            groups.setdefault($key, []).append(x)
    text = ''
    for i, k in enumerate(sorted(groups)):
        if len(groups[k]) > 1:
            text += ''.join(groups[k][::$step][:$most])
    return text
""",
    ),
)


def _letter_grid(rng: Random, height: int, width: int) -> list[str]:
    return [letters(rng, width, "abcdefghij") for _ in range(height)]


UNSEEN_MEDIUM = (DESKS, DIAGONALS)
