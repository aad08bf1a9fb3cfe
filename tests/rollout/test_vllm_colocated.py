"""vLLM in the trainer's environment rolls out the policy of the last sync; when one of them dies, the other ends too.

The trainer here is a process of the environment that has vllm.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from transformers import Qwen3Config

from daj_lightning.records import DajError
from daj_lightning.rollout import Policy, RolloutError, VllmColocated
from tiny import make_judge
from vllm_base import OFFLINE, VARIABLE, needs_vllm

BEGIN = """
import json, os, signal, sys, time
from pathlib import Path
import torch
from daj_lightning.rollout import RolloutError, Sampling, VllmColocated
from vllm_base import BLOCK, EOS, SAMPLED, error, make_policy, move, prompts

def tell(**facts):
    print("\\n" + json.dumps(facts), flush=True)

torch.set_num_threads(1)
torch.manual_seed(3)
judge, policy = make_policy(Path(sys.argv[1]) / "base")
engine = VllmColocated(max_model_len=400, directory=sys.argv[1] + "/adapters")
state = torch.get_rng_state()
engine.connect(policy)
"""
ROLLOUTS = """
tell(state=torch.equal(state, torch.get_rng_state()), health=engine.health())
asked = prompts(4, length=BLOCK + 40)
for version in range(5):
    move(judge, seed=version)
    engine.sync(version)
    answered = engine.generate(asked, SAMPLED)
    kept = len(os.listdir(engine.directory))
    tell(error=error(judge, asked, answered), versions=[r.policy_version for g in answered for r in g], kept=kept)
move(judge, seed=99)
tell(far=error(judge, asked, answered))
move(judge, seed=4)
for temperature in (0.5, 1.7):
    answered = engine.generate(asked, Sampling(12, temperature, num_samples=4))
    tell(error=error(judge, asked, answered, temperature))
tell(error=error(judge, asked, engine.generate(asked, Sampling(12))))
(group,) = engine.generate(asked[:1], Sampling(200, 1.0, num_samples=64))
tell(ends=[r.token_ids.index(EOS) - len(r.token_ids) for r in group if r.finish_reason == "stop"])
tell(unknown=engine.generate(asked, Sampling(2, 1.0, top_k=3))[0][0].logps)
try:
    engine.generate([[2] * 390], Sampling(11))
except RolloutError as problem:
    tell(long=str(problem))
os.kill(engine.processes[0].pid, signal.SIGKILL)
try:
    engine.generate(asked, SAMPLED)
except RolloutError as problem:
    tell(dead=str(problem), health=engine.health())
engine.close()
engine.close()
tell(kept=len(os.listdir(engine.directory)))
"""
WAIT = """
below = Path(f"/proc/{engine.processes[0].pid}/task/{engine.processes[0].pid}/children").read_text().split()
tell(pids=[engine.processes[0].pid, *map(int, below)])
time.sleep(600)
"""


@contextmanager
def trainer(program: str, directory: Path) -> Iterator[subprocess.Popen[str]]:
    tests = Path(__file__).parents[1]
    with subprocess.Popen(
        [os.environ[VARIABLE], "-c", BEGIN + program, str(directory)],
        env={**os.environ, **OFFLINE, "PYTHONPATH": f"{tests.parent}:{tests}"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        too_late = threading.Timer(300, process.kill)
        too_late.start()
        try:
            yield process
        finally:
            too_late.cancel()
            process.kill()


def facts(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:  # vLLM prints between them
        if line.startswith("{"):
            yield json.loads(line)


def is_running(pid: int) -> bool:
    """A process that nobody has waited for is none any more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    with trainer(ROLLOUTS, tmp_path_factory.mktemp("colocated")) as process:
        return list(facts(process))


class TestRollouts:
    """Of one engine, which is killed in the end."""

    pytestmark = needs_vllm

    def test_log_probabilities_are_the_judges_after_each_sync_and_at_each_temperature(
        self, told: list[dict[str, Any]]
    ) -> None:
        errors = [fact["error"] for fact in told if "error" in fact]
        assert len(errors) == 5 + 2 + 1
        assert max(errors) < 1e-4
        assert [set(fact["versions"]) for fact in told if "versions" in fact] == [{0}, {1}, {2}, {3}, {4}]
        assert next(fact["far"] for fact in told if "far" in fact) > 1  # a wrong version would have been noticed

    def test_one_version_is_on_disk_while_it_is_rolled_out_and_none_at_the_end(
        self, told: list[dict[str, Any]]
    ) -> None:
        assert [fact["kept"] for fact in told if "kept" in fact] == [1, 1, 1, 1, 1, 0]

    def test_only_the_end_of_turn_ends_a_rollout(self, told: list[dict[str, Any]]) -> None:
        (ends,) = [fact["ends"] for fact in told if "ends" in fact]
        assert ends
        assert set(ends) == {-1}

    def test_log_probabilities_of_a_cut_distribution_are_unknown(self, told: list[dict[str, Any]]) -> None:
        (unknown,) = [fact["unknown"] for fact in told if "unknown" in fact]
        assert all(logp != logp for logp in unknown)

    def test_the_trainers_random_state_is_left_alone(self, told: list[dict[str, Any]]) -> None:
        assert told[0] == {"state": True, "health": True}

    def test_a_prompt_too_long_and_a_dead_engine_are_clear_errors(self, told: list[dict[str, Any]]) -> None:
        said = {key: value for fact in told for key, value in fact.items()}
        assert "prompt 0 has 390 tokens, with max_new_tokens=11 more than vLLM's max_model_len=400" in said["long"]
        assert said["dead"].startswith("vLLM's engine died")
        assert said["health"] is False


@pytest.mark.vllm
@needs_vllm[1]
def test_nothing_of_vllm_survives_a_killed_trainer(tmp_path: Path) -> None:
    with trainer(WAIT, tmp_path) as process:
        (pids,) = [fact["pids"] for fact in [next(facts(process))]]
        assert len(pids) == 2  # engine, worker
        process.kill()
    end = time.monotonic() + 20
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vllm is installed here")
def test_an_environment_without_vllm_is_told_what_it_lacks(tiny_config: Qwen3Config) -> None:
    engine = VllmColocated()
    with pytest.raises(RolloutError, match=r"vllm is not installed in .*pip install 'daj-lightning\[vllm\]', or use"):
        engine.connect(Policy(make_judge(tiny_config).policy, "test", 1, 0))
    assert not engine.health()
    engine.close()


def test_a_single_slot_for_adapters_is_refused() -> None:
    with pytest.raises(DajError, match="needs max_loras >= 2"):
        VllmColocated(max_loras=1)
