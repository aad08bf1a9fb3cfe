"""JSON over HTTP to a server that may be slow, dead or something else: one connection a request, one time limit."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import threading
import time
import urllib.parse
from typing import Any, NamedTuple

KEY_VARIABLE = "VLLM_API_KEY"
"""vLLM's own name for the key that its server asks for."""
LONGEST_ANSWER = 2**31


class Answer(NamedTuple):
    """What a server said."""

    status: int
    body: bytes

    def words(self, chars: int = 600) -> str:
        """The start of the body on one line, for an error."""
        return " ".join(self.body[:chars].decode("utf-8", "replace").split()) or "nothing"


def ask(address: str, path: str, timeout_s: float, body: dict[str, Any] | None = None) -> Answer:
    """GET, or POST where there is a body.

    Args:
        address: scheme, host and port, e.g. "http://127.0.0.1:8000".
        timeout_s: of all of it; a socket's own limit starts anew with every byte.
    Raises:
        TimeoutError: no whole answer within the time limit.
        OSError: nobody is there, or the connection broke.
        http.client.HTTPException: what came is no HTTP, or ends too early.
    """
    end = time.monotonic() + timeout_s
    parts = urllib.parse.urlsplit(address)
    connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = connect(parts.hostname or "", parts.port, timeout=timeout_s)
    method, data = ("GET", None) if body is None else ("POST", json.dumps(body))
    headers = {"Content-Type": "application/json", "Connection": "close"}
    if key := os.environ.get(KEY_VARIABLE):
        headers["Authorization"] = f"Bearer {key}"
    try:
        connection.connect()
        with _ends_at(connection.sock, end):
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            received = response.read(LONGEST_ANSWER)
            if response.length:
                raise http.client.IncompleteRead(received, response.length)
            return Answer(response.status, received)
    except (OSError, http.client.HTTPException) as error:
        if time.monotonic() >= end:
            raise TimeoutError("timed out") from error
        raise
    finally:
        connection.close()


@contextlib.contextmanager
def _ends_at(sock: socket.socket, end: float) -> Any:
    """Inside, the connection breaks at the time `end`."""

    def shut() -> None:
        with contextlib.suppress(OSError):  # the peer was faster
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(end - time.monotonic(), shut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
