"""Medium families: brackets, intervals, cells and circles."""

from __future__ import annotations

from random import Random

from daj_lightning.data.bank.family import AT_LEAST, AT_MOST, COMPARISONS, LESS, Family, Params, axis, holds


def _bracket_depth(p: Params, s: str) -> bool:
    level, levels = 0, []
    for c in s:
        level += 1 if c == p["open"] else -1
        levels.append(level)
    return level == 0 and min(levels) == 0 and holds(max(levels), p["op"], p["depth"])


BRACKET_DEPTH = Family(
    name="bracket-depth",
    difficulty="medium",
    title="Bracket Depth",
    method="checkBrackets",
    arguments={"s": "str"},
    returns="bool",
    task="A string of $open and $close is balanced if each $open is closed by its own later $close. Its depth is the "
    "largest number of brackets that are open at once. Decide whether s is balanced and has a depth of $op_words $depth.",
    limits="s has 1 to 16 characters, each $open or $close",
    space=(
        [
            {"open": "(", "close": ")"},
            {"open": "[", "close": "]"},
            {"open": "<", "close": ">"},
        ],
        (AT_LEAST, AT_MOST, {"op": "==", "op_words": "exactly"}),
        axis("depth", [2, 3, 4]),
    ),
    solve=_bracket_depth,
    edges=lambda p: [
        (p["open"],),
        (p["close"],),
        (p["close"] + p["open"],),
        (_nested(p, p["depth"]),),
        (_nested(p, p["depth"] - 1) * 2,),
        (_nested(p, 1) + _nested(p, p["depth"] + 1),),
        (_nested(p, p["depth"]) + p["close"] + p["open"],),
        (_nested(p, p["depth"]) + p["open"],),
        (p["close"] + _nested(p, p["depth"]) + p["open"],),
        (p["open"] * p["depth"],),
    ],
    draw=lambda p, rng, size: (_brackets(p, rng, size),),
    variants=(
        """
def solve(s):
    level = best = 0
    for c in s:
        level += 1 if c == '$open' else -1
        if level < 0:
            return False
        best = max(best, level)
    return level == 0 and best $op $depth
""",
        """
def solve(s):
    stack = []
    best = 0
    for c in s:
        if c == '$open':
            stack.append(c)
            best = max(best, len(stack))
        elif not stack:
            return False
        else:
            stack.pop()
    return not stack and best $op $depth
""",
        """
from itertools import accumulate
def solve(s):
    values = [1 if c == '$open' else -1 for c in s]
    sums = list(accumulate(values))
    return sums[-1] == 0 and min(sums) >= 0 and max(sums) $op $depth
""",
        """
def solve(s):
    size = 0
    while '$open$close' in s:
        s = s.replace('$open$close', '#')
        size += 1
        s = s.replace('#', '')
    return s == '' and size $op $depth
""",
    ),
    gross=(
        """
def solve(s):
    level = s.count('$open')
    return level == s.count('$close') and level $op $depth
""",
        """
def solve(s):
    size = best = 0
    for c in s:
        size = size + 1 if c == '$open' else 0
        best = max(best, size)
    return s.count('$open') == s.count('$close') and best $op $depth
""",
    ),
    subtle=(
        """
def solve(s):
    level = best = 0
    for c in s:
        level += 1 if c == '$open' else -1
        best = max(best, level)
    return level == 0 and best $op $depth
""",
        """
def solve(s):
    level = best = 0
    for c in s:
        level += 1 if c == '$open' else -1
        if level < 0:
            return False
        best = max(best, level)
    return best $op $depth
""",
    ),
)


def _nested(p: Params, depth: int) -> str:
    return str(p["open"] * depth + p["close"] * depth)


def _brackets(p: Params, rng: Random, size: int) -> str:
    """Mostly balanced, about `p["depth"]` deep; at times two characters change places."""
    text = ""
    while len(text) < size:
        text += _nested(p, rng.randint(1, p["depth"] + 1))
    text = text[:2] + _nested(p, rng.randint(1, 2)) + text[2:] if rng.random() < 0.5 else text
    if size > 4 and rng.random() < 0.4:
        i = rng.randrange(len(text))
        text = text[i:] + text[:i]
    return text[:16] if size > 4 else text


def _merge_groups(p: Params, pairs: list[list[int]]) -> int:
    groups: list[list[int]] = []
    for a, b in sorted(pairs):
        if groups and holds(a - groups[-1][1], p["op"], p["gap"]):
            groups[-1] = [groups[-1][0], max(groups[-1][1], b)]
        else:
            groups.append([a, b])
    lengths = [b - a for a, b in groups]
    return {"number": len(lengths), "total": sum(lengths), "longest": max(lengths)}[p["measure"]]


MERGE_GROUPS = Family(
    name="merge-groups",
    difficulty="medium",
    title="Groups of Intervals",
    method="mergeGroups",
    arguments={"pairs": "pairs"},
    returns="int",
    task="Take the intervals [a, b] of pairs by rising a. An interval joins the current group if a minus the largest end "
    "in the group is $op_words $gap; otherwise it starts a new group. A group's length is its largest end minus its "
    "smallest start. Find $measure_words.",
    limits="1 <= n <= 8, 0 <= a < b <= 60",
    space=(
        (LESS, AT_MOST),
        axis("gap", [1, 2, 3, 4]),
        [
            {"measure": "number", "measure_words": "the number of groups", "result": "len(groups)"},
            {"measure": "total", "measure_words": "the total length", "result": "sum(b - a for a, b in groups)"},
            {"measure": "longest", "measure_words": "the largest length", "result": "max(b - a for a, b in groups)"},
        ],
    ),
    solve=_merge_groups,
    edges=lambda p: [
        ([[3, 8]],),
        ([[1, 5], [5 + p["gap"], 9 + p["gap"]]],),
        ([[1, 5], [6 + p["gap"], 9 + p["gap"]]],),
        ([[7, 10], [6 - p["gap"], 7 - p["gap"]]],),
        ([[0, 30], [2, 4], [30 + p["gap"], 40], [5, 6]],),
        ([[20, 22], [0, 12], [3, 4], [12 + p["gap"] - 1, 19]],),
        ([[5, 9]] * 4,),
        ([[40, 50], [20, 28], [0, 6], [10, 11]],),
    ],
    draw=lambda p, rng, size: (_intervals(rng, min(size, 8), p["gap"]),),
    variants=(
        """
def solve(pairs):
    groups = []
    for a, b in sorted(pairs):
        if groups and a - groups[-1][1] $op $gap:
            groups[-1][1] = max(groups[-1][1], b)
        else:
            groups.append([a, b])
    return $result
""",
        """
def solve(pairs):
    pairs.sort()
    groups = []
    start, end = pairs[0]
    for a, b in pairs[1:]:
        if a - end $op $gap:
            end = max(end, b)
        else:
            groups.append((start, end))
            start, end = (a, b)
    groups.append((start, end))
    return $result
""",
        """
def solve(pairs):
    groups = []
    for a, b in sorted(pairs, reverse=True):
        near = [pair for pair in groups if pair[0] - b $op $gap]
        groups = [pair for pair in groups if pair not in near]
        groups.append((a, max([b] + [pair[1] for pair in near])))
    return $result
""",
    ),
    gross=(
        """
def solve(pairs):
    groups = []
    for a, b in pairs:
        if groups and a - groups[-1][1] $op $gap:
            groups[-1][1] = max(groups[-1][1], b)
        else:
            groups.append([a, b])
    return $result
""",
        """
def solve(pairs):
    groups = []
    for a, b in sorted(pairs):
        if groups and a - groups[-1][0] $op $gap:
            groups[-1][1] = max(groups[-1][1], b)
        else:
            groups.append([a, b])
    return $result
""",
    ),
    subtle=(
        """
def solve(pairs):
    groups = []
    for a, b in sorted(pairs):
        if groups and a - groups[-1][1] $op $gap:
            groups[-1][1] = b
        else:
            groups.append([a, b])
    return $result
""",
        """
def solve(pairs):
    groups = []
    for a, b in sorted(pairs, key=lambda pair: pair[1]):
        if groups and a - groups[-1][1] $op $gap:
            groups[-1][1] = max(groups[-1][1], b)
        else:
            groups.append([a, b])
    return $result
""",
    ),
)


def _intervals(rng: Random, size: int, gap: int) -> list[list[int]]:
    """Intervals in no order, many of them about `gap` apart, some inside others."""
    pairs, end = [], rng.randint(0, 4)
    while len(pairs) < size:
        start = max(0, end + gap + rng.choice([-1, 0, 0, 1, 2, -5]))
        stop = start + rng.randint(1, 5)
        if stop > 60:
            break
        pairs.append([start, stop])
        end = max(end, stop) if rng.random() < 0.8 else end
    rng.shuffle(pairs)
    return pairs


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
    task="In a grid of the characters # and ., two different cells are neighbours if $near_words. Count the # cells for "
    "which the number of neighbours that are # is $op_words $limit.",
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
    task="n children stand in a circle, numbered from $first upwards in order. Counting starts at the child with number "
    "$first, and again and again every child counted as number $step leaves; the next count starts at the child after it. "
    "Find the number of the last child left.",
    limits="1 <= n <= 40",
    space=(axis("first", [0, 1, 5, 10]), axis("step", [2, 3, 4, 5, 6, 7])),
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

MEDIUM_SHAPES = (BRACKET_DEPTH, MERGE_GROUPS, CROWDED_CELLS, CIRCLE)
