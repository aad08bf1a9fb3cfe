"""A policy's programs: asked for as the paper decodes, once each, through an endpoint or a model here."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from conftest import Prepared
from daj_lightning.__main__ import main
from daj_lightning.data.candidates import read_candidates
from daj_lightning.data.sampling import EndpointPolicy, EnginePolicy, ModelPolicy, prompt_for, sample_candidates
from daj_lightning.judge import encode_prompt, load_tokenizer
from daj_lightning.records import DajError, Problem, UnitTests
from daj_lightning.rollout import ChatEndpoint, RolloutError, Sampling
from elsewhere import Elsewhere

THREE = Sampling(max_new_tokens=64, temperature=0.7, num_samples=3)


class Server(ThreadingHTTPServer):
    """An OpenAI-compatible endpoint whose model answers every prompt with a program that prints the seed.

    Before that it fails: `failures` holds statuses, one for each request to come.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.failures: list[int] = []
        self.retry_after = "0"
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.answer: Any = None
        self.lock = threading.Lock()
        self.now = self.most = 0
        self.together = threading.Barrier(1)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.keys.append(self.headers.get("Authorization"))
            failure = self.server.failures.pop(0) if self.server.failures else 0
            if not failure:
                self.server.asked.append(body)
        if self.path != "/v1/chat/completions":
            failure = 404
        self.server.together.wait(timeout=20)
        program = f"Here.\n```python\nprint({body.get('seed')})\n```"
        good = {"choices": [{"message": {"role": "assistant", "content": program}, "finish_reason": "stop"}]}
        answer = {"error": {"message": "try later"}} if failure else self.server.answer or good
        self.send_response(failure or 200)
        self.send_header("Retry-After", self.server.retry_after)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def problem(name: str, **changed: Any) -> Problem:
    fields: dict[str, Any] = {
        "problem_id": name,
        "title": "",
        "statement": f"Print {name}.",
        "platform": "atcoder",
        "difficulty": "easy",
        "release_date": date(2024, 3, 1),
        "starter_code": "",
        "function_name": None,
        "public_tests": (),
        "hidden_tests": (),
    }
    return Problem(**{**fields, **changed})


PROBLEMS = [problem("a"), problem("b")]
OFFICIAL = {
    "question_title": "A",
    "question_content": "Print n.",
    "platform": "atcoder",
    "question_id": "a",
    "contest_date": "2024-03-01T00:00:00",
    "starter_code": "",
    "difficulty": "easy",
    "public_test_cases": '[{"input": "1", "output": "1", "testtype": "stdin"}]',
    "private_test_cases": "[]",
    "metadata": "{}",
}
"""A row of LiveCodeBench."""


def policy(server: Server, concurrency: int = 2, num_attempts: int = 4) -> EndpointPolicy:
    return EndpointPolicy(ChatEndpoint(server.url, "coder", 20.0, num_attempts, backoff_s=0.01), concurrency)


def sample(path: Path, asked: Any, sampling: Sampling = THREE) -> int:
    return sample_candidates(PROBLEMS, asked, "coder", path, sampling, Console(file=io.StringIO()))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_problem_gets_its_programs_and_a_500_and_a_429_are_tried_again(server: Server, tmp_path: Path) -> None:
    server.failures = [500, 429]
    assert sample(tmp_path / "c.jsonl", policy(server)) == 6
    written = {row["candidate_id"]: row for row in rows(tmp_path / "c.jsonl")}
    assert set(written) == {f"{name}/coder/{k}" for name in "ab" for k in range(3)}
    assert len(server.keys) == 8
    seeds = {body["seed"] for body in server.asked}
    assert len(seeds) == 6  # a draw's own
    for row in written.values():
        assert row["response"] == f"Here.\n```python\n{row['code']}\n```"
        assert (row["policy"], row["finish_reason"], row["sampling"]["temperature"]) == ("coder", "stop", 0.7)
    assert {c.code for c in read_candidates(tmp_path / "c.jsonl")} == {f"print({seed})" for seed in seeds}


def test_the_command_asks_with_the_papers_settings_and_a_key(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    (tmp_path / "p.jsonl").write_text(json.dumps(OFFICIAL) + "\n")
    output = tmp_path / "c.jsonl"
    argv = ["sample", "--problems", str(tmp_path / "p.jsonl"), "--endpoint", server.url, "--model", "org/coder"]
    assert main([*argv, "--output", str(output)]) == 0
    assert len(server.asked) == 8
    wanted = {"model": "org/coder", "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05}
    for body in server.asked:
        assert {key: body[key] for key in wanted} == wanted
        assert body["max_tokens"] == 8192
        assert "Print n." in body["messages"][0]["content"]
    assert set(server.keys) == {"Bearer secret"}
    assert {row["policy"] for row in rows(output)} == {"coder"}
    assert "secret" not in output.read_text()


def test_settings_that_change_nothing_are_left_out_of_the_request(server: Server) -> None:
    body = policy(server).endpoint.body("?", Sampling(temperature=1.0))
    assert not {"top_k", "repetition_penalty"} & set(body)


def test_what_is_in_the_file_is_not_asked_again_and_a_torn_row_is(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    sample(path, policy(server))
    unbroken = {row["candidate_id"]: row for row in rows(path)}
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]) + lines[4][:30])
    server.asked.clear()
    assert sample(path, policy(server)) == 2
    assert len(server.asked) == 2
    assert {row["candidate_id"]: row for row in rows(path)} == unbroken


def test_more_programs_can_be_asked_for_later_but_not_with_other_settings(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    sample(path, policy(server))
    assert sample(path, policy(server), Sampling(max_new_tokens=64, temperature=0.7, num_samples=5)) == 4
    assert Counter(row["problem_id"] for row in rows(path)) == {"a": 5, "b": 5}
    with pytest.raises(DajError, match=r"line 1 was sampled by 'coder' with temperature 0\.7"):
        sample(path, policy(server), Sampling(max_new_tokens=64, temperature=0.8, num_samples=6))


def test_a_refusal_says_what_the_server_said_and_keeps_what_was_written(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    server.failures = [0, 0, 400]
    with pytest.raises(DajError, match=r"refused model 'coder' with 400: .*try later.*OPENAI_API_KEY"):
        sample(path, policy(server, concurrency=1))
    assert len(rows(path)) == 2
    assert sample(path, policy(server)) == 4


def test_a_server_that_only_fails_is_given_up_after_the_attempts(server: Server, tmp_path: Path) -> None:
    server.failures = [503] * 50
    with pytest.raises(DajError, match=r"failed 3 times, last: 503 .*try later"):
        sample(tmp_path / "c.jsonl", policy(server, concurrency=1, num_attempts=3))
    assert len(server.keys) == 3


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "http://no-such-host.invalid/v1"])
def test_a_server_that_is_not_there_is_named_at_once(tmp_path: Path, url: str) -> None:
    """With eight attempts in a minute or two allowed."""
    begun = time.monotonic()
    with pytest.raises(DajError, match=r"/v1/chat/completions cannot be reached: .*Is the server up"):
        sample(tmp_path / "c.jsonl", EndpointPolicy(ChatEndpoint(url, "coder"), 4))
    assert time.monotonic() - begun < 10


def test_a_server_that_went_away_is_waited_for_and_every_further_attempt_told(capsys: Any) -> None:
    endpoint = ChatEndpoint("http://127.0.0.1:9/v1", "coder", 5.0, 3, backoff_s=0.01)
    endpoint.answered = True
    with pytest.raises(DajError, match="failed 3 times"):
        endpoint.reply("?", THREE)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" failed")[0].rpartition(": ")[2] for line in lines] == [
        "attempt 1 of 3",
        "attempt 2 of 3",
    ]
    assert "Connection refused" in lines[0]


def test_a_run_that_ends_ends_the_wait_for_another_attempt(server: Server) -> None:
    server.failures = [503]
    stop = threading.Event()
    stop.set()
    with pytest.raises(DajError, match=r"given up after 1 attempts"):
        ChatEndpoint(server.url, "coder", backoff_s=60.0).reply("?", THREE, stop)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_an_interrupt_ends_the_command_while_a_server_hangs(tmp_path: Path, concurrency: int) -> None:
    """The server takes connections and never answers."""
    (tmp_path / "p.jsonl").write_text(json.dumps(OFFICIAL) + "\n")
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        hanging.settimeout(120)
        files = ["--problems", str(tmp_path / "p.jsonl"), "--output", str(tmp_path / "c.jsonl")]
        served = ["--endpoint", f"http://127.0.0.1:{hanging.getsockname()[1]}/v1", "--model", "m"]
        start = [sys.executable, "-m", "daj_lightning", "sample", *files, *served, "--concurrency", str(concurrency)]
        # A shell's background job, and all that it starts, is deaf to SIGINT: the command must not inherit that.
        hears = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        process = subprocess.Popen(start, **quiet, text=True, preexec_fn=hears)
        try:
            connection, _ = hanging.accept()
            with connection:
                connection.recv(1)
                time.sleep(0.5)
                process.send_signal(signal.SIGINT)
                _, errors = process.communicate(timeout=5)  # the request itself would wait for 30 minutes
        finally:
            process.kill()
    assert process.returncode == 130
    assert errors.strip() == "interrupted"


def test_a_file_is_not_gone_on_with_by_another_model_or_with_other_prompts(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    sample(path, policy(server))
    assert {row["sampling"]["model"] for row in rows(path)} == {"coder"}
    other = EndpointPolicy(ChatEndpoint(server.url, "coder-2", 20.0), 2)
    with pytest.raises(DajError, match=r"sampled by 'coder' with model 'coder'; now it is model 'coder-2'"):
        sample(path, other)
    asked_otherwise = [problem("a", statement="Print a twice."), PROBLEMS[1]]
    with pytest.raises(DajError, match=r"sampled by 'coder' with prompt '\w+'; now it is prompt '\w+'"):
        sample_candidates(asked_otherwise, policy(server), "coder", path, THREE, Console(file=io.StringIO()))
    assert sample_candidates([problem("c")], policy(server), "coder", path, THREE, Console(file=io.StringIO())) == 3


def test_rows_of_another_policy_stay_where_the_file_lacks_its_last_line_break(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    own = [{"problem_id": name, "policy": "hand", "code": "print(1)"} for name in "ab"]
    path.write_text("\n".join(json.dumps(row) for row in own))
    sample(path, policy(server))
    assert rows(path)[:2] == own
    assert len(rows(path)) == 8


@pytest.mark.parametrize("wrong", [{"choices": []}, {"choices": [{"message": {}}]}, ["?"]])
def test_an_answer_of_another_shape_is_shown(server: Server, tmp_path: Path, wrong: Any) -> None:
    server.answer = wrong
    with pytest.raises(DajError, match="wanted choices"):
        sample(tmp_path / "c.jsonl", policy(server, concurrency=1))


def test_a_response_without_code_is_kept(server: Server, tmp_path: Path) -> None:
    server.answer = {"choices": [{"message": {"content": None}, "finish_reason": "length"}]}
    sample(tmp_path / "c.jsonl", policy(server))
    assert {(row["code"], row["finish_reason"]) for row in rows(tmp_path / "c.jsonl")} == {("", "length")}
    assert len(list(read_candidates(tmp_path / "c.jsonl"))) == 6


def test_requests_run_side_by_side(server: Server, tmp_path: Path) -> None:
    """Three requests each wait until all three are there."""
    server.together = threading.Barrier(3)
    assert sample(tmp_path / "c.jsonl", policy(server, concurrency=3)) == 6


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(DajError, match=r"wanted e\.g\. http"):
        ChatEndpoint("localhost:8000", "coder")


def test_a_model_here_writes_the_same_programs_after_a_break(prepared: Prepared, tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    model = ModelPolicy(str(prepared.base))
    sampling = Sampling(max_new_tokens=8, temperature=1.0, top_p=0.9, num_samples=3, top_k=20, repetition_penalty=1.05)
    assert sample(path, model, sampling) == 6
    unbroken = rows(path)
    assert all(row["finish_reason"] in ("stop", "length") for row in unbroken)
    assert len({row["response"] for row in unbroken}) > 1
    path.write_text("".join(json.dumps(row) + "\n" for row in unbroken[:4]))
    assert sample(path, model, sampling) == 2
    assert rows(path) == unbroken


SHORT = Sampling(max_new_tokens=8, temperature=1.0, num_samples=3)
FOUR = [problem(name) for name in "abcd"]


def sample_four(path: Path, asked: Any, sampling: Sampling = SHORT) -> int:
    return sample_candidates(FOUR, asked, "coder", path, sampling, Console(file=io.StringIO()))


def test_an_engine_is_asked_for_several_problems_at_once_in_chat_messages(prepared: Prepared, tmp_path: Path) -> None:
    """Four problems, at most three a call; three draws each."""
    path, engine = tmp_path / "c.jsonl", Elsewhere()
    policy = EnginePolicy(str(prepared.base), engine, 3)
    assert engine.policies == []
    assert sample_four(path, policy) == 12
    assert [len(prompts) for prompts, _ in engine.asked] == [9, 3]
    tokenizer = load_tokenizer(str(prepared.base))
    asked = [prompt for prompts, _ in engine.asked for prompt in prompts]
    assert asked == [encode_prompt(tokenizer, prompt_for(one)) for one in FOUR for _ in range(3)]
    written = rows(path)
    assert [row["candidate_id"] for row in written] == [f"{name}/coder/{k}" for name in "abcd" for k in range(3)]
    assert {(row["sampling"]["model"], row["sampling"]["engine"]) for row in written} == {
        (str(prepared.base), "Elsewhere")
    }
    assert len({row["response"] for row in written}) > 6
    (policy_there,) = engine.policies
    assert all(parameter.is_meta for parameter in policy_there.model.parameters())
    policy.close()
    assert engine.num_closed == 1


def test_what_an_engine_wrote_stays_when_it_fails_and_only_the_rest_is_asked_for(
    prepared: Prepared, tmp_path: Path
) -> None:
    path, failing, engine = tmp_path / "c.jsonl", Elsewhere(fails_at=1), Elsewhere()
    with pytest.raises(RolloutError, match="the server is gone"):
        sample_four(path, EnginePolicy(str(prepared.base), failing, 2))
    kept = rows(path)
    assert [row["problem_id"] for row in kept] == ["a"] * 3 + ["b"] * 3
    path.write_text("".join(json.dumps(row) + "\n" for row in kept[:5]))
    assert sample_four(path, EnginePolicy(str(prepared.base), engine, 2)) == 7
    assert [len(prompts) for prompts, _ in engine.asked] == [4, 3]  # b's last and all of c, then d
    assert rows(path)[:5] == kept[:5]
    assert {row["candidate_id"] for row in rows(path)} == {f"{name}/coder/{k}" for name in "abcd" for k in range(3)}
    seeds = {sampling.seed for _, sampling in [*failing.asked, *engine.asked]}
    assert len(seeds) == 3  # alike prompts in two calls do not get alike draws


def test_an_engine_is_not_started_where_nothing_is_missing(prepared: Prepared, tmp_path: Path) -> None:
    path, engine = tmp_path / "c.jsonl", Elsewhere()
    sample_four(path, EnginePolicy(str(prepared.base), Elsewhere(), 4))
    again = EnginePolicy(str(prepared.base), engine, 4)
    assert sample_four(path, again) == 0
    again.close()
    assert (engine.policies, engine.num_closed) == ([], 0)


def test_a_file_is_not_gone_on_with_by_another_engine(prepared: Prepared, tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    here, elsewhere = ModelPolicy(str(prepared.base)), EnginePolicy(str(prepared.base), Elsewhere(), 4)
    sample_four(path, elsewhere)
    with pytest.raises(DajError, match=r"with engine 'Elsewhere'; now it is engine None"):
        sample_four(path, here)
    path.unlink()
    sample_four(path, here)
    assert "engine" not in rows(path)[0]["sampling"]  # as such rows always were
    with pytest.raises(DajError, match=r"with engine None; now it is engine 'Elsewhere'"):
        sample_four(path, elsewhere)


def test_no_problem_at_a_time_is_refused() -> None:
    with pytest.raises(DajError, match="wanted at least 1 problem"):
        EnginePolicy("any", Elsewhere(), 0)


def test_what_a_policy_is_asked_names_how_its_program_is_run() -> None:
    stdin = prompt_for(problem("a"))
    assert "Print a." in stdin
    assert "standard input" in stdin
    starter = "class Solution:\n    def f(self, n: int) -> int:\n        "
    functional = prompt_for(problem("a", function_name="f", starter_code=starter))
    assert "standard input" not in functional
    assert f"```python\n{starter.rstrip()}\n```" in functional
    tests = UnitTests("", "task_func", "def task_func(n):\n")
    instruct = prompt_for(problem("a", unit_tests=tests, statement="Write it.\n```\ndef task_func(n):\n```"))
    complete = prompt_for(problem("a", unit_tests=tests, statement='def task_func(n):\n    """Doc."""\n'))
    assert "`task_func`" in instruct
    assert instruct.count("```\ndef task_func") == 1
    assert '```python\ndef task_func(n):\n    """Doc."""\n```' in complete
    for text in (stdin, functional, instruct, complete):
        assert text.endswith("starts with ```python and ends with ```.")


def test_a_bigcodebench_answer_is_reduced_to_what_its_entry_point_needs(server: Server, tmp_path: Path) -> None:
    program = "import os\ndef task_func(n):\n    return n\nprint(task_func(1))"
    server.answer = {
        "choices": [{"message": {"content": f"Sure.\n```python\n{program}\n```"}, "finish_reason": "stop"}]
    }
    task = problem("BigCodeBench/1", unit_tests=UnitTests("", "task_func", "def task_func(n):\n"))
    silent = Console(file=io.StringIO())
    sample_candidates([task], policy(server), "coder", tmp_path / "c.jsonl", Sampling(temperature=1.0), silent)
    assert rows(tmp_path / "c.jsonl")[0]["code"] == "import os\ndef task_func(n):\n    return n"
