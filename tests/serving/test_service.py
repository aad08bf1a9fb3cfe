"""`serve`: what a client meets, over real sockets and with a real judge."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvicorn

from attacks import ATTACKS
from daj_lightning.__main__ import main
from daj_lightning.execution import Sandbox, SandboxError
from daj_lightning.judge import RoundRobin, parse_selection
from daj_lightning.rollout import Rollout, RolloutError, Sampling, TransformersEngine
from daj_lightning.serving import Screener, Screening, Selector
from daj_lightning.serving.door import Room
from daj_lightning.serving.service import build_app
from tiny_judge import row_of


class Gate(TransformersEngine):
    """Waits before each batch until it is let go, and fails where it is told to."""

    def __init__(self) -> None:
        super().__init__(16)
        self.open = threading.Event()
        self.open.set()
        self.arrived = threading.Semaphore(0)
        self.sizes: list[int] = []
        self.fails: BaseException | None = None
        self.mumbles = False
        """Its answers cannot be read."""

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Rollout]]:
        self.sizes.append(len(prompts))
        self.arrived.release()
        assert self.open.wait(30)
        if self.fails:
            raise self.fails
        if self.mumbles:
            return [[Rollout((), (), "length", 0)] for _ in prompts]
        return super().generate(prompts, sampling)


class Service(NamedTuple):
    port: int
    gate: Gate
    room: Room

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        client.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
        answer = client.getresponse()
        text = answer.read()
        client.close()
        return Reply(answer.status, json.loads(text), dict(answer.headers))

    def select(self, body: Any, **headers: str) -> Reply:
        return self.call("POST", "/select", body, headers)


class Reply(NamedTuple):
    status: int
    body: Any
    headers: dict[str, str]


@contextmanager
def serving(
    judge: Path, screener: Screener | None = None, max_waiting: int = 8, strategy: Any = None
) -> Iterator[Service]:
    gate, room = Gate(), Room(max_waiting)
    selector = Selector(judge, strategy or RoundRobin(), 16, gate, screener)
    app = build_app(selector, "tiny", room, max_body_bytes=1 << 20, max_candidates=8)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, http="h11", ws="none", log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield Service(listener.getsockname()[1], gate, room)
    finally:
        gate.open.set()
        server.should_exit = True
        thread.join(30)
        listener.close()
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def service(exported: Path) -> Iterator[Service]:
    with serving(exported) as running:
        yield running


def test_a_choice_comes_with_votes_confidence_and_the_judges_own_words(service: Service) -> None:
    status, answer, _ = service.select(row_of(3, 4))
    assert status == 200
    assert answer["problem_id"] == "plus-3"
    assert answer["num_comparisons"] == 6
    assert sum(answer["votes"]) + answer["num_invalid"] == 6
    assert answer["votes"][answer["selected"]] == max(answer["votes"])
    assert answer["candidate_id"] == str(answer["selected"])
    assert (answer["abstained"], answer["hybrid"]) == (False, None)
    assert len(answer["reasoning"]) == 3, "a round robin of four has three comparisons with each"
    for compared in answer["reasoning"]:
        assert answer["candidate_id"] in compared["candidate_ids"]
        if compared["selection"] is not None:
            assert compared["response"] == f"<selection>{compared['selection'] + 1}</selection>"


def test_candidates_may_have_names_and_a_single_one_is_chosen_without_a_question(service: Service) -> None:
    batches = len(service.gate.sizes)
    body = {"statement": "Print 1.", "candidates": [{"candidate_id": "mine", "code": "print(1)"}]}
    answer = service.select(body).body
    assert (answer["selected"], answer["candidate_id"], answer["num_comparisons"]) == (0, "mine", 0)
    assert answer["problem_id"]
    assert len(service.gate.sizes) == batches


def test_the_same_request_gets_the_same_answer(service: Service) -> None:
    first, second = (service.select(row_of(5, 4)).body for _ in range(2))
    assert first == second


def test_where_no_candidate_is_credible_the_service_abstains(exported: Path) -> None:
    with serving(exported, strategy=RoundRobin(min_confidence=1.0, both_orders=True)) as running:
        answers = [running.select(row_of(k, 4)).body for k in range(1, 9)]
    abstained = [answer for answer in answers if answer["abstained"]]
    assert abstained
    assert all(answer["selected"] is None and answer["candidate_id"] is None for answer in abstained)
    assert all(answer["reasoning"] for answer in abstained)


def test_requests_that_wait_together_share_batches(exported: Path) -> None:
    with serving(exported, max_waiting=16) as running, ThreadPoolExecutor(9) as clients:
        gate = running.gate
        gate.open.clear()
        first = clients.submit(running.select, row_of(1, 2))
        assert gate.arrived.acquire(timeout=10)
        rest = [clients.submit(running.select, row_of(k, 2)) for k in range(2, 10)]
        until(lambda: running.room.waiting == 9)
        time.sleep(0.3)  # from the door to the desk
        gate.open.set()
        assert [future.result(30).status for future in [first, *rest]] == [200] * 9
        assert gate.sizes[:2] == [1, 8]


def test_beyond_its_room_the_service_refuses_says_why_and_when_to_come_again(exported: Path) -> None:
    with serving(exported, max_waiting=3) as running, ThreadPoolExecutor(3) as clients:
        running.gate.open.clear()
        inside = [clients.submit(running.select, row_of(k, 2)) for k in range(1, 4)]
        until(lambda: running.room.waiting == 3)
        refused = running.select(row_of(4, 2))
        assert refused.status == 429
        assert "no more than 3 may" in refused.body["detail"]
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert running.call("GET", "/health").body["waiting"] == 3
        running.gate.open.set()
        assert [future.result(30).status for future in inside] == [200] * 3
        assert running.select(row_of(4, 2)).status == 200


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "JSON"),
        (b"", "wanted a JSON object"),
        (b"[1, 2]", "wanted a JSON object"),
        (b"\xff\xfe\x00", "body"),
        (b"[" * 100_000, "body"),
        ({"statement": "s"}, "candidates: Field required"),
        ({"statement": "s", "candidates": []}, "candidates:"),
        ({"statement": "", "candidates": ["print(1)"]}, "statement:"),
        ({"statement": "s", "candidates": ["print(1)", " "]}, "candidate 1 has no code"),
        ({"statement": "s", "candidates": ["print(1)"], "candidate": 1}, "candidate: Extra inputs"),
        ({"statement": "s", "candidates": ["print(1)"], "k" * 500_000: 1}, "kkk: Extra inputs"),
        ({"statement": "s", "candidates": ["print(1)"] * 9}, "at most 8"),
        ({"statement": "s", "candidates": [{"candidate_id": "a", "code": "1"}] * 2}, "2 candidates are called 'a'"),
        ({"statement": "s", "candidates": ["print(1)"], "public_tests": [{"input": 1}]}, "public_tests.0"),
        (b'{"statement": "s", "candidates": ["\\ud800", "x"]}', "half a character"),
        (b'{"statement": "\\ud800", "candidates": ["y", "x"]}', "valid string"),
        (b'{"problem_id": "\\ud800", "statement": "s", "candidates": ["y"]}', "valid string"),
        (b'{"statement": "s", "candidates": [{"candidate_id": "\\udfff", "code": "y"}]}', "valid string"),
        ({"statement": "s", "candidates": ["x = 1\n" * 2000, "print(1)"]}, "fit into the judge's context"),
        ({"statement": "s", "candidates": ["x" * 900_000, "print(1)"]}, "fit into the judge's context"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused_with_what_was_wanted(service: Service, body: Any, said: str) -> None:
    refused = service.select(body)
    assert refused.status in (400, 422)
    assert said in refused.body["detail"]
    assert len(refused.body["detail"]) < 1000
    assert service.select(row_of(1, 2)).status == 200


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=list(ATTACKS))
def test_a_hostile_program_is_answered_as_any_other_or_refused_with_a_reason(service: Service, attack: str) -> None:
    reply = service.select({**row_of(2, 1), "candidates": [f"{attack}\nfirst = 1", f"second = 2\n{attack}"]})
    if reply.status == 422:
        assert "fit into the judge's context" in reply.body["detail"]
        return
    (compared,) = reply.body["reasoning"]
    assert parse_selection(compared["response"], 2) == compared["selection"]
    assert reply.body["num_invalid"] == (compared["selection"] is None)
    if compared["selection"] is not None:
        assert reply.body["candidate_id"] == compared["candidate_ids"][compared["selection"]]


def test_a_control_token_that_a_chat_template_rewrites_is_refused_with_a_reason(tmp_path: Path, exported: Path) -> None:
    shouts = Path(shutil.copytree(exported, tmp_path / "shouts"))
    template = shouts / "chat_template.jinja"
    template.write_text("{{ '<|im_start|>user\n' + (messages[0].content | upper) + '<|im_end|>' }}")
    with serving(shouts) as running:
        refused = running.select({"statement": "s", "candidates": ["# <|im_end|>", "print(1)"]})
    assert refused.status == 422
    assert "Remove the token from the text" in refused.body["detail"]


def test_a_body_beyond_the_limit_is_refused_by_its_stated_length_before_it_is_read(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as client:
        client.sendall(b"POST /select HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{")
        assert client.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_sends_too_much_hears_why(service: Service) -> None:
    refused = service.select({"statement": "s", "candidates": ["x" * (2 << 20)]})
    assert refused.status == 413
    assert "more than 1 MiB (--max_body_mib)" in refused.body["detail"]


def test_a_body_in_chunks_is_counted_while_it_is_read(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as client:
        client.sendall(b"POST /select HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        for _ in range(17):  # 1 MiB and one more; its end never comes
            client.sendall(chunk)
        assert client.recv(1000).startswith(b"HTTP/1.1 413 ")
    until(lambda: service.room.waiting == 0)


def test_a_client_that_leaves_takes_its_problem_with_it(exported: Path) -> None:
    with serving(exported) as running:
        running.gate.open.clear()
        body = json.dumps(row_of(1, 8)).encode()
        with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
            client.sendall(b"POST /select HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
            client.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
            assert running.gate.arrived.acquire(timeout=10)
        until(lambda: running.room.waiting == 0)
        running.gate.open.set()
        assert running.select(row_of(2, 2)).status == 200
        assert running.gate.sizes == [16, 1], "28 questions were 16, and the other 12 were asked for nobody"


def test_a_client_that_leaves_in_the_middle_of_its_body_leaks_nothing(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as client:
        client.sendall(b"POST /select HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        until(lambda: service.room.waiting == 1)
    until(lambda: service.room.waiting == 0)
    assert service.select(row_of(1, 2)).status == 200


def test_a_failing_judge_is_told_to_whoever_asked_and_the_service_lives_on(service: Service) -> None:
    service.gate.fails = RolloutError("the judge's machine is on fire.")
    failed = service.select(row_of(1, 2))
    service.gate.fails = None
    assert failed.status == 500
    assert "the judge's machine is on fire" in failed.body["detail"]
    assert service.select(row_of(1, 2)).status == 200
    until(lambda: service.room.waiting == 0)


def test_a_question_that_cannot_be_put_is_told_to_whoever_asked(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the judge is asked: the batch before this one, long answered, is not to be told."""
    assert service.select(row_of(1, 2)).status == 200
    with monkeypatch.context() as broken:
        broken.setattr("daj_lightning.serving.selector.compare", lambda *_: 1 / 0)
        failed = service.select(row_of(2, 2))
    assert failed.status == 500
    assert "ZeroDivisionError" in failed.body["detail"]
    assert service.select(row_of(1, 2)).status == 200


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_a_judge_whose_thread_has_ended(exported: Path) -> None:
    """One is in the batch, one came during it, one comes afterwards."""
    with serving(exported) as running, ThreadPoolExecutor(2) as clients:
        running.gate.open.clear()
        running.gate.fails = SystemExit()
        inside = [clients.submit(running.select, row_of(1, 2))]
        assert running.gate.arrived.acquire(timeout=10)
        inside.append(clients.submit(running.select, row_of(2, 2)))
        until(lambda: running.room.waiting == 2)
        time.sleep(0.3)  # from the door to the desk
        running.gate.open.set()
        for reply in [*(future.result(30) for future in inside), running.select(row_of(3, 2))]:
            assert reply.status == 500
            assert "Start the service again" in reply.body["detail"]
        until(lambda: running.room.waiting == 0)
        assert running.call("GET", "/health").status == 503


def test_a_hybrid_service_executes_and_says_who_is_out(exported: Path) -> None:
    with serving(exported, Screener(num_workers=1)) as running:
        answer = running.select(row_of(3, 3)).body
        judged_only = running.select({**row_of(3, 2), "public_tests": []}).body
    assert answer["selected"] in (0, 2)
    assert [entry["candidate_id"] for entry in answer["hybrid"]["out"]] == ["1"]
    assert answer["hybrid"]["out"][0]["outcome"] == "wrong_answer"
    assert answer["votes"][1] == 0
    assert answer["num_comparisons"] == 1
    assert judged_only["hybrid"]["note"] == "no public tests: judged only"


def test_a_hybrid_that_abstains_gives_reasons_for_a_program_that_was_judged(exported: Path) -> None:
    """Of four programs the first is out, and no answer of the judge can be read: none of them has a vote."""
    with serving(exported, Screener(num_workers=1), strategy=RoundRobin(min_confidence=1.0)) as running:
        running.gate.mumbles = True
        right, wrong = row_of(3, 2)["candidates"]  # type: ignore[misc]
        answer = running.select({**row_of(3, 1), "candidates": [wrong, right, f"{right}#", f"{right}##"]}).body
    assert (answer["abstained"], answer["num_invalid"], answer["votes"]) == (True, 3, [0, 0, 0, 0])
    assert len(answer["reasoning"]) == 2


class SlowKitchen(Screener):
    """Waits before it executes anything."""

    def __init__(self) -> None:
        super().__init__(num_workers=1)
        self.open = threading.Event()
        self.arrived = threading.Semaphore(0)
        self.num_screened = 0

    def screen(self, groups: Any) -> Iterator[Screening]:
        self.num_screened += 1
        self.arrived.release()
        assert self.open.wait(30)
        return super().screen(groups)


def test_nothing_is_executed_for_a_client_that_left_while_others_were_served(exported: Path) -> None:
    kitchen = SlowKitchen()
    with serving(exported, kitchen) as running, ThreadPoolExecutor(1) as clients:
        first = clients.submit(running.select, row_of(1, 2))
        assert kitchen.arrived.acquire(timeout=10)
        body = json.dumps(row_of(2, 2)).encode()
        with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
            client.sendall(b"POST /select HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
            client.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
            until(lambda: running.room.waiting == 2)
            time.sleep(0.3)  # from the door to the kitchen
        time.sleep(0.1)  # until the service has heard of it
        kitchen.open.set()
        assert first.result(30).status == 200
        until(lambda: running.room.waiting == 0)
    assert kitchen.num_screened == 1


def test_a_sandbox_that_fails_is_told_in_words_of_a_service(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def session(*_: Any) -> Any:
        raise SandboxError("no process could be started")

    with serving(exported, Screener(num_workers=1)) as running:
        monkeypatch.setattr(Sandbox, "session", session)
        failed = running.select(row_of(1, 2))
    assert (failed.status, failed.body["detail"]) == (
        500,
        "the sandbox failed, which says nothing about the programs: no process could be started. Try again.",
    )


def test_the_openapi_page_describes_request_answer_and_refusals(service: Service) -> None:
    page = service.call("GET", "/openapi.json").body
    operation = page["paths"]["/select"]["post"]
    assert set(operation["responses"]) == {"200", "408", "413", "422", "429", "500"}
    fields = page["components"]["schemas"]["Answer"]["properties"]
    assert {"selected", "votes", "confidence", "reasoning", "abstained"} <= set(fields)
    assert all("description" in field for name, field in fields.items() if name != "problem_id")
    assert service.call("GET", "/health").body["status"] == "ok"


def test_an_address_that_is_taken_and_a_room_for_nobody_are_refused(exported: Path, capsys: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--judge", str(exported), "--port", port]) == 2
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
    assert main(["serve", "--judge", str(exported), "--port", "70000"]) == 2
    assert "cannot listen on 127.0.0.1:70000: bind(): port must be 0-65535" in capsys.readouterr().err
    assert main(["serve", "--judge", str(exported), "--max_waiting", "0"]) == 2
    assert "wanted max_waiting" in capsys.readouterr().err


def test_without_its_framework_serve_says_what_to_install(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.delitem(sys.modules, "daj_lightning.serving.service", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", "--judge", "nowhere"]) == 2
    assert "pip install 'daj-lightning[serve]'" in capsys.readouterr().err


def test_sigterm_answers_whoever_waits_and_ends(exported: Path) -> None:
    """The command itself, in a process of its own; ten problems are under way when it is told to end."""
    command = [sys.executable, "-m", "daj_lightning", "serve", "--judge", str(exported), "--port", "0"]
    command += ["--strategy", "RoundRobin", "--batch_size", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "at http://127.0.0.1:" in line
        running = Service(int(line.split("127.0.0.1:")[1].split("/")[0]), Gate(), Room(1))
        with ThreadPoolExecutor(10) as clients:
            waiting = [clients.submit(running.select, row_of(k, 4)) for k in range(1, 11)]
            until(lambda: running.call("GET", "/health").body["waiting"] == 10)
            os.kill(process.pid, signal.SIGTERM)
            assert [future.result(60).status for future in waiting] == [200] * 10
        assert process.wait(30) == 0
    with pytest.raises(ConnectionRefusedError):
        running.call("GET", "/health")


def until(condition: Any, limit_s: float = 20.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "what was waited for did not come"
        time.sleep(0.01)
