"""Who comes in: so many requests at once, with bodies of a bounded size that arrive in time.

A body is counted while it is read, whatever the client says of its length, and no body is read for a request that
there is no room for: memory is bounded by room times size.
"""

from __future__ import annotations

import asyncio
import math
import time

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_LIMIT_S = 60.0
"""For all of a body."""
_LONGEST_RETRY_S = 60


class Room:
    """Requests in the house, and how long they stay."""

    def __init__(self, max_waiting: int) -> None:
        self.max_waiting = max_waiting
        self.waiting = 0
        self.stay_s = 1.0
        """Moving average."""

    @property
    def retry_after_s(self) -> int:
        """When somebody will have left, more likely than not."""
        return min(max(math.ceil(self.stay_s / 2), 1), _LONGEST_RETRY_S)


class Door:
    """ASGI middleware before POST requests.

    Args:
        app: what is behind it.
        room: shared with whoever tells how full it is.
        max_body_bytes: of a request.
    """

    def __init__(self, app: ASGIApp, room: Room, max_body_bytes: int) -> None:
        self.app = app
        self.room = room
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        room = self.room
        if room.waiting >= room.max_waiting:
            reason = (
                f"{room.waiting} requests wait, and no more than {room.max_waiting} may (--max_waiting). Try again in "
                f"{room.retry_after_s} s, as Retry-After says."
            )
            refusal = JSONResponse({"detail": reason}, 429, {"Retry-After": str(room.retry_after_s)})
            await refusal(scope, receive, send)
            return
        came = time.monotonic()
        room.waiting += 1
        try:
            await self.app(scope, self._counted(scope, receive, came + BODY_LIMIT_S), send)
        finally:
            room.waiting -= 1
            room.stay_s += 0.1 * (time.monotonic() - came - room.stay_s)

    def _counted(self, scope: Scope, receive: Receive, deadline: float) -> Receive:
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        received = 0
        whole = False

        async def counted() -> Message:
            nonlocal received, whole
            if whole:
                return await receive()
            if stated.isdigit() and int(stated) > self.max_body_bytes:
                raise self._too_large()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    message = await receive()
            except TimeoutError as error:
                raise HTTPException(408, f"the body took longer than {BODY_LIMIT_S:.0f} s.") from error
            received += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if received > self.max_body_bytes:
                raise self._too_large()
            return message

        return counted

    def _too_large(self) -> HTTPException:
        return HTTPException(
            413, f"the body has more than {self.max_body_bytes / 2**20:g} MiB (--max_body_mib). Send fewer candidates."
        )
