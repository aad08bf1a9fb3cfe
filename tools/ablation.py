"""Do learned weights help, and is there a simpler way? Scenarios with known truth, and baselines at equal samples.

    python tools/ablation.py prepare                     # executes the bank's programs, trains two judges: half an hour
    python tools/ablation.py run --seeds 0:20            # appends to runs/ablation/runs.jsonl; skips what is there
    python tools/ablation.py run --quick                 # two seeds of two scenarios, three methods: some five minutes
    python tools/ablation.py report                      # a table for each scenario

A run takes some twenty seconds of CPU. Data and methods: tools/ablation_data.py and tools/ablation_methods.py. The
primary metric is forced-choice accuracy on the clean test pairs, against the best baseline; the area under the curve
of the weights says whether they found the bad labels.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ablation_data import NOISE, ROOT, SCENARIOS, Pools, Scenario, make, prepare_banks
from ablation_methods import (
    META_DOMAIN,
    NUM_JUDGES,
    OUTER,
    FixedWeights,
    GroupDRO,
    Method,
    Outcome,
    SmallLoss,
    auc,
    pretrain,
    train,
)
from daj_lightning.bilevel import DomainWeights, InstanceNet, InstanceTable, Uniform
from daj_lightning.data.datamodule import LCB_DOMAINS
from daj_lightning.objectives import KTO, ORPO, Objective

OUTPUT = ROOT / "runs.jsonl"
OURS = ("domain", "table", "net", "domain, meta among the data")
FIRST: Mapping[str, Method] = {
    "none": Method(Uniform),
    "domain": Method(DomainWeights, OUTER["domain"]),
    "table": Method(InstanceTable, OUTER["table"]),
    "net": Method(InstanceNet, OUTER["net"]),
    "domain, meta among the data": Method(DomainWeights, OUTER["domain"], "union", with_meta_domain=True),
    "train and meta": Method(mixture="union"),
    "train, then meta": Method(mixture="train then meta"),
    "meta alone": Method(mixture="meta"),
    "small loss": Method(partial(SmallLoss, keep=1 - NOISE)),
    "group DRO": Method(GroupDRO),
}
"""Name -> method. Those below need the data or another run's weights."""
AFTERWARDS = (
    "inverse domain size",
    "meta at its learned share",
    "domain weights, frozen",
    "table, frozen",
    "table, permuted",
)
META_SIZES = (8, 32)
OBJECTIVES: Mapping[str, Callable[[], Objective]] = {
    "KTO": lambda: KTO(beta=1.0),
    "ORPO": lambda: ORPO(),
}


@dataclass(frozen=True)
class Run:
    """One line of the results."""

    condition: str
    """scenario / method, and what else differs."""
    seed: int
    test: dict[str, list[int]]
    """Family -> [right, asked]."""
    weight_auc: float | None
    """Of the final weights against whether the label is true; None where all are."""
    loss_auc: float | None
    """Of minus the final losses."""
    domain_weights: dict[str, float]
    cpu_s: float

    @property
    def accuracy(self) -> float:
        right, asked = (sum(column) for column in zip(*self.test.values(), strict=True))
        return right / asked


def run_of(condition: str, seed: int, scenario: Scenario, outcome: Outcome) -> Run:
    def told(value: float) -> float | None:
        return None if np.isnan(value) else round(value, 4)

    per_pair = len(outcome.weights) // len(scenario.is_clean)  # KTO's samples are the two responses
    is_clean = [true for true in scenario.is_clean for _ in range(per_pair)]
    return Run(
        condition,
        seed,
        outcome.test,
        told(auc(outcome.weights, is_clean)),
        told(auc([-loss for loss in outcome.losses], is_clean)),
        {name: round(weight, 4) for name, weight in outcome.domain_weights.items()},
        round(outcome.cpu_s, 1),
    )


def afterwards(name: str, scenario: Scenario, done: Mapping[str, Outcome], seed: int) -> Method:
    """A method that takes its weights from the data, or from a run of the same scenario and seed."""
    domains = [pair.domain for pair in scenario.train]
    if name == "inverse domain size":
        weights = [1 / domains.count(domain) for domain in domains]
    elif name == "meta at its learned share":
        learned = done["domain, meta among the data"].domain_weights
        counts = {**{d: domains.count(d) for d in LCB_DOMAINS}, META_DOMAIN: len(scenario.meta)}
        mass = {domain: learned[domain] * count for domain, count in counts.items()}
        return Method(mixture="union", meta_share=mass[META_DOMAIN] / sum(mass.values()))
    elif name == "domain weights, frozen":
        weights = [done["domain"].domain_weights[domain] for domain in domains]
    else:
        weights = list(done["table"].weights)
        if name == "table, permuted":
            weights = permuted(weights, domains, seed)
    return Method(partial(FixedWeights, weights))


def permuted(weights: Sequence[float], domains: Sequence[str], seed: int) -> list[float]:
    """Weights exchanged at random among the samples of each domain."""
    rng, result = random.Random(f"{seed}/permuted"), list(weights)
    for domain in sorted(set(domains)):
        own = [i for i, name in enumerate(domains) if name == domain]
        for i, j in zip(own, rng.sample(own, len(own)), strict=True):
            result[i] = weights[j]
    return result


class Study:
    """Runs conditions that are not in the file yet."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.done = {(run.condition, run.seed) for run in read_runs(output)}
        self.pools = Pools()

    def run(self, name: str, seed: int, methods: Sequence[str]) -> None:
        """A scenario's methods at a seed. What a later one needs of an earlier is run again after an interruption."""
        scenario = make(self.pools, name, seed)
        outcomes: dict[str, Outcome] = {}
        needed = {"meta at its learned share": "domain, meta among the data", "domain weights, frozen": "domain"}
        for method in methods:
            if (f"{name} / {method}", seed) in self.done:
                continue
            if method in AFTERWARDS:
                source = needed.get(method, "table")
                if method != "inverse domain size" and source not in outcomes:
                    outcomes[source] = train(scenario, FIRST[source], seed)[0]
            chosen = FIRST[method] if method in FIRST else afterwards(method, scenario, outcomes, seed)
            outcomes[method] = self.keep(f"{name} / {method}", seed, scenario, chosen)

    def meta_sizes(self, name: str, seed: int) -> None:
        """Fewer meta samples, and a meta set of which many labels are turned."""
        for label, settings in (
            *((f"meta {size}", {"num_meta": size}) for size in META_SIZES),
            ("meta misaligned", {"misaligned": True}),
        ):
            scenario = make(self.pools, name, seed, **settings)  # type: ignore[arg-type]
            for method in ("domain", "table", "train and meta", "meta alone"):
                self.keep(f"{name} / {method}, {label}", seed, scenario, FIRST[method])

    def objectives(self, name: str, seed: int) -> None:
        """The paper's Table 4 on the bank."""
        scenario = make(self.pools, name, seed)
        for label, objective in OBJECTIVES.items():
            for method in ("none", "domain", "table", "net"):
                self.keep(f"{name} / {label} {method}", seed, scenario, FIRST[method], objective())

    def keep(
        self, condition: str, seed: int, scenario: Scenario, method: Method, objective: Objective | None = None
    ) -> Outcome:
        outcome, _ = train(scenario, method, seed, objective)
        if (condition, seed) not in self.done:
            self.done.add((condition, seed))
            run = run_of(condition, seed, scenario, outcome)
            with self.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(run)) + "\n")
            print(
                f"{condition}, seed {seed}: {run.accuracy:.1%}, AUC weights {run.weight_auc} losses {run.loss_auc}, "
                f"{run.cpu_s} s",
                flush=True,
            )
        return outcome


def read_runs(path: Path) -> list[Run]:
    return [Run(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def tables(runs: Sequence[Run], condition: str, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Right answers and questions, (seeds, families) each."""
    of_seed = {run.seed: run.test for run in runs if run.condition == condition}
    families = sorted(of_seed[seeds[0]])
    table = np.array([[of_seed[seed][name] for name in families] for seed in seeds])
    return table[..., 0], table[..., 1]


def difference(runs: Sequence[Run], first: str, second: str, draws: int = 10_000) -> tuple[float, float, float]:
    """Accuracy of first minus second in points: (value, low, high), 95 %, seeds and families drawn with replacement."""
    seeds = sorted({r.seed for r in runs if r.condition == first} & {r.seed for r in runs if r.condition == second})
    (right_a, asked), (right_b, _) = (tables(runs, name, seeds) for name in (first, second))
    gain = (right_a - right_b).astype(float)
    rng = np.random.default_rng(0)
    rows = rng.integers(gain.shape[0], size=(draws, gain.shape[0], 1))
    columns = rng.integers(gain.shape[1], size=(draws, 1, gain.shape[1]))
    values = 100 * gain[rows, columns].sum(axis=(1, 2)) / asked[rows, columns].sum(axis=(1, 2))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(100 * gain.sum() / asked.sum()), float(low), float(high)


def report(runs: Sequence[Run]) -> None:
    """A table for each scenario: accuracy, against none, against the best of the baselines; areas under the curve."""
    for name in SCENARIOS:
        own = [run for run in runs if run.condition.startswith(f"{name} / ")]
        conditions = list(dict.fromkeys(run.condition for run in own))
        if not conditions:
            continue
        of = {c: [run for run in own if run.condition == c] for c in conditions}
        method = {c: c.removeprefix(f"{name} / ") for c in conditions}
        mean = {c: float(np.mean([run.accuracy for run in of[c]])) for c in conditions}
        baselines = [c for c in conditions if method[c] not in OURS and method[c] in (*FIRST, *AFTERWARDS)]
        best = max(baselines, key=lambda c: mean[c])
        print(f"\n**{name}**: {(SCENARIOS[name].__doc__ or '').strip()} Best baseline: {method[best]}.\n")
        print(
            "| method | seeds | test accuracy | minus none | minus the best baseline | AUC of weights | AUC of losses |"
        )
        print("|---|---|---|---|---|---|---|")
        for c in conditions:
            against = [f"{name} / none", best]
            points = [
                "" if c == other else "{:+.1f} [{:+.1f}, {:+.1f}]".format(*difference(runs, c, other))
                for other in against
            ]
            aucs = [mean_of([run.weight_auc for run in of[c]]), mean_of([run.loss_auc for run in of[c]])]
            print(f"| {method[c]} | {len(of[c])} | {mean[c]:.1%} | {' | '.join(points)} | {' | '.join(aucs)} |")


def mean_of(values: Sequence[float | None]) -> str:
    """With the standard error over seeds; empty where there is nothing to tell apart."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    error = np.std(known, ddof=1) / np.sqrt(len(known)) if len(known) > 1 else float("nan")
    return f"{np.mean(known):.3f} ± {error:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("prepare", "run", "report"))
    parser.add_argument("--seeds", default="0:20", help="first:end")
    parser.add_argument("--scenarios", nargs="*", choices=list(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--methods", nargs="*", choices=[*FIRST, *AFTERWARDS], default=[*FIRST, *AFTERWARDS])
    parser.add_argument(
        "--meta_sizes", action="store_true", help="of flipped domains: smaller and misaligned meta sets"
    )
    parser.add_argument("--objectives", action="store_true", help="the paper's Table 4, of flipped domains")
    parser.add_argument("--quick", action="store_true", help="two seeds, two scenarios, three methods")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args()
    if args.what == "report":
        report(read_runs(args.output))
        return
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    if args.what == "prepare":
        prepare_banks()
        for index in range(NUM_JUDGES):
            pretrain(index)
        return
    study = Study(args.output)
    if args.quick:
        args.seeds, args.scenarios, args.methods = "0:2", ["clean", "flipped domains"], ["none", "domain", "meta alone"]
    for seed in range(*map(int, args.seeds.split(":"))):
        for name in args.scenarios:
            study.run(name, seed, args.methods)
        if args.meta_sizes:
            study.meta_sizes("flipped domains", seed)
        if args.objectives:
            study.objectives("flipped domains", seed)


if __name__ == "__main__":
    main()
