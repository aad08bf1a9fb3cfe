"""Easy families: neighbours and blocks, where order matters."""

from __future__ import annotations

from itertools import groupby
from random import Random
from typing import Any

from daj_lightning.data.bank.family import AT_LEAST, COMPARISONS, GREATER, Family, Params, axis, holds, integers, letters


def _longest_run(p: Params, nums: list[int]) -> int:
    good = [holds(b - a, p["op"], p["step"]) for a, b in zip(nums, nums[1:], strict=False)]
    return 1 + max((len(list(block)) for value, block in groupby(good) if value), default=0)


LONGEST_RUN = Family(
    name="longest-run",
    difficulty="easy",
    title="Longest Run",
    method="longestRun",
    arguments={"nums": "ints"},
    returns="int",
    task="A run is a block of consecutive values of nums in which every value minus the value just before it is "
    "$op_words $step. A single value is a run of length 1. Find the length of the longest run.",
    limits="1 <= n <= 12, -50 <= nums[i] <= 50",
    space=(COMPARISONS, axis("step", [-2, -1, 0, 1, 2, 3])),
    solve=_longest_run,
    edges=lambda p: [
        ([5],),
        ([5] * 5,),
        ([p["step"] * i for i in range(6)],),
        ([(p["step"] + 1) * i for i in range(7)],),
        ([(p["step"] - 1) * i for i in range(8)],),
        ([0, p["step"], 2 * p["step"], 0, 9, 18, 27, 36],),
        ([0, p["step"] - 4, 2 * p["step"] - 8, 30, 60 - 10, 45, 40, 35],),
    ],
    draw=lambda p, rng, size: (_walk(rng, size, p["step"]),),
    variants=(
        """
def solve(nums):
    best = run = 1
    for i in range(1, len(nums)):
        if nums[i] - nums[i - 1] $op $step:
            run += 1
            best = max(best, run)
        else:
            run = 1
    return best
""",
        """
def solve(nums):
    best = run = 1
    for a, b in zip(nums, nums[1:]):
        run = run + 1 if b - a $op $step else 1
        best = max(best, run)
    return best
""",
        """
def solve(nums):
    best = 1
    start = 0
    for i in range(len(nums)):
        if i > 0 and not nums[i] - nums[i - 1] $op $step:
            start = i
        best = max(best, i - start + 1)
    return best
""",
    ),
    gross=(
        """
def solve(nums):
    run = 1
    for a, b in zip(nums, nums[1:]):
        if b - a $op $step:
            run += 1
    return run
""",
        """
def solve(nums):
    best = run = 1
    for x in nums[1:]:
        if x - nums[0] $op $step:
            run += 1
            best = max(best, run)
        else:
            run = 1
    return best
""",
    ),
    subtle=(
        """
def solve(nums):
    best = run = 1
    for i in range(1, len(nums)):
        if nums[i] - nums[i - 1] $op $step:
            run += 1
        else:
            best = max(best, run)
            run = 1
    return best
""",
        """
def solve(nums):
    best = run = 0
    for a, b in zip(nums, nums[1:]):
        run = run + 1 if b - a $op $step else 0
        best = max(best, run)
    return best
""",
    ),
)


def _walk(rng: Random, size: int, step: int) -> list[int]:
    """A list whose differences lie around `step`."""
    nums = [rng.randint(-5, 5)]
    while len(nums) < size:
        nums.append(max(-50, min(50, nums[-1] + step + rng.choice([-2, -1, 0, 0, 1, 2]))))
    return nums


def _rotate(p: Params, s: str) -> str:
    for _ in range(p["amount"]):
        s = s[1:] + s[0] if p["side"] == "left" else s[-1] + s[:-1]
    return {"": s, "[::-1]": s[::-1], "[::2]": s[::2]}[p["finish"]]


ROTATE_STRING = Family(
    name="rotate-string",
    difficulty="easy",
    title="Rotate and Read",
    method="rotateString",
    arguments={"s": "str"},
    returns="str",
    task="Rotate the string s by $amount places to the $side: $amount times, $once. Then $then and "
    "give the resulting string.",
    limits="s has 1 to 12 lowercase letters",
    space=(
        [
            {"side": "left", "sign": "+", "turn": "s[k:] + s[:k]", "once": "its first letter moves to the end"},
            {"side": "right", "sign": "-", "turn": "s[-k:] + s[:-k]", "once": "its last letter moves to the front"},
        ],
        [
            {"then": "reverse it", "finish": "[::-1]"},
            {"then": "keep only the letters at places 1, 3, 5 and so on", "finish": "[::2]"},
            {"then": "leave it as it is", "finish": ""},
        ],
        axis("amount", [2, 3, 4, 5, 6, 7]),
    ),
    solve=_rotate,
    edges=lambda p: [
        ("q",),
        ("ab",),
        ("xyz",),
        ("abcdefghijkl"[: p["amount"]],),
        ("abcdefghijkl"[: p["amount"] - 1],),
        ("abcdefghijkl"[: p["amount"] + 1],),
        ("zzzzzzz",),
        ("mnopqrstuvwx",),
    ],
    draw=lambda p, rng, size: (letters(rng, size, "abcdefgh"),),
    variants=(
        """
def solve(s):
    k = $amount % len(s)
    turned = $turn
    return turned$finish
""",
        """
def solve(s):
    turned = ''
    for i in range(len(s)):
        turned += s[(i $sign $amount) % len(s)]
    return turned$finish
""",
        """
def solve(s):
    order = [(i $sign $amount) % len(s) for i in range(len(s))]
    turned = [s[i] for i in order]
    return ''.join(turned$finish)
""",
    ),
    gross=(
        """
def solve(s):
    k = $amount % len(s)
    turned = s[::-1]
    return turned[k:] + turned[:k]
""",
        """
def solve(s):
    turned = ''
    for c in s:
        turned += chr((ord(c) - 97 $sign $amount) % 26 + 97)
    return turned$finish
""",
    ),
    subtle=(
        """
def solve(s):
    k = min($amount, len(s))
    turned = $turn
    return turned$finish
""",
        """
def solve(s):
    turned = ''
    for i in range(len(s)):
        turned += s[(i $sign $amount) % (len(s) + 1) - 1]
    return turned$finish
""",
    ),
)


def _peaks(p: Params, nums: list[int]) -> int:
    gap, total = p["gap"], 0
    for i, x in enumerate(nums):
        if i >= gap and i + gap < len(nums) and x >= p["height"]:
            total += all(holds(x, p["op"], y) for y in (nums[i - gap], nums[i + gap]))
    return total


PEAKS = Family(
    name="count-peaks",
    difficulty="easy",
    title="Count the Peaks",
    method="countPeaks",
    arguments={"nums": "ints"},
    returns="int",
    task="The partners of a position are the two positions exactly $gap to its left and right. A peak is a position "
    "with both partners whose value is $op_words each partner's value and at least $height. Count the peaks.",
    limits="1 <= n <= 12, 0 <= nums[i] <= 20",
    space=((GREATER, AT_LEAST), axis("gap", [1, 2, 3]), axis("height", [3, 4, 5, 6, 7, 8])),
    solve=_peaks,
    edges=lambda p: [
        ([p["height"]],),
        ([p["height"]] * 8,),
        ([p["height"] - 1] * 8,),
        ([0] * p["gap"] + [p["height"]] * p["gap"] + [0] * p["gap"],),
        ([p["height"] + 2] * p["gap"] + [p["height"]] * (p["gap"] + 1),),
        ([0] * p["gap"] + [p["height"] + 3] * p["gap"] + [p["height"] + 3] * p["gap"] + [0] * p["gap"],),
        ([2, 20, 3, 19, 4, 18, 5, 17, 6, 16, 7],),
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],),
    ],
    draw=lambda p, rng, size: (integers(rng, size + 2, max(0, p["height"] - 3), p["height"] + 3),),
    variants=(
        """
def solve(nums):
    total = 0
    for i in range($gap, len(nums) - $gap):
        if nums[i] >= $height and nums[i] $op nums[i - $gap] and nums[i] $op nums[i + $gap]:
            total += 1
    return total
""",
        """
def solve(nums):
    triples = zip(nums, nums[$gap:], nums[2 * $gap:])
    return sum(b $op a and b $op c and b >= $height for a, b, c in triples)
""",
        """
def solve(nums):
    total = 0
    for i, x in enumerate(nums[$gap:len(nums) - $gap]):
        if x >= $height and x $op max(nums[i], nums[i + 2 * $gap]):
            total += 1
    return total
""",
    ),
    gross=(
        """
def solve(nums):
    total = 0
    for i in range($gap, len(nums) - $gap):
        if nums[i] >= $height and nums[i] $op min(nums[i - $gap], nums[i + $gap]):
            total += 1
    return total
""",
        """
def solve(nums):
    total = 0
    for x in nums:
        if x >= $height:
            total += 1
    return total
""",
    ),
    subtle=(
        """
def solve(nums):
    total = 0
    for i in range(len(nums) - $gap):
        if nums[i] >= $height and nums[i] $op nums[i - $gap] and nums[i] $op nums[i + $gap]:
            total += 1
    return total
""",
    ),
)


def _run_length(p: Params, s: str) -> str:
    blocks: list[tuple[str, int]] = [(letter, len(list(block))) for letter, block in groupby(s)]
    return "".join(_block(p, letter, size) for letter, size in blocks)


def _block(p: Params, letter: str, size: int) -> str:
    spell: dict[str, Any] = {
        "letter + str(size)": letter + str(size),
        "str(size) + letter": str(size) + letter,
        "letter": letter,
        "letter * size": letter * size,
    }
    chosen: str = spell[p["form"] if holds(size, p["op"], p["limit"]) else p["rest"]]
    return chosen


RUN_LENGTH = Family(
    name="run-length",
    difficulty="easy",
    title="Short Form",
    method="shortForm",
    arguments={"s": "str"},
    returns="str",
    task="Split s into maximal blocks of one repeated letter. Write a block whose length is $op_words $limit "
    "as $form_words, and $rest_words. Give the joined text.",
    limits="s has 1 to 16 lowercase letters",
    space=(
        (GREATER, AT_LEAST),
        axis("limit", [2, 3, 4]),
        [
            {"form": "letter + str(size)", "form_words": "its letter followed by its length"},
            {"form": "str(size) + letter", "form_words": "its length followed by its letter"},
        ],
        [
            {"rest": "letter * size", "rest_words": "leave every other block as it is"},
            {"rest": "letter", "rest_words": "shorten every other block to one letter"},
        ],
    ),
    solve=_run_length,
    edges=lambda p: [
        ("a",),
        ("abc",),
        ("x" * p["limit"],),
        ("x" * (p["limit"] - 1) + "y",),
        ("y" + "x" * (p["limit"] + 1),),
        ("a" * p["limit"] + "b" * (p["limit"] + 1) + "a" * (p["limit"] - 1),),
        ("z" * 12,),
    ],
    draw=lambda p, rng, size: ("".join(c * rng.randint(1, p["limit"] + 1) for c in letters(rng, size // 2 + 1, "abc")),),
    variants=(
        """
from itertools import groupby
def solve(s):
    parts = []
    for letter, block in groupby(s):
        size = len(list(block))
        parts.append($form if size $op $limit else $rest)
    return ''.join(parts)
""",
        """
def solve(s):
    text = ''
    size = 0
    for i, letter in enumerate(s):
        size += 1
        if i + 1 == len(s) or s[i + 1] != letter:
            text += $form if size $op $limit else $rest
            size = 0
    return text
""",
        """
def solve(s):
    text = ''
    while s:
        letter = s[0]
        size = len(s) - len(s.lstrip(letter))
        text += $form if size $op $limit else $rest
        s = s[size:]
    return text
""",
    ),
    gross=(
        """
def solve(s):
    text = ''
    for letter in sorted(set(s)):
        size = s.count(letter)
        text += $form if size $op $limit else $rest
    return text
""",
        """
def solve(s):
    parts = []
    for letter in s:
        size = s.count(letter)
        if letter not in parts:
            parts.append($form if size $op $limit else $rest)
    return ''.join(parts)
""",
    ),
    subtle=(
        """
def solve(s):
    text = ''
    size = 1
    for i in range(1, len(s)):
        letter = s[i - 1]
        if s[i] == letter:
            size += 1
        else:
            text += $form if size $op $limit else $rest
            size = 1
    return text
""",
    ),
)

EASY_ORDER = (LONGEST_RUN, ROTATE_STRING, PEAKS, RUN_LENGTH)
