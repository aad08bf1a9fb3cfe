"""A server in a process of its own: started, watched, and ended with all that it started.

Between it and this process stands warden.py, so that it also goes when this process is killed.
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from daj_lightning.rollout import warden
from daj_lightning.rollout.engine import RolloutError
from daj_lightning.rollout.wire import ask

HOST = "127.0.0.1"
HEALTH_S = 10.0
"""Limit on asking whether a server is well."""
_POLL_S = 0.25
_SHOWN_LINES = 25
_SHOWN_BYTES = 2**18


class Supervisor:
    """Starts one server and starts it again.

    Args:
        command: without its port.
        environment: of the server, all of it.
        port: 0: a free one, another at every start.
        log: everything that it prints is appended here.
        start_timeout_s: from the start to the first answer of /health.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], port: int, log: Path, start_timeout_s: float
    ) -> None:
        self.command = command
        self.environment = environment
        self.port = port
        self.log = log
        self.start_timeout_s = start_timeout_s
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """The server's address, once it is well.

        Raises:
            RolloutError: the port is taken, the server ended, or did not come up in time.
        """
        port = take_port(self.port)
        address = f"http://{HOST}:{port}"
        with self.log.open("ab") as log:
            begin = log.tell()
            process = subprocess.Popen(
                [sys.executable, warden.__file__, str(os.getpid()), *self.command, "--port", str(port)],
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the trainer, which ends the server
            )
        self.process = process
        end = time.monotonic() + self.start_timeout_s
        while not is_well(address):
            status = process.poll()
            if status is not None:
                raise RolloutError(f"the rollout server ended with {status} while it started. {self.last_lines(begin)}")
            if time.monotonic() > end:
                self.stop()
                raise RolloutError(
                    f"the rollout server did not come up within start_timeout_s={self.start_timeout_s:g}. "
                    f"{self.last_lines(begin)}"
                )
            time.sleep(_POLL_S)
        return address

    def stop(self) -> None:
        """End it; on return none of its processes is left. A second call does nothing."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(3 * warden.GRACE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def last_lines(self, begin: int = 0) -> str:
        """What the log says since byte `begin`: the errors, which stand far above the end, and the end."""
        with self.log.open("rb") as file:
            file.seek(max(begin, file.seek(0, os.SEEK_END) - _SHOWN_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
        errors = list(dict.fromkeys(line for line in lines[:-_SHOWN_LINES] if "Error:" in line))[-5:]
        shown = "\n".join([*errors, *lines[-_SHOWN_LINES:]])
        return f"Its log ({self.log}) says:\n{shown or '(nothing)'}"


def take_port(port: int) -> int:
    """`port` itself, or for 0 a free one.

    Raises:
        RolloutError: somebody else has it.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free to a server
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise RolloutError(
                f"port {port} is in use ({error.strerror}). Set port of the rollout engine to 0 for a free one, or to "
                f"another; or name the server that runs there by its url."
            ) from error
        return int(probe.getsockname()[1])


def is_well(address: str, timeout_s: float = HEALTH_S) -> bool:
    """Whether /health answers so, in time."""
    try:
        return ask(address, "/health", timeout_s).status == 200
    except (OSError, http.client.HTTPException):
        return False
