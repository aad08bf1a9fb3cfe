"""Which programs are spelled alike, and that no text can stop the spelling."""

from __future__ import annotations

import warnings

import pytest

from daj_lightning.data.canonical import canonical_program, without_comments

PROGRAM = """
from math import gcd
def solve(nums, k=3):
    total = 0
    for i, x in enumerate(nums):
        if x % k:
            total += sum(y for y in nums[:i])
    return gcd(total, k)
print(solve(list(map(int, input().split()))))
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    total = 0", "    # start\n\n    total=(0)"),
        ("    total = 0", '    """Sum what stands before."""\n    total = 0'),
        ("    total = 0", "    'a string that stands as a comment'\n    total = 0"),
        ("def solve(nums, k=3):", "def solve(nums: list[int], k: int=3) -> int:"),
        ("    total = 0", "    total: int = 0"),
        ("    total = 0", "    total: int\n    total = 0"),
        ("nums", "a"),
        ("total", "i2"),
        ("solve", "main"),
        ("(y for y in", "(x for x in"),  # another variable of the same name, in a scope of its own
        ("i, x", "x2, x"),
    ],
)
def test_layout_comments_hints_and_names_of_variables_do_not_count(old: str, new: str) -> None:
    changed = PROGRAM.replace(old, new)
    if (old, new) == ("i, x", "x2, x"):
        changed = changed.replace("[:i]", "[:x2]")
    assert changed != PROGRAM
    assert canonical_program(changed) == canonical_program(PROGRAM)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("k=3", "k=4"),
        ("k=3", "k=3.0"),
        ("total += sum", "total += max"),  # a builtin
        ("gcd", "lcm"),  # an import
        ("total, k)", "k, total)"),
        ("nums[:i]", "nums[i:]"),
        ("for y in nums", "for x in nums"),  # y is now unbound
        ("split()", "strip()"),  # an attribute
        ("    return gcd", "        return gcd"),
        ("if x %", "if i %"),
    ],
)
def test_what_a_program_does_counts(old: str, new: str) -> None:
    changed = PROGRAM.replace(old, new)
    assert changed != PROGRAM
    assert canonical_program(changed) != canonical_program(PROGRAM)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("class Solution:\n    def f(self, a): return a", "class Solution:\n    def f(this, b): return b", True),
        ("class Solution:\n    def f(self): pass", "class Solution:\n    def g(self): pass", False),  # called by name
        ("class Solution:\n    def f(self): pass", "class Answer:\n    def f(self): pass", False),
        ("class Tree: pass\nTree()", "class Node: pass\nNode()", True),
        ("class A:\n    x = 1\n    y = 2", "class A:\n    y = 1\n    x = 2", False),  # attributes
        (
            "x = 1\nclass A:\n    x = 2\n    def f(self): return x",
            "y = 1\nclass A:\n    x = 2\n    def f(self): return y",
            True,
        ),
        ("import numpy as np\nnp.sum", "import numpy as n\nn.sum", False),
        ("def f():\n    global a\n    a = 1\nf()", "def g():\n    global b\n    b = 1\ng()", True),
        ("a = 1\ndef f():\n    global a\n    a = 2", "a = 1\ndef f():\n    a = 2", False),
        (
            "def f():\n    a = 1\n    def g():\n        nonlocal a\n        a = 2",
            "def f():\n    a = 1\n    def g():\n        a = 2",
            False,
        ),
        ("try: pass\nexcept OSError as e: print(e)", "try: pass\nexcept OSError as err: print(err)", True),
        ("f = lambda a, b: a - b", "g = lambda b, a: b - a", True),
        ("f = lambda a, b: a - b", "f = lambda a, b: b - a", False),
        ("match v:\n    case [a, *b]: print(a, b)", "match v:\n    case [x, *y]: print(x, y)", True),
        ("print([(m := n) for n in range(3)], m)", "print([(q := p) for p in range(3)], q)", True),
        ("a = 1\nb = 2\nprint(a)", "a = 1\nb = 2\nprint(b)", False),
        ("sorted(v, key=len)", "sorted(v, cmp=len)", False),
        ("[x for x in x]", "[a for a in x]", True),  # the last x is another
    ],
)
def test_scopes_decide_which_names_are_the_programs_own(one: str, other: str, same: bool) -> None:
    assert (canonical_program(one) == canonical_program(other)) is same


def test_the_hints_of_a_class_body_count() -> None:
    """They are what a dataclass is made of."""
    body = "@dataclass\nclass Node:\n    {0}\n"
    assert canonical_program(body.format("size: int = 0")) != canonical_program(body.format("size = 0"))


def test_unfinished_programs_are_compared_by_depth_and_tokens_of_their_lines() -> None:
    one = "def f(a):\n  # walk\n  for x in a:\n\n    if x == 'a # b':"
    assert canonical_program(one) == canonical_program("def f( a ):\n    for x in a:\n        if x=='a # b':  # c")
    assert canonical_program(one) != canonical_program("def f(a):\n  for x in a:\n  if x == 'a # b':")
    assert canonical_program(one) != canonical_program("def f(a):\n  for x in a:\n    if x == 'a # c':")
    assert canonical_program(one) != canonical_program(one + "\n      return x")


@pytest.mark.parametrize(
    "code",
    [
        "a\0b",
        "(" * 50_000,
        "-" * 50_000 + "1",
        "1" + "+1" * 50_000,
        "a" + ".b" * 50_000,
        "lambda:" * 10_000 + "1",
        "x = " + "1" * 50_000,  # more digits than Python reads
        "x = 0x" + "f" * 50_000,  # it reads these, but does not write them
        "x = '\ud800'",
        "\n".join(" " * i + "if 1:" for i in range(1000)),
        "if a: pass\n" + "elif a: pass\n" * 3000,
        '\\"""' * 20_000,
        "\\" * 50_000,
    ],
    ids=[
        "null",
        "brackets",
        "minus",
        "sum",
        "attributes",
        "lambdas",
        "digits",
        "hex",
        "surrogate",
        "indentation",
        "elif",
        "quotes",
        "backslashes",
    ],
)
def test_code_that_python_cannot_parse_or_write_is_still_spelled(code: str) -> None:
    assert canonical_program(code) == canonical_program("# the same\n\n" + code)
    assert canonical_program(code) != canonical_program(code + "\nx")


def test_a_strange_escape_in_a_candidate_warns_nobody() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert canonical_program(r"x = '\d'") == canonical_program(r"y = '\d'")


def test_comments_go_and_strings_that_look_like_them_stay() -> None:
    code = 'a = \'# no\' # yes\nb = """\n# no\n"""#yes\nc = \'it\\\'s # no\'  # yes'
    assert without_comments(code) == 'a = \'# no\' \nb = """\n# no\n"""\nc = \'it\\\'s # no\'  '
    assert without_comments('x = """ # open') == 'x = """ # open'
