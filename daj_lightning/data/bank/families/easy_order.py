"""Easy families: neighbours and blocks, where order matters."""

from __future__ import annotations

from itertools import groupby, pairwise
from random import Random

from daj_lightning.data.bank.family import (
    AT_LEAST,
    COMPARISONS,
    GREATER,
    Family,
    Params,
    axis,
    holds,
    integers,
)


def _longest_run(p: Params, nums: list[int]) -> int:
    good = [holds(b - a, p["op"], p["step"]) for a, b in pairwise(nums)]
    return 1 + max((len(list(block)) for value, block in groupby(good) if value), default=0)


LONGEST_RUN = Family(
    name="longest-run",
    difficulty="easy",
    title="Longest Run",
    method="longestRun",
    arguments={"nums": "ints"},
    returns="int",
    task="A run is a block of consecutive values of nums in which every value minus the value just before "
    "it is $op_words $step. A single value is a run of length 1. Find the length of the longest run.",
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
    for i in range(1, len(nums)):
        if not nums[i] - nums[i - 1] $op $step:
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
    task="The partners of a position are the two positions exactly $gap to its left and right. A peak is a "
    "position with both partners whose value is $op_words each partner's value and at least $height. "
    "Count the peaks.",
    limits="1 <= n <= 12, 0 <= nums[i] <= 20",
    space=((GREATER, AT_LEAST), axis("gap", [1, 2, 3]), axis("height", [3, 4, 5, 6, 7, 8])),
    solve=_peaks,
    edges=lambda p: [
        ([p["height"]],),
        ([p["height"]] * 8,),
        (([0] * p["gap"] + [p["height"] - 1] * p["gap"]) * 2,),
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

EASY_ORDER = (LONGEST_RUN, PEAKS)
