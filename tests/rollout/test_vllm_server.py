"""A real vLLM server rolls out the policy of the last sync and no other, whatever happens to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from transformers import Qwen3ForCausalLM

from daj_lightning.judge import Judge
from daj_lightning.rollout import Policy, Rollout, RolloutError, Sampling, VllmServer
from vllm_base import (
    BLOCK,
    EOS,
    OFFLINE,
    PAD,
    SAMPLED,
    VARIABLE,
    ReusesPath,
    error,
    make_policy,
    move,
    needs_vllm,
    prompts,
)

pytestmark = needs_vllm
TOLERANCE = 1e-4
FAR = 1.0
"""Nats; log-probabilities of another version are farther off."""


class Served(NamedTuple):
    """A server with its judge."""

    engine: VllmServer
    judge: Judge
    policy: Policy


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("served")
    judge, policy = make_policy(root / "base")
    engine = VllmServer(python=os.environ[VARIABLE], environment=OFFLINE, directory=str(root / "work"), max_restarts=2)
    engine.connect(policy)
    yield Served(engine, judge, policy)
    engine.close()


def test_log_probabilities_are_the_judges_after_each_of_five_syncs(served: Served) -> None:
    """On prompts longer than a cache block, which the server has all seen under the version before."""
    engine, judge, _ = served
    asked = prompts(4, length=BLOCK + 40)
    for version in range(5):
        move(judge, seed=version)
        engine.sync(version)
        answered = engine.generate(asked, SAMPLED)
        assert error(judge, asked, answered) < TOLERANCE
        assert {r.policy_version for group in answered for r in group} == {version}
    move(judge, seed=99)
    assert error(judge, asked, answered) > FAR  # a wrong version would have been noticed


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_log_probabilities_are_at_the_temperature(served: Served, temperature: float) -> None:
    engine, judge, _ = served
    engine.sync(0)
    answered = engine.generate(prompts(3), Sampling(12, temperature, num_samples=4))
    assert error(judge, prompts(3), answered, temperature) < TOLERANCE


def test_greedy_rollouts_have_the_likeliest_tokens_with_log_probabilities_at_temperature_1(served: Served) -> None:
    engine, judge, policy = served
    engine.sync(0)
    answered = engine.generate(prompts(3), Sampling(12))
    assert error(judge, prompts(3), answered) < TOLERANCE
    for prompt, (rollout,) in zip(prompts(3), answered, strict=True):
        ids = torch.tensor([[*prompt, *rollout.token_ids]])
        assert policy.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].argmax(-1).tolist() == list(
            rollout.token_ids
        )


def test_a_rollout_ends_at_the_end_of_turn_and_includes_it(served: Served) -> None:
    engine, judge, _ = served
    engine.sync(0)
    (group,) = engine.generate(prompts(1), Sampling(200, 1.0, num_samples=64))
    ended = [r for r in group if r.finish_reason == "stop"]
    assert 0 < len(ended) < 64
    assert all(r.token_ids.index(EOS) == len(r.token_ids) - 1 for r in ended)
    assert all(EOS not in r.token_ids and len(r.token_ids) == 200 for r in group if r.finish_reason == "length")
    assert error(judge, prompts(1), [ended]) < TOLERANCE


def test_many_prompts_and_samples_come_back_in_order(served: Served) -> None:
    """More than a request may ask for, and more tokens than vLLM takes in at a time."""
    engine, judge, _ = served
    engine.sync(0)
    asked = prompts(24)
    answered = engine.generate(asked, Sampling(6, 1.0, num_samples=16))
    assert [len(group) for group in answered] == [16] * 24
    assert error(judge, asked, answered) < TOLERANCE


def test_a_path_that_is_used_again_gives_rollouts_of_the_version_before(served: Served) -> None:
    """The negative control: this is why every version has a path of its own."""
    engine, judge, policy = served
    reuses = ReusesPath(url=engine.api.address)
    reuses.connect(policy)
    asked = prompts(4, length=BLOCK + 40, seed=8)
    errors = []
    for version in range(2):
        move(judge, seed=20 + version)
        reuses.sync(version)
        errors.append(error(judge, asked, reuses.generate(asked, SAMPLED)))
    reuses.close()
    assert errors[0] < TOLERANCE
    assert errors[1] > 0.3


def test_another_trainer_may_use_a_server_that_runs_and_leaves_it_running(served: Served) -> None:
    engine, judge, policy = served
    guest = VllmServer(url=engine.api.address + "/v1")
    guest.connect(policy)
    move(judge, seed=31)
    guest.sync(7)
    assert error(judge, prompts(2), guest.generate(prompts(2), SAMPLED)) < TOLERANCE
    guest.close()
    assert engine.health()
    names = engine.api.base(engine.served_name)
    assert names == (engine.served_name, 512)
    engine.sync(8)
    assert error(judge, prompts(2), engine.generate(prompts(2), SAMPLED)) < TOLERANCE


def test_a_server_of_a_smaller_vocabulary_is_refused(served: Served, tmp_path: Path) -> None:
    _, other = make_policy(tmp_path / "other", vocab_size=200)
    with pytest.raises(RolloutError, match=r"answered 400: .*vocab"):
        VllmServer(url=served.engine.api.address).connect(other)
    assert served.engine.health()


def test_a_base_rolls_out_without_adapters(served: Served, tmp_path: Path) -> None:
    engine, _, policy = served
    base = Qwen3ForCausalLM.from_pretrained(policy.base)
    guest = VllmServer(url=engine.api.address)
    guest.connect(Policy(base, policy.base, EOS, PAD))
    guest.sync(0)
    answered = guest.generate(prompts(2), SAMPLED)
    judge = Judge(policy.base, "float32", trains="everything")
    judge.adapt(base)
    assert error(judge, prompts(2), answered) < TOLERANCE
    guest.close()


def test_a_port_in_use_is_an_error(served: Served, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        engine = VllmServer(python=os.environ[VARIABLE], port=port)
        with pytest.raises(RolloutError, match=f"port {port} is in use"):
            engine.connect(served.policy)


def family(pid: int) -> list[int]:
    """A process and all below it."""
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(grandchild for child in below for grandchild in family(int(child)))]


def wait(condition: object, limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)


def gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_killed_server_is_replaced_twice_and_then_given_up(served: Served) -> None:
    """Last of those that share it. The policy in this process has moved on since its sync; the rollouts have not."""
    engine, judge, _ = served
    assert engine.supervisor is not None
    asked = prompts(4)
    move(judge, seed=40)
    engine.sync(40)

    def victims() -> list[int]:
        assert engine.supervisor is not None
        assert engine.supervisor.process is not None
        return family(engine.supervisor.process.pid)[1:]

    # Between calls: the server itself.
    first = victims()
    assert len(first) >= 3  # server, engine, worker
    move(judge, seed=41)
    os.kill(first[0], signal.SIGKILL)
    answered = engine.generate(asked, SAMPLED)
    assert gone(first)
    assert {r.policy_version for group in answered for r in group} == {40}
    assert error(judge, asked, answered) > FAR
    move(judge, seed=40)
    assert error(judge, asked, answered) < TOLERANCE

    # In mid-generation: the engine behind it.
    second = victims()
    result: list[list[list[Rollout]]] = []
    long = Sampling(300, 1.0, num_samples=64)
    thread = threading.Thread(target=lambda: result.append(engine.generate(asked, long)))
    thread.start()
    time.sleep(1.0)
    assert thread.is_alive()
    os.kill(second[-1], signal.SIGKILL)
    thread.join()
    assert gone(second)
    assert error(judge, asked, result[0]) < TOLERANCE
    assert engine.restarts_left == 0

    # Once more, in a sync.
    third = victims()
    os.kill(third[0], signal.SIGKILL)
    begin = time.monotonic()
    with pytest.raises(RolloutError, match=r"cannot be reached.*restarted 2 times \(max_restarts\)"):
        engine.sync(42)
    assert time.monotonic() - begin < 15
    assert not engine.health()
    engine.close()
    wait(lambda: gone(third), 5)


TRAINER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from vllm_base import OFFLINE, make_policy
from daj_lightning.rollout import VllmServer
_, policy = make_policy(Path(sys.argv[1]))
engine = VllmServer(python=sys.argv[2], environment=OFFLINE)
engine.connect(policy)
print(engine.supervisor.process.pid, flush=True)
time.sleep(600)
"""


def test_nothing_of_the_server_survives_a_killed_trainer(tmp_path: Path) -> None:
    tests = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", TRAINER, str(tmp_path / "base"), os.environ[VARIABLE], tests]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout is not None
        pids = family(int(trainer.stdout.readline()))
        assert len(pids) >= 4  # warden, server, engine, worker
        trainer.kill()
    wait(lambda: gone(pids), 20)
