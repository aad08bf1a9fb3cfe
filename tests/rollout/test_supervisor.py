"""A server of ours comes up or says why not, and goes with all its processes, whoever ends it and however."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from daj_lightning.rollout import RolloutError
from daj_lightning.rollout.supervisor import HOST, Supervisor, is_well
from daj_lightning.rollout.wire import ask

SERVER = """
import http.server, os, signal, subprocess, sys
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", stubborn], start_new_session=True)  # as far away as it can get
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{os.getpid()} {child.pid}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[-1])), Handler).serve_forever()
"""


def supervisor(tmp_path: Path, code: str = SERVER, port: int = 0, start_timeout_s: float = 20.0) -> Supervisor:
    return Supervisor([sys.executable, "-c", code], os.environ, port, tmp_path / "log", start_timeout_s)


def pids(address: str) -> list[int]:
    """Of the server and its child."""
    return [int(pid) for pid in ask(address, "/health", 5.0).body.split()]


def gone(pids: list[int], within_s: float) -> bool:
    end = time.monotonic() + within_s
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_a_stopped_server_leaves_no_process(tmp_path: Path) -> None:
    server = supervisor(tmp_path)
    address = server.start()
    family = pids(address)
    server.stop()
    assert gone(family, within_s=0)
    assert not is_well(address)
    server.stop()  # a second time does nothing


def test_a_killed_server_leaves_no_process(tmp_path: Path) -> None:
    server = supervisor(tmp_path)
    family = pids(server.start())
    os.kill(family[0], signal.SIGKILL)
    assert gone(family, within_s=2.0)
    server.stop()


def test_a_server_goes_with_its_killed_warden(tmp_path: Path) -> None:
    server = supervisor(tmp_path)
    family = pids(server.start())
    assert server.process is not None
    server.process.kill()
    assert gone(family[:1], within_s=2.0)
    os.kill(family[1], signal.SIGKILL)  # what the server itself had started is nobody's now
    server.stop()


CALLER = """
import os, sys, threading, time
from pathlib import Path
from daj_lightning.rollout.supervisor import Supervisor
server = Supervisor([sys.executable, "-c", sys.argv[2]], os.environ, 0, Path(sys.argv[1]), 20.0)
thread = threading.Thread(target=lambda: print(server.start(), flush=True))
thread.start()
thread.join()  # a server must survive the thread that started it
time.sleep(600)
"""


def test_a_server_survives_the_thread_that_started_it_and_goes_with_a_killed_caller(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CALLER, str(tmp_path / "log"), SERVER], stdout=subprocess.PIPE, text=True
    ) as caller:
        assert caller.stdout is not None
        address = caller.stdout.readline().strip()
        family = pids(address)
        time.sleep(0.5)
        assert is_well(address)
        caller.kill()
    assert gone(family, within_s=3.0)


def test_a_server_that_ends_at_once_says_what_it_said(tmp_path: Path) -> None:
    server = supervisor(tmp_path, "import sys; sys.exit('ValueError: no such model')")
    with pytest.raises(RolloutError, match=r"ended with 1 while it started.*\n.*ValueError: no such model"):
        server.start()


def test_the_cause_is_shown_though_the_log_goes_on(tmp_path: Path) -> None:
    code = "print('RuntimeError: out of memory'); [print('and then', i) for i in range(90)]; raise SystemExit(3)"
    with pytest.raises(RolloutError, match=r"(?s)RuntimeError: out of memory\nand then 65\n.*and then 89$"):
        supervisor(tmp_path, code).start()


def test_a_server_that_never_answers_is_ended_in_time(tmp_path: Path) -> None:
    server = supervisor(tmp_path, "print('loading', flush=True); import time; time.sleep(600)", start_timeout_s=1.5)
    begin = time.monotonic()
    with pytest.raises(RolloutError, match=r"did not come up within start_timeout_s=1\.5.*\nloading"):
        server.start()
    assert time.monotonic() - begin < 5
    assert server.process is None


def test_a_port_in_use_is_an_error_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(RolloutError, match=rf"port {port} is in use.*Set port of the rollout engine to 0"):
            supervisor(tmp_path, port=port).start()
    assert not (tmp_path / "log").exists()


def test_a_restarted_server_gets_its_port_again(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    server = supervisor(tmp_path, port=port)
    for _ in range(2):
        assert server.start() == f"http://{HOST}:{port}"
        server.stop()


def test_a_time_limit_counts_all_of_an_answer() -> None:
    """A byte now and then does not buy more time."""
    with socket.create_server((HOST, 0)) as listener:
        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                for _ in range(50):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return
                    time.sleep(0.1)

        thread = threading.Thread(target=serve)
        thread.start()
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            ask(f"http://{HOST}:{listener.getsockname()[1]}", "/", 0.6)
        assert time.monotonic() - begin < 2
        thread.join()
