"""Rollouts a second: transformers in this process against a vLLM server, and what a sync costs.

    python tools/bench_rollout.py --python .vllm-venv/bin/python

Random Qwen3 models in float32 with LoRA r = 8 on every projection, moved off B = 0. A round is one sync and one
call for 4 prompts x 16 rollouts of 64 tokens at temperature 1, by each engine in turn; medians over rounds, after one
that is not counted. Adapters move before every round, so no prompt is in the server's prefix cache. CPU time is of
this process, and of all processes of the server. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from daj_lightning.judge import Judge
from daj_lightning.rollout import Policy, RolloutEngine, Sampling, TransformersEngine, VllmServer

PAD, EOS = 0, 1
SHAPES = {
    "140 k": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,  # vLLM's CPU attention has no 16
        "vocab_size": 1024,
    },
    "20 M": {
        "hidden_size": 384,
        "intermediate_size": 1024,
        "num_hidden_layers": 8,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "vocab_size": 16384,
    },
}


class Round(NamedTuple):
    """What one engine took for one sync and one call."""

    sync_s: float
    rollout_s: float
    cpu_s: float
    tokens: int


def make_judge(shape: str, directory: str) -> Judge:
    torch.manual_seed(0)
    config = Qwen3Config(
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        **SHAPES[shape],
    )
    Qwen3ForCausalLM(config).save_pretrained(directory)
    judge = Judge(directory, "float32", lora_r=8, lora_alpha=16)
    judge.load()
    return judge


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of all below it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(cpu_seconds(int(child)) for child in below)


def measure(engine: RolloutEngine, version: int, prompts: list[list[int]], sampling: Sampling) -> Round:
    def cpu() -> float:
        if isinstance(engine, VllmServer):
            assert engine.supervisor is not None
            assert engine.supervisor.process is not None
            return cpu_seconds(engine.supervisor.process.pid) + time.process_time()
        return time.process_time()

    start, cpu_start = time.perf_counter(), cpu()
    engine.sync(version)
    synced = time.perf_counter()
    groups = engine.generate(prompts, sampling)
    end = time.perf_counter()
    return Round(synced - start, end - synced, cpu() - cpu_start, sum(len(r.token_ids) for g in groups for r in g))


def row(shape: str, name: str, rounds: list[Round]) -> str:
    def median(values: list[float]) -> float:
        return statistics.median(values)

    speed = [r.tokens / r.rollout_s for r in rounds]
    sync_ms = 1e3 * median([r.sync_s for r in rounds])
    cpu_s = 1e6 * median([r.cpu_s / r.tokens for r in rounds])
    return (
        f"| {shape} | {name} | {median(speed):.0f} ({min(speed):.0f}-{max(speed):.0f}) | {cpu_s:.0f} | {sync_ms:.1f} | "
        f"{median([r.sync_s + r.rollout_s for r in rounds]):.2f} |"
    )


def compare(shape: str, python: str | None, num_rounds: int, prompts: int, samples: int, tokens: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        judge = make_judge(shape, directory)
        policy = Policy(judge.policy, directory, EOS, PAD)
        sampling = Sampling(tokens, 1.0, num_samples=samples)
        asked = torch.randint(2, SHAPES[shape]["vocab_size"], (prompts, 200)).tolist()
        engines: dict[str, RolloutEngine] = {"transformers": TransformersEngine(), "vLLM": VllmServer(python=python)}
        rounds: dict[str, list[Round]] = {name: [] for name in engines}
        try:
            for engine in engines.values():
                engine.connect(policy)
            for version in range(num_rounds + 1):
                with torch.no_grad():
                    for parameter in judge.trained_parameters():
                        parameter.normal_(std=0.02)
                for name, engine in engines.items():
                    rounds[name].append(measure(engine, version, asked, sampling))
        finally:
            for engine in engines.values():
                engine.close()
    for name in engines:
        print(row(shape, name, rounds[name][1:]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="interpreter of an environment with vllm")
    parser.add_argument("--shape", choices=SHAPES, action="append", help="default: all")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1, help="of torch in this process")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} CPUs, load {load:.1f} at the start, {arguments.threads} threads in this process")
    print(f"{arguments.prompts} prompts x {arguments.samples} x {arguments.tokens} tokens, {arguments.rounds} rounds\n")
    print("| parameters | engine | tokens/s, median (range) | CPU s per 1 M tokens | sync ms | s per step |")
    print("|---|---|---|---|---|---|")
    for shape in arguments.shape or SHAPES:
        compare(shape, arguments.python, arguments.rounds, arguments.prompts, arguments.samples, arguments.tokens)


if __name__ == "__main__":
    main()
