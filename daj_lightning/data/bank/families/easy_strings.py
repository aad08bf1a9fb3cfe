"""Easy families: strings turned into other strings."""

from __future__ import annotations

from itertools import groupby
from random import Random
from typing import Any

from daj_lightning.data.bank.family import AT_LEAST, GREATER, Family, Params, axis, holds, letters


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
    task="Rotate the string s by $amount places to the $side: $amount times, $once. Then $then and give the"
    " resulting string.",
    limits="s has 1 to 12 lowercase letters",
    space=(
        [
            {
                "side": "left",
                "sign": "+",
                "turn": "s[k:] + s[:k]",
                "once": "its first letter moves to the end",
            },
            {
                "side": "right",
                "sign": "-",
                "turn": "s[-k:] + s[:-k]",
                "once": "its last letter moves to the front",
            },
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
    task="Split s into maximal blocks of one repeated letter. Write a block whose length is $op_words "
    "$limit as $form_words, and $rest_words. Give the joined text.",
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
    draw=lambda p, rng, size: (_blocks(p, rng, size),),
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


def _blocks(p: Params, rng: Random, size: int) -> str:
    """Blocks about as long as the limit."""
    return "".join(c * rng.randint(1, p["limit"] + 1) for c in letters(rng, size // 2 + 1, "abc"))[:16]


def _shift_letters(p: Params, s: str) -> str:
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    amount = p["amount"] if p["sign"] == "+" else -p["amount"]
    chosen = {
        "i % 2 == 0": [i % 2 == 0 for i in range(len(s))],
        "c in 'aeiou'": [c in "aeiou" for c in s],
        "c not in 'aeiou'": [c not in "aeiou" for c in s],
    }[p["test"]]
    return "".join(alphabet[(alphabet.index(c) + amount) % 26] if yes else c for c, yes in zip(s, chosen, strict=True))


SHIFT_LETTERS = Family(
    name="shift-letters",
    difficulty="easy",
    title="Shifted Letters",
    method="shiftLetters",
    arguments={"s": "str"},
    returns="str",
    task="In the string s, replace every letter $test_words by the letter $amount places $direction in the "
    "alphabet, where $wrap. Leave all other letters as they are, and give the resulting string.",
    limits="s has 1 to 14 lowercase letters",
    space=(
        [
            {"sign": "+", "direction": "later", "wrap": "a comes again after z"},
            {"sign": "-", "direction": "earlier", "wrap": "z comes again before a"},
        ],
        [
            {"test": "i % 2 == 0", "test_words": "at a place 1, 3, 5 and so on"},
            {"test": "c in 'aeiou'", "test_words": "that is one of a, e, i, o, u"},
            {"test": "c not in 'aeiou'", "test_words": "that is none of a, e, i, o, u"},
        ],
        axis("amount", [2, 3, 5, 7, 9, 11]),
    ),
    solve=_shift_letters,
    edges=lambda p: [
        ("a",),
        ("z",),
        ("u",),
        ("mlmlnk",),
        ("aeiouaeiou",),
        ("zyxwvutsrqpo",),
        ("abcdefghijklmn",),
        ("bcdfghjklxz",),
    ],
    draw=lambda p, rng, size: (letters(rng, size, "aeioubmlzyx"),),
    variants=(
        """
def solve(s):
    text = ''
    for i, c in enumerate(s):
        if $test:
            c = chr((ord(c) - 97 $sign $amount) % 26 + 97)
        text += c
    return text
""",
        """
def solve(s):
    letters = 'abcdefghijklmnopqrstuvwxyz'
    parts = []
    for i, c in enumerate(s):
        k = letters.index(c)
        parts.append(letters[(k $sign $amount) % 26] if $test else c)
    return ''.join(parts)
""",
        """
def solve(s):
    letters = 'abcdefghijklmnopqrstuvwxyz'
    turned = letters[$sign$amount:] + letters[:$sign$amount]
    text = ''
    for i, c in enumerate(s):
        text += turned[letters.index(c)] if $test else c
    return text
""",
    ),
    gross=(
        """
def solve(s):
    text = ''
    for i, c in enumerate(s):
        if not $test:
            c = chr((ord(c) - 97 $sign $amount) % 26 + 97)
        text += c
    return text
""",
        """
def solve(s):
    letters = 'abcdefghijklmnopqrstuvwxyz'
    turned = letters[$sign$amount:] + letters[:$sign$amount]
    text = ''
    for c in s:
        text += turned[letters.index(c)]
    return text
""",
    ),
    subtle=(
        """
def solve(s):
    text = ''
    for i, c in enumerate(s):
        if $test:
            c = chr(min(max(ord(c) $sign $amount, 97), 122))
        text += c
    return text
""",
        """
def solve(s):
    text = ''
    for i, c in enumerate(s):
        if $test:
            c = chr((ord(c) - 97 $sign $amount) % 25 + 97)
        text += c
    return text
""",
    ),
)

EASY_STRINGS = (ROTATE_STRING, RUN_LENGTH, SHIFT_LETTERS)
