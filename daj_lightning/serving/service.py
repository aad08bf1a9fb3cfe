"""`serve`: an exported judge behind HTTP, on FastAPI and uvicorn.

A request goes through the door (door.py), is checked, screened by its public tests if the service is a hybrid, and
waits for its choice at the desk (desk.py), where all that wait share the judge's batches.
"""

from __future__ import annotations

import asyncio
import hashlib
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request as HttpRequest
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from daj_lightning.judge import Strategy
from daj_lightning.records import Candidate, DajError, Judgment
from daj_lightning.rollout import RolloutEngine
from daj_lightning.serving.desk import Desk, JudgeFailed
from daj_lightning.serving.door import Door, Room
from daj_lightning.serving.rows import Group, group_from_row
from daj_lightning.serving.schema import Answer, Compared, Health, Hybrid, Refusal, Request
from daj_lightning.serving.screening import Screener, Screening, unscreened
from daj_lightning.serving.selector import Choice, Selector

LEFT_INTERVAL_S = 0.5
"""How often a waiting request looks whether its client is still there."""
DRAIN_LIMIT_S = 120
"""From SIGTERM on; whoever waits longer is cut off."""
_SHOWN_ERRORS = 5
_SHOWN_CHARS = 50
"""Of a field's name, which is the client's."""
_REFUSALS: dict[int | str, dict[str, Any]] = {
    408: {"model": Refusal, "description": "the body did not arrive in time"},
    413: {"model": Refusal, "description": "the body is too large"},
    422: {"model": Refusal, "description": "the request cannot be answered as it is"},
    429: {"model": Refusal, "description": "too many requests wait; Retry-After says when to try again"},
    500: {"model": Refusal, "description": "the judge or the sandbox failed"},
}


def serve(
    judge: str,
    strategy: Strategy,
    batch_size: int,
    engine: RolloutEngine | None,
    screener: Screener | None,
    *,
    host: str,
    port: int,
    max_waiting: int,
    max_body_mib: float,
    max_candidates: int,
) -> None:
    """Load the judge, answer until SIGTERM or an interrupt, and then whoever still waits.

    Raises:
        DajError: an option that cannot be, no such judge, or an address that cannot be had.
    """
    if max_waiting < 1 or max_candidates < 1 or max_body_mib <= 0:
        raise DajError(
            f"wanted max_waiting and max_candidates >= 1 and max_body_mib > 0; got {max_waiting}, {max_candidates} and "
            f"{max_body_mib}."
        )
    try:
        listener = socket.create_server((host, port))
    except (OSError, OverflowError) as error:  # no such port
        reason = getattr(error, "strerror", None) or error
        raise DajError(f"cannot listen on {host}:{port}: {reason}. Give another --host or --port.") from error
    with listener:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn drains first, then raises it again
        selector = Selector(judge, strategy, batch_size, engine, screener)
        room = Room(max_waiting)
        app = build_app(selector, judge, room, round(max_body_mib * 2**20), max_candidates)
        # h11: the pure Python parser, so that the same one runs everywhere.
        config = uvicorn.Config(
            app, http="h11", ws="none", log_level="warning", access_log=False, timeout_graceful_shutdown=DRAIN_LIMIT_S
        )
        try:
            print(f"serving {judge} at http://{host}:{listener.getsockname()[1]}/select (openapi.json)", flush=True)
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            selector.close()


def build_app(selector: Selector, judge: str, room: Room, max_body_bytes: int, max_candidates: int) -> FastAPI:
    """The service without its server."""
    house = _House(selector, judge, room, max_candidates)
    # No page of documentation: it would load its scripts from elsewhere.
    app = FastAPI(title="DAJ", docs_url=None, redoc_url=None, lifespan=house.lifespan)
    app.add_middleware(Door, room=room, max_body_bytes=max_body_bytes)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.post("/select", responses=_REFUSALS, summary="Choose one of the candidates")(house.select)
    failing: dict[int | str, dict[str, Any]] = {503: {"model": Health, "description": "failing"}}
    app.get("/health", response_model=Health, responses=failing, summary="Can a request be answered?")(house.health)
    return app


class _House:
    """The handlers and what they share."""

    def __init__(self, selector: Selector, judge: str, room: Room, max_candidates: int) -> None:
        self.selector = selector
        self.judge = judge
        self.room = room
        self.max_candidates = max_candidates
        self.kitchen = asyncio.Lock()
        """One request's programs are executed at a time, num_workers of them at once."""

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        self.desk = Desk(self.selector)
        try:
            yield
        finally:
            await run_in_threadpool(self.desk.close)

    async def select(self, asked: Request, http: HttpRequest) -> Answer:
        """The candidate that is most likely to pass every hidden test, by the judge's comparisons."""
        problem, candidates = group = await run_in_threadpool(self._checked, asked)
        screening = await self._screened(group, http)
        future = asyncio.wrap_future(self.desk.submit(problem, candidates, screening))
        try:
            while not future.done():
                await asyncio.wait([future], timeout=LEFT_INTERVAL_S)
                if not future.done() and await http.is_disconnected():
                    raise _gone()
            choice = future.result()
        except JudgeFailed as error:
            raise HTTPException(500, f"the judge failed: {error}") from error
        finally:
            future.cancel()  # of no consequence once it is done; else the desk drops the problem
        return _answer(problem.problem_id, candidates, choice)

    def health(self) -> JSONResponse:
        """Asks the engine, and repairs nothing."""
        is_well = self.desk.is_well and self.selector.engine.health()
        told = Health(
            status="ok" if is_well else "failing",
            waiting=self.room.waiting,
            max_waiting=self.room.max_waiting,
            judge=self.judge,
            strategy=str(self.selector.strategy),
        )
        return JSONResponse(told.model_dump(), 200 if is_well else 503)

    def _checked(self, asked: Request) -> Group:
        if len(asked.candidates) > self.max_candidates:
            raise HTTPException(
                422, f"{len(asked.candidates)} candidates; at most {self.max_candidates} (--max_candidates)."
            )
        row = asked.model_dump()
        row["problem_id"] = (
            asked.problem_id or hashlib.sha256(asked.statement.encode("utf-8", "replace")).hexdigest()[:12]
        )
        try:
            group = group_from_row(row, "the request")
            reason = self.selector.misfit(*group)
        except DajError as error:
            raise HTTPException(422, str(error)) from error
        if reason:
            raise HTTPException(422, f"{reason}. Shorten the statement or the candidates.")
        return group

    async def _screened(self, group: Group, http: HttpRequest) -> Screening:
        screener = self.selector.screener
        if screener is None:
            return unscreened(group[1])
        async with self.kitchen:
            if await http.is_disconnected():  # while others were served
                raise _gone()
            try:
                return await run_in_threadpool(lambda: next(screener.screen([group])))
            except DajError as error:
                raise HTTPException(500, str(error)) from error


def _gone() -> HTTPException:
    return HTTPException(499, "the client has gone.")


def _answer(problem_id: str, candidates: Sequence[Candidate], choice: Choice) -> Answer:
    chosen = choice.selection
    winner = chosen.winner
    screening = choice.screening
    about = max(screening.kept, key=chosen.votes.__getitem__) if winner is None else winner
    name = candidates[about].candidate_id
    return Answer(
        problem_id=problem_id,
        selected=winner,
        candidate_id=None if winner is None else name,
        abstained=winner is None,
        votes=list(chosen.votes),
        confidence=chosen.confidence,
        num_comparisons=chosen.num_comparisons,
        num_invalid=chosen.num_invalid,
        reasoning=[_compared(judgment) for judgment in choice.judgments if name in judgment.comparison.candidate_ids],
        hybrid=Hybrid.model_validate(screening.row()) if screening.note else None,
    )


def _compared(judgment: Judgment) -> Compared:
    return Compared(
        candidate_ids=list(judgment.comparison.candidate_ids),
        selection=judgment.selection,
        response=judgment.response,
    )


async def _malformed(http: HttpRequest, error: Exception) -> JSONResponse:
    """What was wrong, without the body: it may be long."""
    assert isinstance(error, RequestValidationError)
    found = []
    for entry in error.errors()[:_SHOWN_ERRORS]:
        place = ".".join(str(part)[:_SHOWN_CHARS] for part in entry["loc"] if part != "body")
        found.append(f"{place}: {entry['msg']}" if place else f"{entry['msg']} {entry.get('ctx', {}).get('error', '')}")
    wanted = 'wanted a JSON object {"statement": text, "candidates": [code, ...]} with Content-Type: application/json'
    return JSONResponse({"detail": f"{'; '.join(found).strip()}. {wanted}; /openapi.json says all."}, 422)
