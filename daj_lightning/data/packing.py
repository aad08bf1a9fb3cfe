"""LiveCodeBench's tests, as text: JSON, or base64 of zlib of a pickle of JSON.

A pickle of a download can run code and a zlib stream can unfold to gigabytes. So nothing is unpickled: the
few operations that a pickled string is made of are read here, and any other is refused by its name. And
nothing is unfolded further than it is read: everything flows in pieces of a megabyte, and a text that says
it is longer than the cap is refused before it comes.
"""

from __future__ import annotations

import binascii
import codecs
import pickletools
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from daj_lightning.data.json_stream import MAX_NAME_CHARS, JsonScanner

MIB = 2**20
DEFAULT_CAP_MIB = 256
"""Of one problem's tests when unpacked."""
TEST_TYPES = ("stdin", "functional")
_PIECE = 2**20
_FIELDS = ("input", "output", "testtype")
_MAX_OPERATIONS = 16
_LENGTH_BYTES = {b"X": 4, b"\x8c": 1, b"\x8d": 8}
"""Operations that push a string -> bytes of its length: BINUNICODE, SHORT_BINUNICODE, BINUNICODE8."""
_SKIPPED = {b"\x80": 1, b"\x95": 8, b"\x94": 0, b"q": 1, b"r": 4}
"""Operations without an effect on a lone string -> bytes behind them: PROTO, FRAME, MEMOIZE, BINPUT, LONG_BINPUT."""


class RawTest(NamedTuple):
    """A test as it stands in the file."""

    input: str
    output: str
    testtype: str
    num_chars: int
    """Of input and output."""


def read_tests(pieces: Iterable[str], cap_bytes: int, *, keep: bool = True) -> Iterator[RawTest]:
    """The tests in a text, one at a time.

    Args:
        pieces: of the text.
        cap_bytes: of the JSON when unpacked, at most.
        keep: False: input and output are checked and dropped, for their number of characters alone.
    Raises:
        ValueError: what is wrong with them.
    """
    scanner = JsonScanner(_json(pieces, cap_bytes))
    if scanner.peek() != "[":
        raise ValueError(f"no JSON list, nor a pickle of the text of one: it begins with {scanner.peek()!r}")
    for number, _ in enumerate(scanner.elements(), start=1):
        try:
            yield _test(scanner, keep)
        except ValueError as error:
            raise ValueError(f"test {number}: {error}") from None
    scanner.end()


def _test(scanner: JsonScanner, keep: bool) -> RawTest:
    found: dict[str, str] = {}
    num_chars = 0
    if scanner.peek() != "{":
        raise ValueError(f"is no object, it begins with {scanner.peek()!r}")
    for name in scanner.members():
        if name not in _FIELDS or name in found:
            raise ValueError(f"has the field {name!r} {'twice' if name in found else ''}; wanted {', '.join(_FIELDS)}")
        if scanner.peek() != '"':
            raise ValueError(f"its {name} is not text, it begins with {scanner.peek()!r}")
        if name == "testtype":
            found[name] = scanner.string(MAX_NAME_CHARS)
        elif keep:
            found[name] = scanner.string()
            num_chars += len(found[name])
        else:
            found[name] = ""
            num_chars += scanner.string_length()
    missing = [name for name in _FIELDS if name not in found]
    if missing:
        raise ValueError(f"lacks {missing}")
    if found["testtype"] not in TEST_TYPES:
        raise ValueError(f"has the testtype {found['testtype']!r}; wanted {' or '.join(TEST_TYPES)}")
    return RawTest(found["input"], found["output"], found["testtype"], num_chars)


def _json(pieces: Iterable[str], cap_bytes: int) -> Iterator[str]:
    """JSON text as it is; anything else through base64, zlib and pickle."""
    rest = iter(pieces)
    first = next((piece for piece in rest if piece.strip()), "")
    if not first:
        raise ValueError("the tests are an empty text; wanted a JSON list, or the official packing of one")
    if first.lstrip()[0] == "[":
        return _capped(_chain(first, rest), cap_bytes)
    return _packed(_chain(first, rest), cap_bytes)


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _capped(pieces: Iterator[str], cap_bytes: int) -> Iterator[str]:
    length = 0
    for piece in pieces:
        length += len(piece)
        if length > cap_bytes:
            raise _too_long(cap_bytes)
        yield piece


def _too_long(cap_bytes: int) -> ValueError:
    return ValueError(
        f"the tests unfold to more than {cap_bytes} bytes; refused. Raise max_tests_mib of the source if they are real"
    )


def _packed(pieces: Iterator[str], cap_bytes: int) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("surrogatepass")  # as pickle writes
    try:
        for piece in _unpickled(_inflated(_from_base64(pieces)), cap_bytes):
            yield decoder.decode(piece)
        yield decoder.decode(b"", final=True)
    except (binascii.Error, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"the tests are neither a JSON list nor the official packing of one: {error}") from None


def _from_base64(pieces: Iterable[str]) -> Iterator[bytes]:
    left = ""
    for piece in pieces:
        text = left + piece
        whole = len(text) // 4 * 4
        left = text[whole:]
        if whole:
            if not text.isascii():
                raise binascii.Error("a character that base64 does not have")
            yield binascii.a2b_base64(text[:whole], strict_mode=True)
    if left:
        raise binascii.Error("the base64 text is cut off")


def _inflated(chunks: Iterable[bytes]) -> Iterator[bytes]:
    stream = zlib.decompressobj()
    for chunk in chunks:
        if stream.eof:
            raise zlib.error("bytes behind the end of the zlib stream")
        while chunk:
            yield stream.decompress(chunk, _PIECE)
            chunk = stream.unconsumed_tail
        if stream.unused_data:
            raise zlib.error("bytes behind the end of the zlib stream")
    while not stream.eof:
        piece = stream.decompress(b"", _PIECE)
        if not piece:
            raise zlib.error("the zlib stream is cut off")
        yield piece


class _Bytes:
    """A byte stream, of which the next few can be asked for."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = b""

    def some(self, most: int) -> bytes:
        """At most so many of the next bytes; none at the end."""
        while not self._buffer:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._buffer = chunk
        taken, self._buffer = self._buffer[:most], self._buffer[most:]
        return taken

    def exactly(self, number: int) -> bytes:
        taken = b""
        while len(taken) < number:
            more = self.some(number - len(taken))
            if not more:
                raise ValueError("the pickled tests are cut off")
            taken += more
        return taken


def _unpickled(chunks: Iterator[bytes], cap_bytes: int) -> Iterator[bytes]:
    """The UTF-8 of the one string in a pickle; no operation is carried out."""
    source, found = _Bytes(chunks), False
    for _ in range(_MAX_OPERATIONS):
        operation = source.exactly(1)
        if operation in _SKIPPED:
            source.exactly(_SKIPPED[operation])
        elif operation in _LENGTH_BYTES and not found:
            found = True
            left = int.from_bytes(source.exactly(_LENGTH_BYTES[operation]), "little")
            if left > cap_bytes:
                raise _too_long(cap_bytes)
            while left:
                piece = source.some(left)
                if not piece:
                    raise ValueError("the pickled tests are cut off")
                left -= len(piece)
                yield piece
        elif operation == b"." and found:
            if source.some(1):
                raise ValueError("bytes behind the end of the pickled tests")
            return
        else:
            known = {op.code.encode("latin-1"): op.name for op in pickletools.opcodes}
            raise ValueError(
                f"the packed tests hold the pickle operation {known.get(operation, operation)!r}; "
                f"wanted a pickle of JSON text and nothing else"
            )
    raise ValueError(f"the packed tests hold a pickle of more than {_MAX_OPERATIONS} operations, wanted one string")
