"""Medium families: sums of windows, blocks and pairs."""

from __future__ import annotations

from itertools import combinations

from daj_lightning.data.bank.family import (
    AT_MOST,
    LARGEST,
    LESS,
    SMALLEST,
    Family,
    Params,
    axis,
    holds,
    integers,
)


def _window_sum(p: Params, nums: list[int]) -> int:
    width = p["width"]
    sums = sorted(sum(nums[i : i + width]) for i in range(len(nums) - width + 1))
    if not sums:
        return int(p["missing"])
    return sums[-1] if p["pick"] == "max" else sums[0]


WINDOW_SUM = Family(
    name="window-sum",
    difficulty="medium",
    title="Window Sum",
    method="windowSum",
    arguments={"nums": "ints"},
    returns="int",
    task="A window is a block of exactly $width consecutive values of nums. Find the $pick_words sum of a "
    "window. If nums has fewer than $width values, the answer is $missing.",
    limits="1 <= n <= 12, -20 <= nums[i] <= 20",
    space=((LARGEST, SMALLEST), axis("width", [2, 3, 4, 5]), axis("missing", [-1, 0, 50, 100])),
    solve=_window_sum,
    edges=lambda p: [
        ([6],),
        ([3] * (p["width"] - 1),),
        (list(range(3, 3 + p["width"])),),
        ([4] * (p["width"] + 3),),
        ([-1, -2, -3, -4, -5, -6, -7],),
        ([20, 19, 18, 17, 16, 15, 14, 13],),
        ([-5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6],),
    ],
    draw=lambda p, rng, size: (integers(rng, min(12, size + p["width"] - 2), -20, 20),),
    variants=(
        """
def solve(nums):
    sums = [sum(nums[i:i + $width]) for i in range(len(nums) - $width + 1)]
    return $pick(sums) if sums else $missing
""",
        """
def solve(nums):
    if len(nums) < $width:
        return $missing
    window = sum(nums[:$width])
    best = window
    for i in range($width, len(nums)):
        window += nums[i] - nums[i - $width]
        best = $pick(best, window)
    return best
""",
        """
def solve(nums):
    prefix = [0]
    for x in nums:
        prefix.append(prefix[-1] + x)
    sums = [prefix[i] - prefix[i - $width] for i in range($width, len(prefix))]
    return $pick(sums, default=$missing)
""",
    ),
    gross=(
        """
def solve(nums):
    if len(nums) < $width:
        return $missing
    values = sorted(nums)
    return $pick(sum(values[:$width]), sum(values[-$width:]))
""",
        """
def solve(nums):
    sums = [sum(nums[i:i + $width]) for i in range(0, len(nums) - $width + 1, $width)]
    return $pick(sums) if sums else $missing
""",
    ),
    subtle=(
        """
def solve(nums):
    sums = [sum(nums[i:i + $width]) for i in range(len(nums))]
    return $pick(sums) if len(nums) >= $width else $missing
""",
        """
def solve(nums):
    if len(nums) < $width:
        return $missing
    best = 0
    for i in range(len(nums) - $width + 1):
        window = sum(nums[i:i + $width])
        best = $pick(best, window)
    return best
""",
    ),
)


def _pair_count(p: Params, nums: list[int]) -> int:
    return sum(holds(a + b, p["op"], p["target"]) for a, b in combinations(nums, 2))


PAIR_COUNT = Family(
    name="pair-count",
    difficulty="medium",
    title="Pairs by Their Sum",
    method="countPairs",
    arguments={"nums": "ints"},
    returns="int",
    task="Count the pairs of different positions i < j for which nums[i] + nums[j] is $op_words $target. "
    "Pairs at different positions count separately, even if their values are equal.",
    limits="1 <= n <= 12, -20 <= nums[i] <= 20",
    space=(
        [{**LESS, "bisect": "bisect_left"}, {**AT_MOST, "bisect": "bisect_right"}],
        axis("target", range(-3, 12)),
    ),
    solve=_pair_count,
    edges=lambda p: [
        ([p["target"]],),
        ([p["target"] - 4, 4],),
        ([p["target"] - 4, 5],),
        ([p["target"] - 4, 3],),
        ([1] * 6,),
        ([0, 0, 0, p["target"], p["target"], p["target"] + 1],),
        ([9, -9, 8, -8, 7, -7, 6, -6],),
        ([-20] * 5,),
    ],
    draw=lambda p, rng, size: (
        integers(rng, size, -12, 14) if size < 5 else integers(rng, size, p["target"] // 2 - 3, p["target"] // 2 + 4),
    ),
    variants=(
        """
def solve(nums):
    total = 0
    for i in range(len(nums)):
        for j in range(i + 1, len(nums)):
            if nums[i] + nums[j] $op $target:
                total += 1
    return total
""",
        """
def solve(nums):
    nums.sort()
    total = 0
    left, right = (0, len(nums) - 1)
    while left < right:
        if nums[left] + nums[right] $op $target:
            total += right - left
            left += 1
        else:
            right -= 1
    return total
""",
        """
from bisect import $bisect
def solve(nums):
    nums.sort()
    total = 0
    for i, x in enumerate(nums):
        j = $bisect(nums, $target - x)
        total += max(j - i - 1, 0)
    return total
""",
        """
def solve(nums):
    total = 0
    for i, a in enumerate(nums):
        total += sum(1 for b in nums[:i] if a + b $op $target)
    return total
""",
    ),
    gross=(
        """
def solve(nums):
    total = 0
    for a, b in zip(nums, nums[1:]):
        if a + b $op $target:
            total += 1
    return total
""",
        """
def solve(nums):
    total = 0
    for a in nums:
        for b in nums:
            if a + b $op $target:
                total += 1
    return total
""",
    ),
    subtle=(
        """
def solve(nums):
    total = 0
    for i in range(len(nums)):
        for j in range(i, len(nums)):
            if nums[i] + nums[j] $op $target:
                total += 1
    return total
""",
        """
def solve(nums):
    values = sorted(set(nums))
    total = 0
    for i, a in enumerate(values):
        total += sum(1 for b in values[:i] if a + b $op $target)
    return total
""",
    ),
)


def _best_block(p: Params, nums: list[int]) -> int:
    scores = sorted(sum(nums[i:j]) - p["cost"] * (j - i) for i, j in _blocks(len(nums), p["length"]))
    return scores[-1] if p["pick"] == "max" else scores[0]


def _blocks(n: int, length: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(n) for j in range(i + length, n + 1)]


BEST_BLOCK = Family(
    name="best-block",
    difficulty="medium",
    title="Block Score",
    method="blockScore",
    arguments={"nums": "ints"},
    returns="int",
    task="The score of a block of consecutive values of nums is the sum of its values, minus $cost for each"
    " value in it. Find the $pick_words score of a block with at least $length values.",
    limits="$length <= n <= 12, -20 <= nums[i] <= 20",
    space=((LARGEST, SMALLEST), axis("cost", [1, 2, 3, 4, 5]), axis("length", [2, 3, 4])),
    solve=_best_block,
    edges=lambda p: [
        ([4] * p["length"],),
        ([-4] * p["length"],),
        ([p["cost"]] * (p["length"] + 2),),
        ([-9, -8, -7, -6, -5, -4],),
        ([19, 18, 17, 16, 15, 14, 13],),
        ([-20] + [12] * p["length"] + [-20, 3, 3],),
        ([20] + [-12] * p["length"] + [20, 1, 1],),
        ([9, -20, 9, 9, 9, 9, -20, -20, -20, -20, 9],),
    ],
    draw=lambda p, rng, size: (integers(rng, size + p["length"] - 2, -15, 18),),
    variants=(
        """
def solve(nums):
    scores = []
    for i in range(len(nums)):
        for j in range(i + $length, len(nums) + 1):
            scores.append(sum(nums[i:j]) - $cost * (j - i))
    return $pick(scores)
""",
        """
def solve(nums):
    prefix = [0]
    for x in nums:
        prefix.append(prefix[-1] + x - $cost)
    best = prefix[$length]
    start = prefix[0]
    for j in range($length, len(prefix)):
        start = $other(start, prefix[j - $length])
        best = $pick(best, prefix[j] - start)
    return best
""",
        """
def solve(nums):
    nums = [x - $cost for x in nums]
    sums = []
    for i in range($length, len(nums) + 1):
        for j in range(i - $length + 1):
            sums.append(sum(nums[j:i]))
    return $pick(sums)
""",
    ),
    gross=(
        """
def solve(nums):
    values = [x - $cost for x in nums]
    return $pick(sum(values[i:i + $length]) for i in range(len(nums) - $length + 1))
""",
        """
def solve(nums):
    best = run = nums[0] - $cost
    for x in nums[1:]:
        run = $pick(run, 0) + x - $cost
        best = $pick(best, run)
    return best
""",
    ),
    subtle=(
        """
def solve(nums):
    scores = []
    for i in range(len(nums)):
        for j in range(i + $length, len(nums) + 1):
            scores.append(sum(nums[i:j]) - $cost)
    return $pick(scores)
""",
        """
def solve(nums):
    best = 0
    for i in range(len(nums)):
        for j in range(i + $length, len(nums) + 1):
            best = $pick(best, sum(nums[i:j]) - $cost * (j - i))
    return best
""",
    ),
)


MEDIUM_SUMS = (WINDOW_SUM, PAIR_COUNT, BEST_BLOCK)
