"""The program of a response is the longest block that parses, reduced to what the entry point needs."""

from __future__ import annotations

import ast
import random
import time
from typing import Any

import pytest

from daj_lightning.data.sanitize import MAX_PARSED_LINES, longest_block, sanitize

PROGRAM = """\
import math
from collections import Counter

LIMIT = 3

class Box:
    side = LIMIT

def helper(x):
    return Box.side + x

def task_func(x):
    return helper(x) + math.floor(0.5)"""


def defined_by(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def longest_by_trying_all(text: str) -> str:
    """The rule as it is worded: every run of lines, one after the other."""
    lines = text.split("\n")
    best, most = (0, 1), 0
    for start in range(len(lines)):
        for end in range(start + 2, len(lines) + 1):
            filled = sum(bool(line.strip()) for line in lines[start:end])
            try:
                ast.parse("\n".join(lines[start:end]))
            except SyntaxError:
                continue
            if filled > most:
                best, most = (start, end), filled
    return "\n".join(lines[slice(*best)])


def test_the_program_is_found_among_prose_and_fences() -> None:
    response = f"Sure! This solves it.\n\n```python\n{PROGRAM}\n```\n\nIt handles the edge cases well.\n"
    assert longest_block(response) == PROGRAM
    assert sanitize(response, "task_func") == sanitize(PROGRAM, "task_func")


def test_of_two_blocks_the_longer_one_is_taken_and_of_equal_ones_the_first() -> None:
    short, long = "a = 1\nb = 2", "c = 3\nd = 4\ne = 5"
    for text in (f"{short}\n```\n{long}", f"{long}\n```\n{short}"):
        assert longest_block(text) == long
    assert longest_block("a = 1\nb = 2\n```\nc = 3\nd = 4") == short


def test_without_a_block_the_first_line_is_the_program() -> None:
    assert longest_block("I cannot do that.\nAsk me something else.") == "I cannot do that."
    assert sanitize("", "task_func") == ""


def test_the_search_finds_what_trying_every_run_finds() -> None:
    """On damaged programs, whose errors the parser reports at, before or behind the place."""
    rng = random.Random(0)
    damage = [
        "x = (1,",
        '"""',
        'f"""{a!',
        "\\",
        "    pass",
        "}",
        "try:",
        "",
        'print(f"{x + }")',
        "\tq",
        "(a",
        "a = 1 \\",
    ]
    for _ in range(150):
        lines = PROGRAM.split("\n")
        for _ in range(rng.randint(1, 4)):
            lines.insert(rng.randint(0, len(lines)), rng.choice(damage))
        text = "\n".join(lines)
        assert longest_block(text).rstrip() == longest_by_trying_all(text).rstrip()


def test_what_the_entry_point_does_not_reach_goes() -> None:
    unused = """

UNUSED = 5

def unused():
    return UNUSED

print(task_func(1))
if __name__ == "__main__":
    unused()"""
    assert sanitize(PROGRAM + unused, "task_func") == "\n".join(line for line in PROGRAM.split("\n") if line)


def test_imports_stay_though_nothing_uses_them() -> None:
    assert "from collections import Counter" in sanitize(PROGRAM, "task_func")


def test_a_local_variable_of_the_same_name_keeps_no_example_call() -> None:
    code = "def task_func():\n    result = 1\n    return result\n\nresult = task_func()"
    assert "result = task_func()" not in sanitize(code, "task_func")


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        (
            "from functools import cache\n@cache\ndef helper(x):\n    return 7\ndef task_func():\n    return helper(0)",
            7,
        ),
        ("a, b = 3, 4\ndef task_func():\n    return a + b", 7),
        ("TABLE = [0]\nTABLE[0] = 7\ndef task_func():\n    return TABLE[0]", 7),
        ("total = 3\ntotal += 4\ndef task_func():\n    return total", 7),
        (
            "try:\n    import absent as lib\nexcept ImportError:\n    lib = 7\ndef task_func():\n    return lib",
            7,
        ),
        ("def task_func():\n    return 0\ndef task_func():\n    return 7", 7),
        ("seven = lambda: 7\ntask_func = lambda: seven()", 7),
        ("def task_func(): return 7\nx = 1", 7),
        ("x = 3; y = 4\ndef task_func(): return x + y", 7),
        ("class Base:\n    n = 7\nclass Box(Base):\n    pass\ndef task_func():\n    return [Box.n for _ in '1'][0]", 7),
        ("def outer():\n    global n\n    n = 7\nn = 0\ndef task_func():\n    outer()\n    return n", 7),
        ("text = '''\n  seven\n'''\ndef task_func():\n    return len(text)", 9),
        ("def default():\n    return 7\ndef task_func(x=default()):\n    return x", 7),
    ],
)
def test_what_the_entry_point_needs_stays(code: str, answer: int) -> None:
    """Run whole and sanitized."""
    assert defined_by(code)["task_func"]() == answer
    assert defined_by(sanitize(code, "task_func"))["task_func"]() == answer


def test_a_change_to_a_module_of_others_goes() -> None:
    code = "import unittest\nunittest.TestCase.fail = None\ndef task_func():\n    return unittest"
    assert sanitize(code, "task_func") == "import unittest\ndef task_func():\n    return unittest"


def test_a_block_without_the_entry_point_stays_whole() -> None:
    code = "import math\nx = 1\ndef solve():\n    return x"
    assert sanitize(code, "task_func") == code


@pytest.mark.parametrize(
    "code", [PROGRAM, "I cannot.\nNo.", "x = 1\n\0\ny = 2\nz = 3", "def task_func():\n    return 1"]
)
def test_sanitizing_twice_is_sanitizing_once(code: str) -> None:
    once = sanitize(code, "task_func")
    assert sanitize(once, "task_func") == once


@pytest.mark.parametrize(
    "hostile",
    [
        "x = 1\n\0\ny = 2\nz = 3",
        "x = 1\n\ud800 = 2\ny = 2\nz = 3",
        "(" * 100_000 + "\ny = 2\nz = 3",
        "x = " + "-" * 100_000 + "1\ny = 2\nz = 3",
        "x" + ".a" * 50_000 + "\ny = 2\nz = 3",
    ],
    ids=["null byte", "surrogate", "brackets", "signs", "attributes"],
)
def test_text_that_breaks_the_parser_costs_only_its_own_lines(hostile: str) -> None:
    assert "y = 2\nz = 3" in sanitize(hostile, "task_func")


def test_the_search_ends_after_a_bounded_number_of_lines() -> None:
    """Lines that all end in a backslash: no run of them parses, and each is refused at its very end."""
    text = "\n".join(["x + \\"] * 3000)
    begun = time.monotonic()
    assert longest_block(text) == "x + \\"
    assert time.monotonic() - begun < 20  # trying every run would parse 3,000 ** 3 / 6 lines
    assert len(text.split("\n")) ** 2 > MAX_PARSED_LINES
