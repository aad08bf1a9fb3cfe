"""One thread that leads all problems in the house: whoever comes joins between two batches of the judge."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import NamedTuple

from daj_lightning.records import Candidate, Problem
from daj_lightning.serving.screening import Screening
from daj_lightning.serving.selector import Choice, Docket, Selector

LOG = logging.getLogger("daj_lightning.serve")
CLOSE_LIMIT_S = 10.0


class JudgeFailed(RuntimeError):
    """The judge gave no answer; says what it ran into."""


class _Entry(NamedTuple):
    problem: Problem
    candidates: Sequence[Candidate]
    screening: Screening
    future: Future[Choice]


class Desk:
    """Takes problems, gives futures. A future that is cancelled takes its problem off before the next batch.

    Every future comes to an end, also if the thread does.

    Args:
        selector: asked from this thread alone.
    """

    def __init__(self, selector: Selector) -> None:
        self.docket = Docket(selector)
        self.waiting: dict[str, Future[Choice]] = {}
        self._door: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._is_open = True
        self._key = threading.Lock()
        """Held to come in, and to close."""
        self._thread = threading.Thread(target=self._work, name="daj-serve", daemon=True)
        self._thread.start()

    def submit(self, problem: Problem, candidates: Sequence[Candidate], screening: Screening) -> Future[Choice]:
        """The choice, once it has fallen; JudgeFailed where the judge failed."""
        future: Future[Choice] = Future()
        with self._key:
            if self._is_open:
                self._door.put(_Entry(problem, candidates, screening, future))
            else:
                future.set_exception(_ended())
        return future

    @property
    def is_well(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        """Let the thread end after its batch; whoever still waits gets JudgeFailed."""
        self._door.put(None)
        self._thread.join(CLOSE_LIMIT_S)

    def _work(self) -> None:
        try:
            while self._let_in():
                self._step()
        finally:
            self._turn_away()

    def _step(self) -> None:
        for key in [key for key, future in self.waiting.items() if future.cancelled()]:
            del self.waiting[key]
            self.docket.drop(key)
        if not self.docket:
            return
        try:
            finished = self.docket.step()
        except Exception as error:  # whatever it was: those of this batch are told, and the service goes on
            LOG.exception("the judge failed")
            for key in self.docket.last_asked:
                self.docket.drop(key)
                _settle(self.waiting.pop(key), error)
            return
        for key, choice in finished.items():
            _settle(self.waiting.pop(key), choice)

    def _turn_away(self) -> None:
        """Whoever waits, inside or before the door."""
        with self._key:
            self._is_open = False
        futures = list(self.waiting.values())
        with suppress(queue.Empty):
            while True:
                entry = self._door.get_nowait()
                futures += [entry.future] if entry else []
        for future in futures:
            with suppress(InvalidStateError):
                future.set_exception(_ended())

    def _let_in(self) -> bool:
        """Whoever has come; waits for somebody if nobody is here. False: the house is closed."""
        while True:
            try:
                entry = self._door.get(block=not self.docket)
            except queue.Empty:
                return True
            if entry is None:
                return False
            try:
                key = self.docket.add(entry.problem, entry.candidates, entry.screening)
            except Exception as error:  # a strategy's own
                LOG.exception("the strategy failed")
                _settle(entry.future, error)
            else:
                self.waiting[key] = entry.future


def _settle(future: Future[Choice], result: Choice | Exception) -> None:
    with suppress(InvalidStateError):  # whoever asked has gone
        if isinstance(result, Choice):
            future.set_result(result)
        else:
            reason = f"{type(result).__name__}: {str(result).removesuffix('.')}"
            failed = JudgeFailed(f"{reason}. So it did for all requests of this batch; try again.")
            failed.__cause__ = result
            future.set_exception(failed)


def _ended() -> JudgeFailed:
    return JudgeFailed("nobody asks it any more. Start the service again; its log says whether it was told to end.")
