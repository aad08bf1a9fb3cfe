"""Medium families: sums of neighbours, pairs and counts."""

from __future__ import annotations

from itertools import combinations
from random import Random

from daj_lightning.data.bank.family import AT_MOST, LARGEST, LESS, SMALLEST, Family, Params, axis, holds, integers


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
    task="A window is a block of exactly $width consecutive values of nums. Find the $pick_words sum of a window. "
    "If nums has fewer than $width values, the answer is $missing.",
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
    draw=lambda p, rng, size: (integers(rng, size + p["width"] - 2, -20, 20),),
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
    space=([{**LESS, "bisect": "bisect_left"}, {**AT_MOST, "bisect": "bisect_right"}], axis("target", range(-3, 12))),
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
    task="The score of a block of consecutive values of nums is the sum of its values, minus $cost for each value in it. "
    "Find the $pick_words score of a block with at least $length values.",
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
    task="Find the $pick_words frequent value among those that occur in nums; of several such values, take the "
    "$tie_words. If it occurs fewer than $least times, the answer is $missing.",
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


MEDIUM_NUMBERS = (WINDOW_SUM, PAIR_COUNT, BEST_BLOCK, MODE_TIE)
