"""Unseen easy families: two strings woven into one, a tank filled and drained."""

from __future__ import annotations

from daj_lightning.data.bank.family import Family, Params, axis, integers, letters


def _weave_strings(p: Params, s: str, t: str) -> str:
    lead, follow = (s, t) if p["lead"] == "s" else (t, s)
    text = ""
    while lead or follow:
        text += lead[: p["first"]] + follow[: p["second"]]
        lead, follow = lead[p["first"] :], follow[p["second"] :]
    return text[::-1] if p["finish"] else text


WEAVE_STRINGS = Family(
    name="weave-strings",
    difficulty="easy",
    title="Woven Strings",
    method="weaveStrings",
    arguments={"s": "str", "t": "str"},
    returns="str",
    task="Weave the strings s and t: write the next $first letters of $lead, then the next $second letters "
    "of $follow, and so on until both are used up; a string with fewer letters left gives what it has. "
    "$finish_words.",
    limits="s and t have 1 to 9 lowercase letters",
    space=(
        [{"lead": "s", "follow": "t"}, {"lead": "t", "follow": "s"}],
        [
            {"first": first, "second": second}
            for first, second in ((1, 2), (2, 1), (2, 2), (2, 3), (3, 1), (3, 2), (1, 3), (3, 4))
        ],
        [
            {"finish": "", "finish_words": "Give the text"},
            {"finish": "[::-1]", "finish_words": "Give the text read backwards"},
        ],
    ),
    solve=_weave_strings,
    edges=lambda p: [
        ("a", "b"),
        ("abcdefghi", "z"),
        ("z", "abcdefghi"),
        ("abc", "xyz"),
        ("abcdef", "uvwxyz"),
        ("abcdefghi", "rstuvwxyz"),
        ("aaab", "baaa"),
        ("ab", "vwxyz"),
    ],
    draw=lambda p, rng, size: (
        letters(rng, min(9, rng.randint(1 + size // 3, size)), "abcdefgh"),
        letters(rng, min(9, rng.randint(1 + size // 3, size)), "stuvwxyz"),
    ),
    variants=(
        """
def solve(s, t):
    text = ''
    while s or t:
        text += $lead[:$first] + $follow[:$second]
        $lead = $lead[$first:]
        $follow = $follow[$second:]
    return text$finish
""",
        """
def solve(s, t):
    text = ''
    for i in range(max(len(s), len(t))):
        text += $lead[i * $first:(i + 1) * $first]
        text += $follow[i * $second:(i + 1) * $second]
    return text$finish
""",
        """
def solve(s, t):
    parts = []
    for i, c in enumerate($lead):
        parts.append((i // $first, 0, i, c))
    for i, c in enumerate($follow):
        parts.append((i // $second, 1, i, c))
    text = ''.join(c for _, _, _, c in sorted(parts))
    return text$finish
""",
        """
from itertools import zip_longest
def solve(s, t):
    a = [$lead[i:i + $first] for i in range(0, len($lead), $first)]
    b = [$follow[i:i + $second] for i in range(0, len($follow), $second)]
    text = ''.join(x + y for x, y in zip_longest(a, b, fillvalue=''))
    return text$finish
""",
    ),
    gross=(
        """
def solve(s, t):
    text = ''
    while s or t:
        text += $follow[:$second] + $lead[:$first]
        $lead = $lead[$first:]
        $follow = $follow[$second:]
    return text$finish
""",
        """
def solve(s, t):
    text = ''
    for i in range(max(len(s), len(t))):
        text += $lead[i:i + 1] + $follow[i:i + 1]
    return text$finish
""",
    ),
    subtle=(
        """
def solve(s, t):
    text = ''
    while s and t:
        text += $lead[:$first] + $follow[:$second]
        $lead = $lead[$first:]
        $follow = $follow[$second:]
    return text$finish
""",
        """
def solve(s, t):
    text = ''
    for i in range(len($lead)):
        text += $lead[i * $first:(i + 1) * $first]
        text += $follow[i * $second:(i + 1) * $second]
    return text$finish
""",
    ),
)


def _tank(p: Params, nums: list[int]) -> int:
    level, lost, short, full, dry = p["start"], 0, 0, 0, 0
    for x in nums:
        wanted = level + x
        level = max(0, min(p["cap"], wanted))
        lost, short = lost + max(wanted - level, 0), short + max(level - wanted, 0)
        full, dry = full + (level == p["cap"]), dry + (level == 0)
    return int({"lost": lost, "short": short, "full": full, "dry": dry}[p["measure"]])


TANK = Family(
    name="tank-level",
    difficulty="easy",
    title="Level of a Tank",
    method="tankLevel",
    arguments={"nums": "ints"},
    returns="int",
    task="A tank holds at most $cap litres and has $start litres at first. The values of nums are added one "
    "after another; a negative value takes litres out. What would rise above $cap is lost, and what would "
    "fall below 0 is missing: the level stops there. Find $measure_words.",
    limits="1 <= n <= 12, -20 <= nums[i] <= 20",
    space=(
        axis("cap", [8, 10, 13]),
        axis("start", [2, 4, 6]),
        [
            {
                "measure": "lost",
                "measure_words": "how many litres are lost in total",
                "gain": "max(level + x - cap, 0)",
            },
            {
                "measure": "short",
                "measure_words": "how many litres are missing in total",
                "gain": "max(-level - x, 0)",
            },
            {
                "measure": "full",
                "measure_words": "after how many of the values the tank is full",
                "gain": "(level + x >= cap)",
            },
            {
                "measure": "dry",
                "measure_words": "after how many of the values the tank is empty",
                "gain": "(level + x <= 0)",
            },
        ],
    ),
    solve=_tank,
    edges=lambda p: [
        ([p["cap"] - p["start"]],),
        ([-p["start"]],),
        ([p["cap"] - p["start"] + 1, -p["cap"] - 1],),
        ([-p["start"] - 1, p["cap"] + 1],),
        ([20, -20, 20, -20, 20],),
        ([-9, 5, -9, 5, 12, -4, 7],),
        ([0, 0, 0],),
        ([15, 1, -p["cap"], -6, p["cap"], 1, -3, 4],),
    ],
    draw=lambda p, rng, size: (integers(rng, size, -p["cap"], p["cap"]),),
    variants=(
        """
def solve(nums):
    level, cap, total = ($start, $cap, 0)
    for x in nums:
        total += $gain
        level = max(min(level + x, cap), 0)
    return total
""",
        """
def solve(nums):
    level, cap, total = ($start, $cap, 0)
    for x in nums:
        total = total + $gain
        level += x
        if level > cap:
            level = cap
        elif level < 0:
            level = 0
    return total
""",
        """
from itertools import accumulate
def solve(nums):
    cap = $cap
    sums = accumulate(nums, lambda level, x: max(0, min(level + x, cap)), initial=$start)
    return sum($gain for level, x in zip(sums, nums))
""",
    ),
    gross=(
        """
def solve(nums):
    level, cap, total = ($start, $cap, 0)
    for x in nums:
        total += $gain
        level += x
    return total
""",
        """
def solve(nums):
    level, cap, total = ($start, $cap, 0)
    for x in nums:
        total += $gain
    return total
""",
    ),
    subtle=(
        """
def solve(nums):
    level, cap, total = ($start, $cap, 0)
    for x in nums:
        total += $gain
        level = min(level + x, cap)
    return total
""",
        """
def solve(nums):
    level, cap, total = ($start, $cap, 0)
    for x in nums:
        total += $gain
        level = max(level + x, 0)
    return total
""",
    ),
)

UNSEEN_EASY = (WEAVE_STRINGS, TANK)
