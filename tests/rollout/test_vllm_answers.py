"""Whatever a server says, it is the right rollout of the right version or one clear error. No vLLM is needed here."""

from __future__ import annotations

import copy
import json
import math
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentError, ArgumentParser
from transformers import Qwen3Config, Qwen3ForCausalLM

from daj_lightning.records import DajError
from daj_lightning.rollout import Policy, RolloutEngine, RolloutError, Sampling, VllmServer
from tiny import make_judge

PAD, EOS = 0, 1
PROMPTS = [[5, 9, 33], [7], [12, 40]]
SAMPLED = Sampling(max_new_tokens=4, temperature=1.0, num_samples=2)
Change = Callable[[dict[str, Any]], Any]


class Imitation:
    """What vLLM answers, as far as the engine asks; each answer can be changed into garbage."""

    def __init__(self) -> None:
        self.length = 64
        self.routes: dict[str, Callable[[dict[str, Any]], tuple[int, Any]]] = {
            "/health": lambda body: (200, ""),
            "/v1/models": lambda body: (200, {"data": [{"id": "base", "parent": None, "max_model_len": self.length}]}),
            "/v1/load_lora_adapter": self.load,
            "/v1/unload_lora_adapter": self.unload,
            "/v1/completions": self.complete,
        }
        self.adapters: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        """Of the rollouts asked for."""
        self.change: Change = lambda answer: answer

    def load(self, body: dict[str, Any]) -> tuple[int, Any]:
        if not body:
            return 400, {"error": {"message": "field required"}}
        assert (Path(body["lora_path"]) / "adapter_model.safetensors").is_file()
        self.adapters.append(body["lora_name"])
        return 200, "Success"

    def unload(self, body: dict[str, Any]) -> tuple[int, Any]:
        self.adapters.remove(body["lora_name"])
        return 200, "Success"

    def complete(self, body: dict[str, Any]) -> tuple[int, Any]:
        if "allowed_token_ids" in body:
            return 200, {"choices": [{"logprobs": {"token_logprobs": [0.0]}}]}
        assert body["model"] in (*self.adapters, "base")
        self.bodies.append(body)
        choices = [
            {
                "index": i,
                "prompt_token_ids": prompt,
                "token_ids": [3, 4, EOS],
                "logprobs": {"token_logprobs": [-0.5, -1.5, -2.5]},
                "finish_reason": "stop",
            }
            for i, prompt in enumerate(p for p in body["prompt"] for _ in range(body["n"]))
        ]
        return 200, self.change({"model": body["model"], "choices": choices})


@pytest.fixture
def vllm() -> Iterator[tuple[Imitation, str]]:
    imitation = Imitation()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer({})

        def do_POST(self) -> None:
            self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def answer(self, body: dict[str, Any]) -> None:
            status, said = imitation.routes.get(self.path, lambda body: (404, {"detail": "Not Found"}))(body)
            data = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield imitation, f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


@pytest.fixture
def policy(tiny_config: Qwen3Config) -> Policy:
    return Policy(make_judge(tiny_config).policy, "test", EOS, PAD)


@pytest.fixture
def engine(vllm: tuple[Imitation, str], policy: Policy) -> Iterator[VllmServer]:
    engine = VllmServer(vllm[1], request_timeout_s=2.0, sync_timeout_s=2.0)
    engine.connect(policy)
    engine.sync(3)
    yield engine
    engine.close()


def test_an_answer_becomes_rollouts_in_the_prompts_order(vllm: tuple[Imitation, str], engine: VllmServer) -> None:
    def number(answer: dict[str, Any]) -> dict[str, Any]:
        for choice in answer["choices"]:
            choice["token_ids"][0] = 10 + choice["index"]
        return answer

    vllm[0].change = number
    groups = engine.generate(PROMPTS, SAMPLED)
    assert [[rollout.token_ids for rollout in group] for group in groups] == [
        [(10, 4, EOS), (11, 4, EOS)],
        [(12, 4, EOS), (13, 4, EOS)],
        [(14, 4, EOS), (15, 4, EOS)],
    ]
    assert {(r.logps, r.finish_reason, r.policy_version) for group in groups for r in group} == {
        ((-0.5, -1.5, -2.5), "stop", 3)
    }


def test_decoding_is_asked_for_in_full_and_ends_only_at_the_end_of_turn(
    vllm: tuple[Imitation, str], engine: VllmServer
) -> None:
    engine.generate(PROMPTS, Sampling(max_new_tokens=4, temperature=0.7, top_p=0.9, num_samples=2, seed=5, top_k=3))
    asked = vllm[0].bodies[-1]
    wanted = {"temperature": 0.7, "top_p": 0.9, "top_k": 3, "min_p": 0, "repetition_penalty": 1, "n": 2}
    assert {key: asked[key] for key in wanted} == wanted
    assert asked["ignore_eos"]
    assert asked["stop_token_ids"] == [EOS]
    assert "seed" not in asked  # it ends vLLM's CPU engine


@pytest.mark.parametrize("cut", [{"top_p": 0.9}, {"top_k": 5}, {"repetition_penalty": 1.1}])
def test_log_probabilities_of_a_cut_distribution_are_unknown(engine: VllmServer, cut: dict[str, float]) -> None:
    (group,) = engine.generate(PROMPTS[:1], Sampling(4, 1.0, num_samples=2, **cut))
    assert all(math.isnan(logp) for rollout in group for logp in rollout.logps)


def test_a_request_asks_for_no_more_rollouts_than_it_may(vllm: tuple[Imitation, str], policy: Policy) -> None:
    engine = VllmServer(vllm[1], max_sequences=5)
    engine.connect(policy)
    engine.sync(0)
    prompts = [[i + 2] for i in range(7)]
    assert len(engine.generate(prompts, SAMPLED)) == 7
    assert [body["prompt"] for body in vllm[0].bodies] == [prompts[0:2], prompts[2:4], prompts[4:6], prompts[6:]]
    engine.close()


def test_each_version_is_loaded_before_the_last_goes_and_none_is_ever_named_again(
    vllm: tuple[Imitation, str], engine: VllmServer
) -> None:
    seen = [vllm[0].adapters[0]]
    for version in (4, 4, 5):
        engine.sync(version)
        (name,) = vllm[0].adapters
        assert name not in seen
        seen.append(name)
        assert engine.store is not None
        assert [path.name for path in engine.store.directory.iterdir()] == [name]
        assert engine.generate(PROMPTS, SAMPLED)[0][0].policy_version == version
        assert vllm[0].bodies[-1]["model"] == name


def test_a_server_of_others_is_left_as_it_was(vllm: tuple[Imitation, str], engine: VllmServer) -> None:
    assert engine.store is not None
    directory = engine.store.directory
    engine.close()
    engine.close()
    assert vllm[0].adapters == []
    assert not directory.exists()
    assert not engine.health()
    with pytest.raises(RolloutError, match="not connected"):
        engine.generate(PROMPTS, SAMPLED)


def first(key: str, value: object) -> Change:
    """The first choice says another thing."""

    def change(answer: dict[str, Any]) -> dict[str, Any]:
        answer["choices"][0][key] = value
        return answer

    return change


def logps(*values: object) -> Change:
    return first("logprobs", {"token_logprobs": list(values)})


GARBAGE: dict[str, tuple[Change, str]] = {
    "html": (lambda answer: b"<html>Bad Gateway</html>", "answered no completions but '<html>"),
    "truncated json": (lambda answer: json.dumps(answer).encode()[:-9], "answered no completions"),
    "a list": (lambda answer: [answer], "answered no completions"),
    "null": (lambda answer: None, "answered no completions but 'null'"),
    "deep": (lambda answer: b"[" * 100_000, "answered no completions"),
    "no choices": (lambda answer: {"model": answer["model"]}, "answered no completions"),
    "choices of text": (lambda answer: {**answer, "choices": ["a"] * 6}, "answered no completions"),
    "another model": (lambda answer: {**answer, "model": "base"}, "the server answered for 'base'"),
    "too few": (lambda answer: {**answer, "choices": answer["choices"][1:]}, "asked for 3 x 2 rollouts.*answered 5"),
    "out of order": (lambda answer: {**answer, "choices": answer["choices"][::-1]}, "rollout 0 .* has index 5"),
    "another prompt": (first("prompt_token_ids", [5, 9, 34]), "another prompt"),
    "no ids": (first("token_ids", None), "its token ids are None"),
    "text for ids": (first("token_ids", "341"), "its token ids are 341"),
    "ids that are no whole numbers": (first("token_ids", [3.0, 4, EOS]), "its token ids are"),
    "empty": (first("token_ids", []), "it has no tokens"),
    "another vocabulary": (first("token_ids", [3, 64, EOS]), "token ids from 1 to 64, of a vocabulary of 64"),
    "negative id": (first("token_ids", [3, -1, EOS]), "token ids from -1"),
    "goes on after its end": (first("token_ids", [3, EOS, EOS]), r"end of turn \(token 1\) at 2"),
    "stops without its end": (first("token_ids", [3, 4, 5]), "'stop' after 3 of 4 tokens.*not among them"),
    "too long": (first("token_ids", [3, 4, 5, 6, EOS]), "no policy writes"),
    "aborted": (first("finish_reason", "abort"), "finished by 'abort'"),
    "unhashable reason": (first("finish_reason", ["stop"]), r"finished by \['stop'\]"),
    "cut short": (first("finish_reason", "length"), "'length' after 3 of 4 tokens"),
    "no log-probabilities": (first("logprobs", None), "3 tokens with log-probabilities None"),
    "log-probabilities of another kind": (first("logprobs", {"content": []}), "3 tokens with log-probabilities None"),
    "a list of log-probabilities": (first("logprobs", [-0.5]), "3 tokens with log-probabilities None"),
    "too few log-probabilities": (logps(-0.5, -0.5), "3 tokens with log-probabilities"),
    "null among log-probabilities": (logps(-0.5, None, -0.5), "its log-probabilities are"),
    "nan": (logps(-0.5, math.nan, -0.5), "its log-probabilities are"),
    "minus infinity": (logps(-0.5, -math.inf, -0.5), "its log-probabilities are"),
    "vllm's minus infinity": (logps(-0.5, -9999.0, -0.5), "its log-probabilities are"),
    "a probability above 1": (logps(-0.5, 0.7, -0.5), "its log-probabilities are"),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_one_clear_error(vllm: tuple[Imitation, str], engine: VllmServer, kind: str) -> None:
    vllm[0].change, said = GARBAGE[kind]
    with pytest.raises(RolloutError, match=said):
        engine.generate(PROMPTS, SAMPLED)
    vllm[0].change = copy.copy
    assert engine.generate(PROMPTS, SAMPLED)  # and the engine goes on


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_a_refusal_of_a_server_that_is_well_is_told(
    vllm: tuple[Imitation, str], engine: VllmServer, status: int
) -> None:
    vllm[0].routes["/v1/completions"] = lambda body: (status, {"error": "out of luck"})
    with pytest.raises(RolloutError, match=f"answered {status}: .*out of luck"):
        engine.generate(PROMPTS, SAMPLED)


def test_a_server_that_is_not_well_after_an_error_is_lost(vllm: tuple[Imitation, str], engine: VllmServer) -> None:
    vllm[0].routes["/v1/completions"] = lambda body: (500, {"error": "EngineDeadError"})
    vllm[0].routes["/health"] = lambda body: (503, "")
    assert not engine.health()
    with pytest.raises(RolloutError, match=r"EngineDeadError.*not well.*runs on its own account"):
        engine.generate(PROMPTS, SAMPLED)


def test_a_silent_server_costs_no_more_than_its_time_limit(vllm: tuple[Imitation, str], engine: VllmServer) -> None:
    def sleep(body: dict[str, Any]) -> tuple[int, Any]:
        time.sleep(4)
        return 200, {}

    vllm[0].routes["/v1/completions"] = sleep
    begin = time.monotonic()
    with pytest.raises(RolloutError, match=r"did not answer within 2 s. Raise request_timeout_s"):
        engine.generate(PROMPTS, SAMPLED)
    assert time.monotonic() - begin < 3.5


@pytest.mark.parametrize("said", ["LoRA rank 8 is greater than max_lora_rank 4", "No adapter found"])
def test_an_adapter_that_is_not_taken_is_an_error_and_never_an_old_rollout(
    vllm: tuple[Imitation, str], engine: VllmServer, said: str
) -> None:
    vllm[0].routes["/v1/load_lora_adapter"] = lambda body: (500, {"error": said})
    for attempt in (lambda: engine.sync(4), lambda: engine.generate(PROMPTS, SAMPLED)):
        with pytest.raises(RolloutError, match=f"did not load version 4 from .* 500 .*{said}"):
            attempt()


CANNOT: dict[str, tuple[str, tuple[int, Any], str]] = {
    "no models": ("/v1/models", (200, {"data": []}), "serves .*; wanted 'one model'"),
    "two models": (
        "/v1/models",
        (200, {"data": [{"id": name, "parent": None, "max_model_len": 9} for name in "ab"]}),
        r"serves \['a', 'b'\]; wanted 'one model'.*Set served_name",
    ),
    "no list": ("/v1/models", (200, "hello"), "is it vLLM"),
    "no length": ("/v1/models", (200, {"data": [{"id": "base", "parent": None}]}), "is it vLLM"),
    "hidden": ("/v1/models", (401, {"error": "Unauthorized"}), "answered 401: .*Unauthorized"),
    "no adapters": (
        "/v1/load_lora_adapter",
        (404, {"detail": "Not Found"}),
        "does not load adapters while it runs. Start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1.*--enable-lora",
    ),
    "raw": (
        "/v1/completions",
        (200, {"choices": [{"logprobs": {"token_logprobs": [-3.2]}}]}),
        "log-probabilities at temperature 1.*--logprobs-mode processed_logprobs",
    ),
    "no log-probabilities": ("/v1/completions", (200, {"choices": [{}]}), "to a test; is it vLLM"),
}


@pytest.mark.parametrize("kind", CANNOT)
def test_a_server_that_cannot_serve_is_refused_at_once(
    vllm: tuple[Imitation, str], policy: Policy, tmp_path: Path, kind: str
) -> None:
    path, answer, said = CANNOT[kind]
    vllm[0].routes[path] = lambda body: answer
    with pytest.raises(RolloutError, match=said):
        VllmServer(vllm[1], directory=str(tmp_path)).connect(policy)
    assert list(tmp_path.iterdir()) == []


def test_another_name_than_the_served_one_is_refused(vllm: tuple[Imitation, str], policy: Policy) -> None:
    with pytest.raises(RolloutError, match=r"serves \['base'\]; wanted 'judge'"):
        VllmServer(vllm[1], served_name="judge").connect(policy)


def test_nobody_at_the_address_is_an_error(policy: Policy) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(RolloutError, match=rf"{url}/v1/models cannot be reached: .*refused"):
        VllmServer(url).connect(policy)


def test_something_that_speaks_no_http_is_an_error(policy: Policy) -> None:
    def greet() -> None:
        connection, _ = listener.accept()
        connection.sendall(b"220 mail.example ESMTP\r\n")
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=greet, daemon=True).start()
        with pytest.raises(RolloutError, match=r"cannot be reached: .*(220 mail|reset)"):
            VllmServer(f"http://127.0.0.1:{listener.getsockname()[1]}").connect(policy)


@pytest.mark.parametrize(
    ("prompts", "sampling", "said"),
    [
        ([[5], [2] * 61], SAMPLED, "prompt 1 has 61 tokens, with max_new_tokens=4 more than .*max_model_len=64"),
        ([[5], []], SAMPLED, "prompt 1 has no tokens"),
        ([[5, 64]], SAMPLED, "prompt 0 has token ids from 5 to 64; the model knows 0 to 63"),
        ([[-1]], SAMPLED, "token ids from -1"),
        ([[5]], Sampling(4, temperature=0.001), "vLLM takes 0.01 for every temperature below it; got 0.001"),
    ],
)
def test_what_vllm_cannot_roll_out_is_refused_before_it_is_sent(
    vllm: tuple[Imitation, str], engine: VllmServer, prompts: list[list[int]], sampling: Sampling, said: str
) -> None:
    with pytest.raises(DajError, match=said):
        engine.generate(prompts, sampling)
    assert vllm[0].bodies == []


def test_a_prompt_may_fill_the_model_to_the_last_token(engine: VllmServer) -> None:
    assert engine.generate([[2] * 60], SAMPLED)


def test_no_prompt_gives_no_rollout(engine: VllmServer) -> None:
    assert engine.generate([], SAMPLED) == []


def test_nothing_is_rolled_out_before_the_first_sync(vllm: tuple[Imitation, str], policy: Policy) -> None:
    engine = VllmServer(vllm[1])
    engine.connect(policy)
    with pytest.raises(RolloutError, match="sync comes first"):
        engine.generate(PROMPTS, SAMPLED)
    engine.close()


def test_a_base_without_adapters_is_rolled_out_as_it_is_and_only_so(
    vllm: tuple[Imitation, str], tiny_config: Qwen3Config
) -> None:
    engine = VllmServer(vllm[1])
    engine.connect(Policy(Qwen3ForCausalLM(tiny_config), "test", EOS, PAD))
    engine.sync(0)
    assert engine.generate(PROMPTS, SAMPLED)[0][0].policy_version == 0
    assert vllm[0].bodies[-1]["model"] == "base"
    with pytest.raises(RolloutError, match=r"cannot take version 1 of a policy without adapters.*TransformersEngine"):
        engine.sync(1)
    engine.close()


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("/no/such/python", "python='/no/such/python' of the rollout engine cannot be run"),
        ("/bin/false", "vllm cannot be used .* in /bin/false"),
        (None, "vllm is not installed in .*. Run .* -m pip install 'vllm>=0.22', or set python"),
    ],
)
def test_an_interpreter_without_vllm_is_told_what_it_lacks(policy: Policy, python: str | None, said: str) -> None:
    engine = VllmServer(python=python, environment={"PYTHONPATH": ""})
    if python is None and "vllm" in sys.modules:
        pytest.skip("vllm is installed here")
    with pytest.raises(RolloutError, match=said):
        engine.connect(policy)


def test_a_yaml_names_the_engine_and_the_papers_two_gpus() -> None:
    """One rolls out, one trains: configuration, not code."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--engine", type=RolloutEngine)
    text = """
    engine:
      class_path: daj_lightning.rollout.VllmServer
      init_args:
        environment: {CUDA_VISIBLE_DEVICES: "1"}
        arguments: [--max-num-seqs, "256"]
        gpu_memory_utilization: 0.8
    """
    engine = parser.instantiate(parser.parse_string(text)).engine
    assert isinstance(engine, VllmServer)
    assert engine.environment == {"CUDA_VISIBLE_DEVICES": "1"}
    assert engine.arguments == ("--max-num-seqs", "256")
    with pytest.raises(ArgumentError, match="gpus"):
        parser.parse_string(text.replace("environment:", "gpus:"))
    text = "{engine: {class_path: daj_lightning.rollout.VllmColocated, init_args: {arguments: {max_num_seqs: 256}}}}"
    assert parser.instantiate(parser.parse_string(text)).engine.arguments == {"max_num_seqs": 256}


def test_a_server_starts_with_what_was_asked_for(policy: Policy, tmp_path: Path) -> None:
    """In place of vLLM a program that prints its arguments; what must be the server's, and what only a GPU has."""
    (tmp_path / "vllm" / "entrypoints" / "openai").mkdir(parents=True)
    program = "import sys; sys.exit(str(sys.argv[1:]))"
    (tmp_path / "vllm" / "entrypoints" / "openai" / "api_server.py").write_text(program)
    environment = {"PYTHONPATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    engine = VllmServer(environment=environment, max_model_len=60, arguments=["--max-num-seqs", "7"])
    with pytest.raises(RolloutError, match="ended with 1 while it started") as caught:
        engine.connect(policy)
    said = str(caught.value)
    flags = said[said.index("['--") : said.index("]")].replace("', '", " ")
    for flag in (
        "--model test",
        "--dtype float32",  # vLLM itself would take bfloat16
        "--max-model-len 60",
        "--enable-lora",
        "--max-lora-rank 8",  # of rank 4
        "--max-loras 2",
        "--logprobs-mode processed_logprobs",
        "--generation-config vllm",
        "--enforce-eager",
        "--max-num-seqs 7",
    ):
        assert flag in flags
    assert "--gpu-memory-utilization" not in flags


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "localhost:8000"},
        {"max_loras": 1},
        {"max_sequences": 0},
        {"max_restarts": -1},
        {"request_timeout_s": 0},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DajError, match="VllmServer"):
        VllmServer(**wrong)
