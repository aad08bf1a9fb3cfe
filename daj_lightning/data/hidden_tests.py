"""Tests that stay on disk until they are asked for.

A release of LiveCodeBench unpacks to more text than a machine has memory, and a grader wants one problem's
tests at a time, the same ones for each candidate, from several threads. So a problem knows where its tests
lie, and a cache with a limit holds those that were asked for last.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import overload

from daj_lightning.data.packing import MIB, read_tests
from daj_lightning.records import DajError, TestCase

_BYTES_A_TEST = 200
"""Of a record and two empty strings, which a thousand small tests are mostly made of."""


class TestCache:
    """The tests that were asked for last, up to a limit; for any number of threads."""

    __test__ = False  # pytest: not a test class

    def __init__(self, max_bytes: int = 32 * MIB) -> None:
        self.max_bytes = max_bytes
        self._held: OrderedDict[HiddenTests, tuple[TestCase, ...]] = OrderedDict()
        self._held_bytes = 0
        self._lock = threading.Lock()

    def get(self, tests: HiddenTests) -> tuple[TestCase, ...] | None:
        with self._lock:
            if tests in self._held:
                self._held.move_to_end(tests)
            return self._held.get(tests)

    def put(self, tests: HiddenTests, decoded: tuple[TestCase, ...]) -> None:
        with self._lock:
            self._held[tests] = decoded
            self._held_bytes += tests.num_bytes
            while self._held_bytes > self.max_bytes:
                self._held_bytes -= self._held.popitem(last=False)[0].num_bytes


class HiddenTests(Sequence[TestCase]):
    """One problem's tests; every iteration reads them anew, unless the cache holds them.

    Args:
        name: of the problem, for errors.
        pieces: the text of the tests, from its beginning with each call.
        cap_bytes: of the unpacked text.
        num_tests: how many there are; whoever makes this has read them once.
        num_chars: of all inputs and outputs.
        cache: shared by the problems of a source.
    """

    def __init__(
        self,
        name: str,
        pieces: Callable[[], Iterable[str]],
        cap_bytes: int,
        num_tests: int,
        num_chars: int,
        cache: TestCache,
    ) -> None:
        self.name = name
        self.num_bytes = num_chars + _BYTES_A_TEST * num_tests
        """What they take in memory, about."""
        self._pieces = pieces
        self._cap_bytes = cap_bytes
        self._num_tests = num_tests
        self._cache = cache
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._num_tests

    def __iter__(self) -> Iterator[TestCase]:
        if self.num_bytes > self._cache.max_bytes:
            return self._read()  # one at a time, for every reader
        with self._lock:  # the first of several threads reads, the others wait for it
            decoded = self._cache.get(self)
            if decoded is None:
                decoded = tuple(self._read())
                self._cache.put(self, decoded)
        return iter(decoded)

    @overload
    def __getitem__(self, index: int) -> TestCase: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[TestCase, ...]: ...
    def __getitem__(self, index: int | slice) -> TestCase | tuple[TestCase, ...]:
        chosen = range(self._num_tests)[index]
        if isinstance(chosen, int):
            return next(itertools.islice(iter(self), chosen, None))
        wanted = set(chosen)
        found = {place: test for place, test in enumerate(self) if place in wanted}
        return tuple(found[place] for place in chosen)

    def _read(self) -> Iterator[TestCase]:
        number = 0
        try:
            for raw in read_tests(self._pieces(), self._cap_bytes):
                number += 1
                yield TestCase(raw.input, raw.output)
        except ValueError as error:
            raise DajError(f"{self.name}: {error}; its file changed since it was checked. Start again.") from error
        if number != self._num_tests:
            raise DajError(
                f"{self.name}: {number} tests in a file that held {self._num_tests}; it changed. Start again."
            )
