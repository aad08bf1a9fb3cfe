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
MAX_LINE = 500
"""Longer lines are compared as a whole."""
MAX_LINES = 400
"""Longer texts are not compared: made for it, they would take minutes."""

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
class Part:
    text: str
    marked: bool
    """The other text lacks it."""


@dataclass(frozen=True, slots=True)
class Line:
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts)

    @property
    def marked(self) -> bool:
        return any(part.marked for part in self.parts)


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
    """Both texts line by line; marked what the other lacks, words where lines are alike and else whole lines.

    Texts with little in common are not marked, since nearly all of them would be, nor are very long ones.
    """
    left, right = first.splitlines(), second.splitlines()
    plain = [[Line((Part(line, False),)) for line in side] for side in (left, right)]
    if max(len(left), len(right)) > MAX_LINES:
        return plain[0], plain[1]
    lines: tuple[list[Line], list[Line]] = [], []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, left, right).get_opcodes():
        if tag == "replace" and b - a == d - c:
            for pair in zip(left[a:b], right[c:d], strict=True):
                for side, parts in zip(lines, _compare_words(*pair), strict=True):
                    side.append(Line(parts))
        else:
            lines[0].extend(Line((Part(line, tag != "equal"),)) for line in left[a:b])
            lines[1].extend(Line((Part(line, tag != "equal"),)) for line in right[c:d])
    if all(_share_marked(side) > 0.8 for side in lines):
        return plain[0], plain[1]
    return lines


def _compare_words(first: str, second: str) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Two lines that stand for each other."""
    words: list[list[str]] = [re.findall(r"\w+|\s+|[^\w\s]", line[:MAX_LINE]) for line in (first, second)]
    matcher = difflib.SequenceMatcher(None, words[0], words[1])
    if len(first) > MAX_LINE or len(second) > MAX_LINE or matcher.ratio() < 0.6:
        return (Part(first, True),), (Part(second, True),)
    parts: tuple[list[Part], list[Part]] = [], []
    for tag, a, b, c, d in matcher.get_opcodes():
        for side, own in ((parts[0], words[0][a:b]), (parts[1], words[1][c:d])):
            if own:
                side.append(Part("".join(own), tag != "equal"))
    return tuple(parts[0]), tuple(parts[1])


def _share_marked(lines: list[Line]) -> float:
    sizes = [(len(part.text), part.marked) for line in lines for part in line.parts]
    return sum(size for size, marked in sizes if marked) / max(1, sum(size for size, _ in sizes))
