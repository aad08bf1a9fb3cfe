"""Medium families: brackets and intervals."""

from __future__ import annotations

from random import Random

from daj_lightning.data.bank.family import AT_LEAST, AT_MOST, LESS, Family, Params, axis, holds


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
    task="A string of $open and $close is balanced if each $open is closed by its own later $close. Its "
    "depth is the largest number of brackets that are open at once. Decide whether s is balanced and "
    "has a depth of $op_words $depth.",
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
    task="Take the intervals [a, b] of pairs by rising a. An interval joins the current group if a minus "
    "the largest end in the group is $op_words $gap; otherwise it starts a new group. A group's length"
    " is its largest end minus its smallest start. Find $measure_words.",
    limits="1 <= n <= 8, 0 <= a < b <= 60",
    space=(
        (LESS, AT_MOST),
        axis("gap", [1, 2, 3, 4]),
        [
            {"measure": "number", "measure_words": "the number of groups", "result": "len(groups)"},
            {
                "measure": "total",
                "measure_words": "the total length",
                "result": "sum(b - a for a, b in groups)",
            },
            {
                "measure": "longest",
                "measure_words": "the largest length",
                "result": "max(b - a for a, b in groups)",
            },
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
        ([[0, 2], [10, 12], [1, 50]],),
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
    groups = pairs[:1]
    for a, b in pairs[1:]:
        start, end = groups.pop()
        if a - end $op $gap:
            groups.append([start, max(end, b)])
        else:
            groups += [[start, end], [a, b]]
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
    pairs: list[list[int]] = []
    end = rng.randint(0, 4)
    while len(pairs) < size:
        start = max(0, end + gap + rng.choice([-1, 0, 0, 1, 2, -5]))
        stop = start + rng.randint(1, 5)
        if stop > 60:
            break
        pairs.append([start, stop])
        end = max(end, stop) if rng.random() < 0.8 else end
    rng.shuffle(pairs)
    return pairs


MEDIUM_SHAPES = (BRACKET_DEPTH, MERGE_GROUPS)
