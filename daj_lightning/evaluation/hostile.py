"""Texts from outside, made harmless to look at: statements, programs, responses, names.

Escaping is the writers' (Jinja2's autoescape, markdown.py). Here is what escaping leaves alone: characters that are
invisible, that turn the direction of the text around them, or that no file may hold; and sheer length.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

TEXT_LIMIT = 8_000
"""Characters shown of a statement, a program or a response."""
NAME_LIMIT = 120

_FORMAT = re.compile(
    "[\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff\x80-\x9f]"
)
"""Invisible characters, those that turn the direction of writing, line ends that are none in a program."""
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f]")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Quote:
    """A text from outside, cut to what is shown."""

    text: str
    left_out: int = 0
    """Characters that were cut off."""

    @property
    def note(self) -> str:
        return f"{self.left_out:,} more characters are not shown." if self.left_out else ""


@dataclass(frozen=True, slots=True)
class Line:
    text: str
    marked: bool
    """The other text lacks it."""


def visible(text: str) -> str:
    """Nothing hidden and nothing that cannot be written to a file.

    NUL and its like become their pictures (U+2400 onwards), directional marks and zero-width characters their code
    points in brackets, lone surrogates U+FFFD.
    """
    text = text.replace("\r\n", "\n")
    text = _CONTROL.sub(lambda found: chr(0x2400 + ord(found[0])), text).replace("\x7f", "\u2421")
    text = _FORMAT.sub(lambda found: f"[U+{ord(found[0]):04X}]", text)
    return _SURROGATE.sub("\ufffd", text)


def quote(text: str, limit: int = TEXT_LIMIT) -> Quote:
    """The first `limit` characters, made visible."""
    return Quote(visible(text[:limit]).strip("\n"), max(0, len(text) - limit))


def name(text: str, limit: int = NAME_LIMIT) -> str:
    """On one line, cut with an ellipsis."""
    text = " ".join(visible(text[: 4 * limit]).split())
    return text if len(text) <= limit else text[: limit - 1] + "\u2026"


def compare_lines(first: str, second: str) -> tuple[list[Line], list[Line]]:
    """Both texts line by line; marked what the other lacks.

    Texts with little in common are not marked: all of them would be.
    """
    lines = first.splitlines(), second.splitlines()
    matcher = difflib.SequenceMatcher(None, *lines, autojunk=False)
    if matcher.ratio() < 0.2:
        return [Line(line, False) for line in lines[0]], [Line(line, False) for line in lines[1]]
    common = [block for block in matcher.get_matching_blocks() if block.size]
    shared = (
        {line for block in common for line in range(block.a, block.a + block.size)},
        {line for block in common for line in range(block.b, block.b + block.size)},
    )
    marked = [
        [Line(line, i not in same) for i, line in enumerate(side)] for side, same in zip(lines, shared, strict=True)
    ]
    return marked[0], marked[1]
