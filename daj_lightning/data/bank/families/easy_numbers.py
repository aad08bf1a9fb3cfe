"""Easy families: values and digits taken one by one."""

from __future__ import annotations

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


def _count_between(p: Params, nums: list[int]) -> int:
    return sum(holds(x, p["above"], p["low"]) and holds(x, p["below"], p["high"]) for x in nums)


COUNT_BETWEEN = Family(
    name="count-between",
    difficulty="easy",
    title="Values Between Two Limits",
    method="countBetween",
    arguments={"nums": "ints"},
    returns="int",
    task="Count the values of nums that are $above_words $low and also $below_words $high. Equal values at "
    "different positions count separately.",
    limits="1 <= n <= 12, -30 <= nums[i] <= 30",
    space=(
        [{"above": ">", "above_words": "greater than"}, {"above": ">=", "above_words": "at least"}],
        [{"below": "<", "below_words": "less than"}, {"below": "<=", "below_words": "at most"}],
        [{"low": low, "high": low + gap} for low in range(-6, 9) for gap in (5, 8, 11)],
    ),
    solve=_count_between,
    edges=lambda p: [
        ([p["low"]],),
        ([p["high"]],),
        ([p["low"] - 1, p["low"] + 1],),
        ([p["high"] - 1, p["high"] + 1],),
        ([p["low"] + 2] * 6,),
        ([30, p["high"], p["low"], -30],),
        ([p["high"], p["high"] + 1, p["low"], p["low"] - 1, p["low"] + 1, p["high"] - 1],),
    ],
    draw=lambda p, rng, size: (integers(rng, size, p["low"] - 5, p["high"] + 5),),
    variants=(
        """
def solve(nums):
    total = 0
    for x in nums:
        if x $above $low and x $below $high:
            total += 1
    return total
""",
        """
def solve(nums):
    return sum(1 for x in nums if x $above $low and x $below $high)
""",
        """
def solve(nums):
    kept = [x for x in nums if x $above $low]
    kept = [x for x in kept if x $below $high]
    return len(kept)
""",
        """
def solve(nums):
    total = len(nums)
    for x in nums:
        if not x $above $low or not x $below $high:
            total -= 1
    return total
""",
    ),
    gross=(
        """
def solve(nums):
    return sum(x for x in nums if x $above $low and x $below $high)
""",
        """
def solve(nums):
    total = 0
    for x in nums:
        if x $above $low:
            total += 1
        if x $below $high:
            total += 1
    return total
""",
    ),
    subtle=(
        """
def solve(nums):
    kept = set()
    for x in nums:
        if x $above $low and x $below $high:
            kept.add(x)
    return len(kept)
""",
    ),
)


def _rank_distinct(p: Params, nums: list[int]) -> int:
    values = sorted(set(nums), reverse=p["pick"] == "max")
    return values[p["rank"] - 1] if len(values) >= p["rank"] else p["missing"]


RANK_DISTINCT = Family(
    name="rank-distinct",
    difficulty="easy",
    title="Ranked Distinct Value",
    method="rankedValue",
    arguments={"nums": "ints"},
    returns="int",
    task="List the distinct values of nums from $order_words. Find the value at place $rank of this list, "
    "where places start at 1. If there are fewer than $rank distinct values, the answer is $missing.",
    limits="1 <= n <= 12, 1 <= nums[i] <= 30",
    space=(
        [
            {"order_words": "largest to smallest", "pick": "max", "reverse": "True"},
            {"order_words": "smallest to largest", "pick": "min", "reverse": "False"},
        ],
        axis("rank", [2, 3, 4]),
        axis("missing", [-1, 0, 50, 99]),
    ),
    solve=_rank_distinct,
    edges=lambda p: [
        ([7],),
        ([4] * 6,),
        (list(range(2, 2 + p["rank"])),),
        (list(range(2, 1 + p["rank"])),),
        ([9, 9, 5, 5, 2, 2, 12, 12],),
        ([30, 1, 30, 1, 17, 17, 8, 21],),
        ([3, 3, 3, 6, 6, 8, 8, 1, 1],),
    ],
    draw=lambda p, rng, size: (integers(rng, size, 1, 8) if size > 4 else rng.sample(range(1, 31), size),),
    variants=(
        """
def solve(nums):
    values = sorted(set(nums), reverse=$reverse)
    if len(values) < $rank:
        return $missing
    return values[$rank - 1]
""",
        """
def solve(nums):
    values = set(nums)
    for _ in range($rank - 1):
        values.discard($pick(values, default=0))
    return $pick(values) if values else $missing
""",
        """
def solve(nums):
    values = []
    for x in sorted(nums, reverse=$reverse):
        if x not in values:
            values.append(x)
    return values[$rank - 1] if len(values) >= $rank else $missing
""",
    ),
    gross=(
        """
def solve(nums):
    values = sorted(nums, reverse=$reverse)
    if len(values) < $rank:
        return $missing
    return values[$rank - 1]
""",
        """
def solve(nums):
    values = list(set(nums))
    return values[$rank - 1] if len(values) >= $rank else $missing
""",
    ),
    subtle=(
        """
def solve(nums):
    if len(nums) < $rank:
        return $missing
    values = sorted(set(nums), reverse=$reverse)
    return values[min($rank, len(values)) - 1]
""",
    ),
)


def _digit_sum(p: Params, n: int) -> int:
    total = 0
    while n:
        n, digit = divmod(n, p["base"])
        total += digit * holds(digit, p["op"], p["limit"])
    return total


DIGIT_SUM = Family(
    name="digit-sum",
    difficulty="easy",
    title="Sum of Chosen Digits",
    method="digitSum",
    arguments={"n": "int"},
    returns="int",
    task="Write the number n in base $base. Add up those of its digits that are $op_words $limit; all other"
    " digits are ignored. If no digit qualifies, the answer is 0. Give the sum as an ordinary decimal "
    "number.",
    limits="0 <= n <= 1000000",
    space=(COMPARISONS, axis("base", [5, 6, 7, 8, 9]), axis("limit", [2, 3])),
    solve=_digit_sum,
    edges=lambda p: [
        (0,),
        (1,),
        (p["base"] - 1,),
        (p["base"],),
        (p["limit"],),
        (p["limit"] + 1,),
        (p["base"] ** 3 * p["limit"] + p["limit"] - 1,),
        (p["base"] ** 4 - 1,),
    ],
    draw=lambda p, rng, size: (rng.randint(10 ** min(size // 2, 4), 10 ** min(size // 2 + 1, 6)),),
    variants=(
        """
def solve(n):
    total = 0
    while n > 0:
        digit = n % $base
        if digit $op $limit:
            total += digit
        n //= $base
    return total
""",
        """
def solve(n):
    total = 0
    while n:
        n, digit = divmod(n, $base)
        total += digit if digit $op $limit else 0
    return total
""",
        """
def solve(n):
    digits = []
    while n > 0:
        digits.append(n % $base)
        n //= $base
    return sum(d for d in digits if d $op $limit)
""",
    ),
    gross=(
        """
def solve(n):
    total = 0
    while n > 0:
        if n % $base $op $limit:
            total += 1
        n //= $base
    return total
""",
        """
def solve(n):
    digits = [int(c) for c in str(n)]
    return sum(d for d in digits if d $op $limit)
""",
    ),
    subtle=(
        """
def solve(n):
    total = 0
    while n >= $base:
        digit = n % $base
        if digit $op $limit:
            total += digit
        n //= $base
    return total
""",
        """
def solve(n):
    digits = set()
    while n > 0:
        digits.add(n % $base)
        n //= $base
    return sum(d for d in digits if d $op $limit)
""",
    ),
)


def _cap_and_drop(p: Params, nums: list[int]) -> int:
    values = [min(x, p["high"]) for x in nums if holds(x, p["op"], p["low"])]
    return {"sum": sum(values), "distinct": len(set(values)), "squares": sum(v * v for v in values)}[p["result"]]


CAP_AND_DROP = Family(
    name="cap-and-drop",
    difficulty="easy",
    title="Keep and Cap",
    method="keepAndCap",
    arguments={"nums": "ints"},
    returns="int",
    task="Keep only the values of nums that are $op_words $low, and lower every kept value above $high to "
    "$high. Find $result_words. If nothing is kept, the answer is 0.",
    limits="1 <= n <= 12, -30 <= nums[i] <= 30",
    space=(
        (GREATER, AT_LEAST),
        [{"low": low, "high": low + gap} for low in range(-3, 5) for gap in (4, 7)],
        [
            {"result": "sum", "result_words": "the sum of the new values", "agg": "sum(values)"},
            {
                "result": "distinct",
                "result_words": "how many distinct new values there are",
                "agg": "len(set(values))",
            },
            {
                "result": "squares",
                "result_words": "the sum of their squares",
                "agg": "sum(v * v for v in values)",
            },
        ],
    ),
    solve=_cap_and_drop,
    edges=lambda p: [
        ([p["low"]],),
        ([p["low"] - 1],),
        ([p["high"] + 1],),
        ([-30, -20],),
        ([p["low"] + 1] * 4,),
        ([p["high"], p["high"] + 1, p["high"] - 1, p["low"], p["low"] + 1],),
        ([30, -30, 29, p["low"], p["low"] - 1, p["high"] - 1],),
    ],
    draw=lambda p, rng, size: (integers(rng, size, p["low"] - 4, p["high"] + 4),),
    variants=(
        """
def solve(nums):
    values = []
    for x in nums:
        if x $op $low:
            values.append(min(x, $high))
    return $agg
""",
        """
def solve(nums):
    values = [min(x, $high) for x in nums if x $op $low]
    return $agg
""",
        """
def solve(nums):
    kept = filter(lambda x: x $op $low, nums)
    values = [x if x < $high else $high for x in kept]
    return $agg
""",
    ),
    gross=(
        """
def solve(nums):
    values = [max(x, $low) for x in nums if x < $high]
    return $agg
""",
        """
def solve(nums):
    values = []
    for x in nums:
        values.append(min(max(x, $low), $high))
    return $agg
""",
    ),
    subtle=(
        """
def solve(nums):
    values = [x for x in nums if x $op $low and x <= $high]
    return $agg
""",
        """
def solve(nums):
    values = []
    for x in nums:
        if abs(x) $op $low:
            values.append(min(x, $high))
    return $agg
""",
    ),
)

EASY_NUMBERS = (COUNT_BETWEEN, RANK_DISTINCT, DIGIT_SUM, CAP_AND_DROP)
