"""Candidates and judge responses from a real vLLM server, which ends when all are there."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from asking import comparison
from conftest import Prepared
from daj_lightning.__main__ import main
from daj_lightning.data import SampledResponses
from daj_lightning.judge import load_tokenizer
from daj_lightning.rollout import VllmServer
from vllm_base import OFFLINE, VARIABLE, make_policy, needs_vllm

pytestmark = needs_vllm


@pytest.fixture(scope="module")
def base(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random float32 model of a size that vLLM takes, with the toy judge's tokenizer."""
    directory = tmp_path_factory.mktemp("base")
    tokenizer = load_tokenizer(str(prepared.base))
    make_policy(directory, vocab_size=len(tokenizer), max_position_embeddings=1024)
    tokenizer.save_pretrained(directory)
    return str(directory)


def write_problems(path: Path) -> None:
    test = json.dumps([{"input": "1", "output": "1", "testtype": "stdin"}])
    shared = {"platform": "atcoder", "contest_date": "2024-03-01T00:00:00", "starter_code": "", "difficulty": "easy"}
    shared |= {"public_test_cases": test, "private_test_cases": "[]", "metadata": "{}"}
    asked = [{"question_title": n, "question_id": n, "question_content": f"Print {n}.", **shared} for n in "abc"]
    path.write_text("".join(json.dumps(row) + "\n" for row in asked))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_sample_draws_candidates_from_a_vllm_server(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Greedily: the same programs as without vLLM. Drawn: as many as are missing; and a full file starts no server."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_problems(tmp_path / "p.jsonl")

    def sampled(name: str, *options: str) -> list[dict[str, Any]]:
        path = tmp_path / f"{name}.jsonl"
        files = ["--problems", str(tmp_path / "p.jsonl"), "--output", str(path)]
        assert main(["sample", *files, "--model", base, "--policy", "m", "--max_new_tokens", "12", *options]) == 0
        return rows(path)

    def programs(written: Sequence[dict[str, Any]]) -> dict[str, str]:
        return {row["candidate_id"]: row["response"] for row in written}

    served = ("--engine", "vllm", "--vllm_python", os.environ[VARIABLE])
    greedy = ("--temperature", "0", "--num_samples", "1", "--top_p", "1", "--top_k", "0", "--repetition_penalty", "1")
    there = sampled("there", *served, *greedy)
    assert programs(there) == programs(sampled("here", *greedy))
    assert {row["sampling"]["engine"] for row in there} == {"VllmServer"}

    papers = {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05}
    first = [{**row, "sampling": {**row["sampling"], **papers}} for row in there]
    (tmp_path / "drawn.jsonl").write_text("".join(json.dumps(row) + "\n" for row in first))
    drawn = sampled("drawn", *served, "--concurrency", "2")
    assert drawn[:3] == first
    assert sorted(programs(drawn)) == [f"{name}/m/{k}" for name in "abc" for k in range(8)]
    assert len(set(programs(drawn).values())) > 12
    again = (*served[:2], "--vllm_python", "/no/such/python")
    assert sampled("drawn", *again, "--concurrency", "2") == drawn


def test_judge_responses_come_from_a_vllm_server(base: str) -> None:
    asked = [comparison((True, False)), comparison((False, True))]
    engine = VllmServer(python=os.environ[VARIABLE], environment=OFFLINE)
    source = SampledResponses(base, num_responses=4, max_new_tokens=12, engine=engine)
    answers = source.respond(asked)
    source.close()
    assert [len(answer.responses) for answer in answers] == [4, 4]
    assert len({response.text for answer in answers for response in answer.responses}) > 4
    assert engine.supervisor is not None
    assert engine.supervisor.process is None
