"""JSON read piece by piece: text of any size, memory of a piece.

The tests of one problem can be 100 MB of JSON, and a hostile file can be gigabytes of it. Python's reader
wants the whole text and builds whatever it says. This one holds a piece of the text at a time and reads
what an official row is made of, strings in flat objects, and refuses the rest where it begins.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

MAX_NAME_CHARS = 100
MAX_OTHER_CHARS = 2**20
"""Of a row's field that is no text: a list of ten bytes a character in memory is bearable up to here."""
_SPACE = re.compile(r"[ \t\n\r]*+")
_HALVES = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_ESCAPE_CHARS = 6
"""Of the longest escape, \\u1234."""
_STEP = 2**14


class JsonScanner:
    """What stands next in a text that arrives in pieces.

    Every method raises ValueError where the text is not what is asked for.
    """

    def __init__(self, pieces: Iterable[str]) -> None:
        self._pieces = iter(pieces)
        self._buffer, self._at = "", 0

    def peek(self) -> str:
        """The next character that is no white space; empty at the end of the text."""
        while True:
            self._at = _SPACE.match(self._buffer, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._more():
                return ""

    def take(self, wanted: str) -> str:
        """That character, which has to be one of `wanted`."""
        found = self.peek()
        if not found or found not in wanted:
            raise ValueError(
                f"found {found!r} where JSON needs {' or '.join(wanted)}" if found else "the text ends early"
            )
        self._at += 1
        return found

    def pieces_of_string(self) -> Iterator[str]:
        """The string that stands next, unescaped, in pieces; has to be read to its end."""
        self.take('"')
        while True:
            end, closed = self._string_part()
            part, self._at = self._buffer[self._at : end], end + closed
            if part:
                yield json.loads(f'"{part}"')
            if closed:
                return
            if not part and not self._more():
                raise ValueError("the text ends within a string")

    def string(self, max_chars: int | None = None) -> str:
        parts, length = [], 0
        for part in self.pieces_of_string():
            parts.append(part)
            length += len(part)
            if max_chars is not None and length > max_chars:
                raise ValueError(f"a string of more than {max_chars} characters where a short one was wanted")
        text = "".join(parts)
        if not text.isascii() and _HALVES.search(text):  # a character that came in two pieces
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return text

    def string_length(self) -> int:
        """Characters of the string that stands next, which is read and not kept."""
        return sum(map(len, self.pieces_of_string()))

    def other(self) -> Any:
        """A value that is no string and lies within the piece at hand: a short one."""
        self.peek()
        window = self._buffer[self._at : self._at + MAX_OTHER_CHARS]
        try:
            value, length = json.JSONDecoder().raw_decode(window)
        except RecursionError:
            raise ValueError("lists within lists, too deep to read") from None
        except json.JSONDecodeError as error:
            cut = len(window) == MAX_OTHER_CHARS
            raise ValueError(f"more than {MAX_OTHER_CHARS} characters that are no text" if cut else error.msg) from None
        self._at += length
        return value

    def members(self) -> Iterator[str]:
        """The names in the object that stands next; before it goes on, the caller reads the value."""
        self.take("{")
        if self.peek() == "}":
            self.take("}")
            return
        while True:
            name = self.string(MAX_NAME_CHARS)
            self.take(":")
            yield name
            if self.take(",}") == "}":
                return

    def elements(self) -> Iterator[None]:
        """One turn for each element of the list that stands next; the caller reads it."""
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return
        while True:
            yield None
            if self.take(",]") == "]":
                return

    def end(self) -> None:
        if self.peek():
            raise ValueError(f"found {self.peek()!r} behind the end")

    def _string_part(self) -> tuple[int, bool]:
        """Where the string's next part ends, and whether a closing quote stands there."""
        text, at = self._buffer, self._at
        quote = text.find('"', at)
        if quote == at or (quote > at and text[quote - 1] != "\\"):
            return quote, True
        if quote < 0 and "\\" not in text[max(at, len(text) - _ESCAPE_CHARS) :]:
            return len(text), False
        # Here and there a quote is escaped. Without the escapes of quote and backslash the next one closes; what
        # is then left of backslashes begins another escape, and the last may be cut off.
        part = text[at : at + _STEP].replace("\\\\", "__").replace('\\"', "__")
        quote = part.find('"')
        if quote >= 0:
            return at + quote, True
        last = part.rfind("\\", max(0, len(part) - _ESCAPE_CHARS))
        cut = last >= 0 and len(part) - last < (_ESCAPE_CHARS if part[last + 1 : last + 2] == "u" else 2)
        return at + (last if cut else len(part)), False

    def _more(self) -> bool:
        for piece in self._pieces:
            if piece:
                self._buffer, self._at = self._buffer[self._at :] + piece, 0
                return True
        return False


def flat_object(text: str) -> dict[str, Any]:
    """A JSON object whose long values are text: a row. Memory stays within a few times the text's own.

    Raises:
        ValueError: it is no such object.
    """
    scanner = JsonScanner([text])
    if scanner.peek() != "{":
        raise ValueError(f"holds no object: it begins with {text.strip()[:20]!r}")
    row: dict[str, Any] = {}
    for name in scanner.members():
        if name in row:
            raise ValueError(f"the field {name!r} stands there twice")
        try:
            row[name] = scanner.string() if scanner.peek() == '"' else scanner.other()
        except ValueError as error:
            raise ValueError(f"the field {name!r} cannot be read: {error}") from None
    scanner.end()
    return row
