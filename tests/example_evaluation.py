"""An evaluation of every kind of record, from simulated judges on simulated candidates; and one of baselines alone.

Scores are real bootstraps of simulated answers, so that values, intervals and counts belong together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np

from daj_lightning.evaluation.metrics import Score, bootstrap
from daj_lightning.evaluation.results import (
    CurvePoint,
    Evaluation,
    Failure,
    JudgeResult,
    PairedTest,
    TrainingSample,
    WeightHistory,
)

DIFFICULTY = ["easy"] * 31 + ["medium"] * 39 + ["hard"] * 61
PASS_RATE = {"easy": 0.9, "medium": 0.6, "hard": 0.3}
NUM_CANDIDATES = 8
DOMAINS = ("AtCoder-easy", "AtCoder-medium", "AtCoder-hard", "LeetCode-easy", "LeetCode-medium", "LeetCode-hard")


class Simulation:
    """Candidates of 131 problems, and judges that pick a right one with a given probability."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        rates = np.array([PASS_RATE[level] for level in DIFFICULTY])
        own = self.random.beta(2 * rates, 2 * (1 - rates))
        self.passed = self.random.random((len(DIFFICULTY), NUM_CANDIDATES)) < own[:, None]

    def picks(self, accuracy: float, num_candidates: int = NUM_CANDIDATES) -> np.ndarray:
        """Per problem: did the judge pick a right program."""
        group = self.passed[:, :num_candidates]
        chance = self.random.random(len(group)) < group.mean(axis=1)
        return np.where(self.random.random(len(group)) < accuracy, group.any(axis=1), chance).astype(float)

    def by_level(self, values: np.ndarray, keep: np.ndarray | None = None) -> dict[str, Score]:
        kept = np.ones(len(DIFFICULTY), bool) if keep is None else keep
        scores = {"overall": bootstrap([[value] for value in values[kept]])}
        for level in PASS_RATE:
            own = kept & (np.array(DIFFICULTY) == level)
            scores[level] = bootstrap([[value] for value in values[own]])
        return scores

    def gap(self, values: np.ndarray) -> dict[str, Score]:
        mixed = self.passed.any(axis=1) & ~self.passed.all(axis=1)
        random = self.passed.mean(axis=1)
        scores = {}
        for level in ("overall", *PASS_RATE):
            own = np.flatnonzero(mixed & ((level == "overall") | (np.array(DIFFICULTY) == level)))
            draws = self.random.choice(own, (500, len(own)))
            recovered = (values[draws] - random[draws]).mean(1) / (1 - random[draws]).mean(1)
            value = (values[own] - random[own]).mean() / (1 - random[own]).mean()
            low, high = np.quantile(recovered, [0.025, 0.975])
            scores[level] = Score(float(value), float(low), float(high), len(own))
        return scores


@cache
def full_evaluation() -> Evaluation:
    """Three judges; every section has something to show."""
    world = Simulation()
    judges = [
        _judge(world, "DPO, instance net", "judgments/dpo_net.jsonl: answers of `evaluate`", 0.68, True),
        _judge(world, "DPO, none", "judgments/dpo_none.jsonl: answers of `evaluate`", 0.52, True),
        _judge(world, "Skywork-o1-Open-PRM", "skywork.jsonl: imported scores of a reward model", 0.2, False),
    ]
    bounds: dict[str, Callable[[np.ndarray], float]] = {"random": np.mean, "oracle": np.max}
    accuracies = {"DPO, instance net": 0.68, "DPO, none": 0.52}
    return Evaluation(
        title="Judges of the ablation on LiveCodeBench, February to May 2025",
        facts={
            "benchmark": "LiveCodeBench",
            "policy": "Qwen2.5-Coder-32B",
            "problems": "131 released from 2025-02-01 to 2025-04-30: 31 easy, 39 medium, 61 hard",
            "candidates": "1,048, eight a problem",
            "verdicts": "data/labels.jsonl, sha256 " + "9f2c" * 16,
            "command": "python -m daj_lightning evaluate --data data/lcb --judgments judgments/*.jsonl",
            "versions": "daj-lightning 0.1.0, torch 2.13.0, transformers 5.23",
        },
        baselines={
            **{rule: world.by_level(np.array([f(row) for row in world.passed])) for rule, f in bounds.items()},
            "first": world.by_level(world.passed[:, 0].astype(float)),
            "longest": world.by_level(world.picks(0.1)),
            "shortest": world.by_level(world.picks(0.0)),
            "more layout": world.by_level(world.picks(0.05)),
            "stronger policy": world.by_level(world.picks(0.5)),
            "clustering by output": world.by_level(world.picks(0.6)),
        },
        judges=judges,
        tests=[
            PairedTest("DPO, instance net", "DPO, none", "McNemar, exact", Score(0.041, 0.008, 0.075, 84), 0.0213),
            PairedTest(
                "DPO, none",
                "Skywork-o1-Open-PRM",
                "paired bootstrap over problems",
                Score(-0.012, -0.061, 0.038, 84),
                None,
            ),
        ],
        by_num_candidates={
            n: {
                "random": bootstrap([[row[:n].mean()] for row in world.passed]),
                "oracle": bootstrap([[float(row[:n].any())] for row in world.passed]),
                **{name: bootstrap([[v] for v in world.picks(rate, n)]) for name, rate in accuracies.items()},
            }
            for n in (1, 2, 4, 8)
        },
        weights=_weights(),
        helpful=[_sample(i, 3.1e-3 / (i + 1), 1.6 - 0.1 * i) for i in range(4)],
        harmful=[_sample(i + 40, -2.4e-3 / (i + 1), 0.08 + 0.05 * i) for i in range(4)],
        failures=[_failure(i) for i in range(3)],
    )


def baselines_only() -> Evaluation:
    """No judge: what picking without one would score."""
    world = Simulation()
    means = {"random": world.passed.mean(axis=1), "oracle": world.passed.any(axis=1).astype(float)}
    return Evaluation(
        title="Candidates without a judge",
        facts={"problems": "131", "benchmark": "bank"},
        baselines={rule: {"overall": bootstrap([[value] for value in values])} for rule, values in means.items()},
        judges=[],
    )


def _judge(world: Simulation, name: str, origin: str, accuracy: float, asked: bool) -> JudgeResult:
    picked = world.picks(accuracy)

    def share(rate: float) -> Score:
        return bootstrap([list((world.random.random(4) < rate).astype(float)) for _ in range(84)])

    pairwise = {
        "single order": share(0.5 + accuracy / 2),
        "both correct": share(0.2 + accuracy / 2),
        "consistency": share(0.4 + accuracy / 2),
        "first position": share(0.55),
        "null rate": share(0.02),
        "transitivity": share(0.93),
        "NDCG": share(0.6 + accuracy / 3),
    }
    curve = [
        CurvePoint(strategy, n, cost, bootstrap([[v] for v in world.picks(accuracy * reach, n)]))
        for n in (4, NUM_CANDIDATES)
        for strategy, cost, reach in (
            ("Voting(rounds=8)", 8.0, 0.6),
            ("Voting(rounds=16)", 16.0, 0.75),
            ("Voting(rounds=32)", 32.0, 0.9),
            ("Knockout()", n - 1.0, 0.85),
            ("Knockout(both_orders=True)", 2.0 * n - 2, 0.95),
            ("RoundRobin()", n * (n - 1) / 2, 1.0),
            ("Adaptive(max_comparisons=7)", 6.1, 0.8),
            ("Adaptive(max_comparisons=14)", 10.9, 0.98),
            ("Adaptive(max_comparisons=28)", 15.2, 1.05),
        )
    ]
    return JudgeResult(
        name, origin, world.by_level(picked), world.gap(picked), pairwise if asked else {}, curve if asked else ()
    )


def _weights() -> WeightHistory:
    random = np.random.default_rng(1)
    windows = list(range(8, 301, 7))
    final = (0.6, 1.1, 1.7, 0.35, 0.9, 1.35)
    by_domain = {
        domain: [
            math.nan if random.random() < 0.05 else 1 + (end - 1) * (1 - math.exp(-w / 90)) + 0.02 * random.normal()
            for w in windows
        ]
        for domain, end in zip(DOMAINS, final, strict=True)
    }
    spread = [0.15, 0.35, 0.5, 0.6]
    quantiles = [[1 - 1.5 * s, 1 - 0.6 * s, 1 + 0.1 * s, 1 + 0.7 * s, 1 + 1.8 * s] for s in spread]
    return WeightHistory(windows, by_domain, quantiles)


CODE = """import sys


def main() -> None:
    numbers = [int(word) for word in sys.stdin.read().split()[1:]]
    best = current = {start}
    for number in numbers[{first}:]:
        current = max(number, current + number)  # either start afresh here, or carry on with what came before it
        best = max(best, current)
    print(best)


main()
"""

REASONING = """STEP 1: both programs are complete.
STEP 2: both follow Kadane's recurrence. Solution 1 starts from {start}.
STEP 3: with all numbers negative, {claim}
STEP 4: output format is right in both.
STEP 5: linear time.

<selection>{selection}</selection>
"""


def _sample(i: int, influence: float, weight: float) -> TrainingSample:
    chosen = REASONING.format(start="0", claim="Solution 1 prints 0, which is not a sum of any part.", selection=2)
    rejected = REASONING.format(start="0", claim="both print the largest number.", selection=1)
    prompt = "===PROGRAMMING PROBLEM===\nTitle: Largest sum of a part\n\n" + CODE.format(start="0", first="0")
    return TrainingSample(i * 17, DOMAINS[i % len(DOMAINS)], influence, weight, 9 - i % 4, prompt, chosen, rejected)


def _failure(i: int) -> Failure:
    programs = (CODE.format(start="0", first="0"), CODE.format(start="numbers[0]", first="1"))
    return Failure(
        judge="DPO, instance net",
        problem_id=f"abc{391 + i}_d",
        difficulty=("hard", "medium", "easy")[i % 3],
        statement="You are given a sequence of $N$ integers, which may be negative.\n\nPrint the largest sum of a "
        "contiguous part that is not empty.\n\nConstraints\n\n- $1 \\leq N \\leq 2 \\times 10^5$\n"
        "- $-10^9 \\leq A_i \\leq 10^9$\n\nInput\n\nN\nA_1 A_2 ... A_N",
        programs=programs,
        passed=(False, True),
        selection=None if i == 1 else 0,
        response=REASONING.format(start="0", claim="both print the largest number.", selection=1),
    )


HOSTILE = (
    "</pre></details><script>alert('x')</script><img src=x onerror=alert(1)>]]><!-- <style>*{display:none}</style>"
    "\n```\n````\n# not a heading\n[click](javascript:alert(1)) | cell | \x00 \u202eevil\u202c \u200b \ud800 &lt;b&gt; "
    "\x1b[31m {{ 7*7 }} {% raw %} \"' `code` שלום"
)


def hostile_evaluation() -> Evaluation:
    """Every text from outside is an attack; one program is a megabyte."""
    full = full_evaluation()
    name = HOSTILE.replace("\n", " ")
    long = "x" * 1_000_000
    sample = replace(full.helpful[0], domain=name, prompt=HOSTILE, chosen=HOSTILE, rejected=HOSTILE + "\nother")
    failure = replace(
        full.failures[0],
        judge=name,
        problem_id=name,
        difficulty=name,
        statement=HOSTILE,
        programs=(HOSTILE, long),
        response=HOSTILE,
    )
    assert full.weights is not None
    return replace(
        full,
        title=name,
        facts={name: HOSTILE, "benchmark": name, "policy": name, "long": long},
        baselines={**full.baselines, name: full.baselines["first"]},
        judges=[
            replace(judge, name=f"{i} {name}", origin=name, pairwise={**judge.pairwise, name: judge.pairwise["NDCG"]})
            if judge.pairwise
            else judge
            for i, judge in enumerate(full.judges)
        ],
        tests=[PairedTest(name, long, name, Score(0.1, 0.0, 0.2, 3), 0.5)],
        by_num_candidates={2: {**full.by_num_candidates[2], name: full.by_num_candidates[2]["random"]}},
        weights=WeightHistory(
            full.weights.windows, {name: full.weights.by_domain["AtCoder-easy"]}, full.weights.quantiles
        ),
        helpful=[sample],
        harmful=[replace(sample, rejected=long)],
        failures=[failure],
    )
