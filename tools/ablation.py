"""Do learned weights help, and is there a simpler way? Scenarios with known truth, and baselines at equal samples.

    python tools/study_noise.py prepare                  # executes two banks, makes the base: ten minutes
    python tools/ablation.py run --seeds 0:20            # appends to runs/ablation/runs.jsonl; skips what is there
    python tools/ablation.py run --quick                 # two seeds of two scenarios, three methods: a minute
    python tools/ablation.py report --csv docs/ablation.csv

A run takes some three seconds of CPU, under GRPO thirty. Seeds come one after the other, each with all that is asked
for, so that the finished seeds are always complete. Data and methods: tools/ablation_data.py and
tools/ablation_methods.py; preregistered in docs/study.md. The primary metric is forced-choice accuracy on the clean
test pairs, against the best baseline; the area under the curve of the weights says whether they found the bad labels.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ablation_data import DOMAINS, NOISE, ROOT, SCENARIOS, Pools, Scenario, make
from ablation_methods import (
    META_DOMAIN,
    NUM_LOOKS,
    OUTER,
    FixedWeights,
    GroupDRO,
    Method,
    Outcome,
    RobustNet,
    SmallLoss,
    auc,
    train,
)
from daj_lightning.bilevel import DomainWeights, InstanceTable
from daj_lightning.objectives import GRPO, KTO, ORPO, Objective
from daj_lightning.training import Rollouts

OUTPUT = ROOT / "runs.jsonl"
OURS = ("domain", "table", "net", "table, stopped early", "domain, meta among the data")
FIRST: Mapping[str, Method] = {
    "none": Method(),
    "domain": Method(DomainWeights, OUTER["domain"]),
    "table": Method(InstanceTable, OUTER["table"]),
    "net": Method(RobustNet, OUTER["net"]),
    "table, stopped early": Method(InstanceTable, OUTER["table"], stops_early=True),
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
SIMPLE = (*(name for name in FIRST if name not in OURS), "inverse domain size")
"""Baselines that learn no weight; the others reuse what a run of ours has learned."""
EVERY = (*FIRST, *AFTERWARDS)
EVEN_ONLY = tuple(name for name in EVERY if name != "inverse domain size")
"""Where every domain has as many pairs, its inverse size is no weight."""
BRIEF = ("none", "domain", "table", "net", "train and meta", "meta alone", "small loss")
METHODS: Mapping[str, Sequence[str]] = {
    "flipped instances": (*BRIEF, "table, stopped early", "train, then meta", "table, frozen", "table, permuted"),
    "flipped domains": EVEN_ONLY,
    "clean": BRIEF,
    "thinned tests": (*BRIEF, "train, then meta"),
    "easy-heavy": (*BRIEF, "inverse domain size"),
    "other trajectories": BRIEF,
}
"""Where every label is as good as its neighbours, or no domain is worse, fewer ways are worth a run."""
META_SIZES = (8, 128, 1000)
"""Beside the scenarios' own; the last is all there are."""
META_METHODS = ("domain", "table", "train and meta", "meta alone")
OBJECTIVES: Mapping[str, Callable[[], Objective]] = {
    "KTO": lambda: KTO(beta=1.0),
    "ORPO": lambda: ORPO(),
    "GRPO": lambda: GRPO(beta=0.1),
}
"""Of Table 4, beside DPO."""
NUM_TABLE_SEEDS = 3
NUM_META_SEEDS = 10
GROUP_SIZE, RESPONSE_TOKENS = 8, 40


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
    loss_aucs: list[float | None]
    """Of minus the losses, at each look; the last is at the end."""
    domain_weights: dict[str, float]
    window: int
    """Of the state that was tested."""
    cpu_s: float

    @property
    def accuracy(self) -> float:
        right, asked = (sum(column) for column in zip(*self.test.values(), strict=True))
        return right / asked


def run_of(condition: str, seed: int, scenario: Scenario, outcome: Outcome) -> Run:
    def told(value: float) -> float | None:
        return None if np.isnan(value) else round(value, 4)

    per_pair = len(outcome.weights) // len(scenario.is_clean)  # KTO has a sample for each response
    is_clean = [true for true in scenario.is_clean for _ in range(per_pair)]
    return Run(
        condition,
        seed,
        outcome.test,
        told(auc(outcome.weights, is_clean)),
        [told(auc([-loss for loss in losses], is_clean)) for losses in outcome.losses],
        {name: round(weight, 4) for name, weight in outcome.domain_weights.items()},
        outcome.window,
        round(outcome.cpu_s, 1),
    )


def afterwards(name: str, scenario: Scenario, done: Mapping[str, Outcome], seed: int) -> Method:
    """A method that takes its weights from the data, or from a run of the same scenario and seed."""
    domains = [pair.domain for pair in scenario.train]
    if name == "inverse domain size":
        weights = [1 / domains.count(domain) for domain in domains]
    elif name == "meta at its learned share":
        learned = done["domain, meta among the data"].domain_weights
        counts = {**{d: domains.count(d) for d in DOMAINS}, META_DOMAIN: len(scenario.meta)}
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
                    outcomes[source] = train(scenario, FIRST[source], seed)
            chosen = FIRST[method] if method in FIRST else afterwards(method, scenario, outcomes, seed)
            outcomes[method] = train(scenario, chosen, seed)
            self.keep(f"{name} / {method}", seed, scenario, outcomes[method])

    def meta_sizes(self, name: str, seed: int) -> None:
        """Other numbers of meta samples, and a meta set of which many labels are turned."""
        for label, settings in (
            *((f"meta {size}", {"num_meta": size}) for size in META_SIZES),
            ("meta misaligned", {"misaligned": True}),
        ):
            scenario = make(self.pools, name, seed, **settings)  # type: ignore[arg-type]
            for method in META_METHODS:
                condition = f"{name} / {method}, {label}"
                if (condition, seed) not in self.done:
                    self.keep(condition, seed, scenario, train(scenario, FIRST[method], seed))

    def objectives(self, name: str, seed: int) -> None:
        """The paper's Table 4 on the bank; DPO's row is among the methods."""
        scenario = make(self.pools, name, seed)
        for label, objective in OBJECTIVES.items():
            for method in ("none", "domain", "table", "net"):
                condition = f"{name} / {label} {method}"
                if (condition, seed) in self.done:
                    continue
                own = objective()
                rollouts = Rollouts(group_size=GROUP_SIZE, max_new_tokens=RESPONSE_TOKENS) if label == "GRPO" else None
                self.keep(condition, seed, scenario, train(scenario, FIRST[method], seed, own, rollouts))

    def keep(self, condition: str, seed: int, scenario: Scenario, outcome: Outcome) -> None:
        self.done.add((condition, seed))
        run = run_of(condition, seed, scenario, outcome)
        with self.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(run)) + "\n")
        found = f"AUC weights {run.weight_auc} losses {run.loss_aucs}"
        print(f"{condition}, seed {seed}: {run.accuracy:.1%}, {found}, {run.cpu_s} s", flush=True)


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


def complete(runs: Sequence[Run], name: str) -> list[Run]:
    """Without the seeds of that scenario that lack a method which other seeds have."""
    of_seed: dict[int, set[str]] = {}
    for run in runs:
        if run.condition.startswith(f"{name} / ") and run.condition.split(" / ")[1] in EVERY:
            of_seed.setdefault(run.seed, set()).add(run.condition)
    most = max(map(len, of_seed.values()), default=0)
    unfinished = {seed for seed, conditions in of_seed.items() if len(conditions) < most}
    return [run for run in runs if not (run.condition.startswith(f"{name} / ") and run.seed in unfinished)]


def plain(method: str) -> str:
    """What a method is compared with: the same objective without weights."""
    objective, _, _ = method.partition(" ")
    return f"{objective} none" if objective in OBJECTIVES else "none"


def report(runs: Sequence[Run]) -> None:
    """A table for each scenario: accuracy, against none, against the best of the baselines; areas under the curve."""
    print(f"CPU seconds of a run, median: {np.median([run.cpu_s for run in runs]):.0f}")
    for name in SCENARIOS:
        runs = complete(runs, name)
        of: dict[str, list[Run]] = {}
        for run in runs:
            scenario, method = run.condition.split(" / ")
            if scenario == name:
                of.setdefault(method, []).append(run)
        if not of:
            continue
        mean = {method: float(np.mean([run.accuracy for run in own])) for method, own in of.items()}
        best, simple = (
            max((method for method in of if method in names), key=lambda method: mean[method])
            for names in ((*SIMPLE, *AFTERWARDS), SIMPLE)
        )
        others = tuple(dict.fromkeys(("none", best, simple)))
        print(f"\n**{name}**: {(SCENARIOS[name].__doc__ or '').strip()} Best baseline: {best}.\n")
        header = "method", "seeds", "accuracy", *(f"minus {other}" for other in others), "AUC of weights", "of losses"
        print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
        for method, own in of.items():
            points = [
                "" if method == other else "{:+.1f} [{:+.1f}, {:+.1f}]".format(
                    *difference(runs, f"{name} / {method}", f"{name} / {other}")
                )
                for other in (plain(method), *others[1:])
            ]  # fmt: skip
            aucs = [
                mean_of([run.weight_auc for run in own]),
                mean_of([run.loss_aucs[-1] for run in own if run.loss_aucs]),
            ]
            cells = method, str(len(own)), f"{mean[method]:.1%}", *points, *aucs
            print(f"| {' | '.join(cells)} |")

        if of["none"][0].loss_aucs[-1] is not None:
            beside_losses({method: of[method] for method in OURS if method in of}, of["none"])


def beside_losses(ours: Mapping[str, Sequence[Run]], none: Sequence[Run]) -> None:
    """AUC of learned weights, minus that of the losses of plain training at the end, and at its best look."""
    looks = [mean_of([run.loss_aucs[k] for run in none]) for k in range(len(none[0].loss_aucs))]
    means = [np.mean([run.loss_aucs[k] for run in none]) for k in range(len(looks))]  # type: ignore[arg-type]
    best = int(np.argmax(means))
    print(f"\nLosses of none at its {len(looks)} looks: {', '.join(looks)}. Seeds drawn with replacement, 95 %:\n")
    print(f"| weights | AUC | minus none's final losses | minus those at look {best + 1} |\n|---|---|---|---|")
    of_seed = {run.seed: run for run in none}
    for method, runs in ours.items():
        own = np.array([run.weight_auc for run in runs], dtype=float)
        of_losses = np.array([of_seed[run.seed].loss_aucs for run in runs], dtype=float)
        drawn = np.random.default_rng(0).integers(len(runs), size=(10_000, len(runs)))
        cells = []
        for values in (own, own - of_losses[:, -1], own - of_losses[:, best]):
            low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
            cells.append(f"{values.mean():.3f} [{low:.3f}, {high:.3f}]")
        print(f"| {method} | {' | '.join(cells)} |")


def mean_of(values: Sequence[float | None]) -> str:
    """With the standard error over seeds; empty where there is nothing to tell apart."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    error = np.std(known, ddof=1) / np.sqrt(len(known)) if len(known) > 1 else float("nan")
    return f"{np.mean(known):.3f} ± {error:.3f}"


def write_csv(runs: Sequence[Run], path: Path) -> None:
    """A line a run."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        of_looks = [f"auc_losses_{k + 1}_of_{NUM_LOOKS}" for k in range(NUM_LOOKS)]
        writer.writerow(["condition", "seed", "test_accuracy", "auc_weights", *of_looks, "window", "cpu_s"])
        for run in sorted(runs, key=lambda r: (r.condition, r.seed)):
            looks = run.loss_aucs or [None] * NUM_LOOKS
            aucs = ["" if value is None else value for value in (run.weight_auc, *looks)]
            writer.writerow([run.condition, run.seed, f"{run.accuracy:.4f}", *aucs, run.window, run.cpu_s])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--seeds", default="0:20", help="first:end; of a report too")
    parser.add_argument("--scenarios", nargs="*", choices=list(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument(
        "--meta_sizes", action="store_true", help="of flipped instances: smaller, larger and misaligned meta sets"
    )
    parser.add_argument("--objectives", action="store_true", help="the paper's Table 4 on flipped domains")
    parser.add_argument("--quick", action="store_true", help="two seeds, two scenarios, three methods")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--csv", type=Path, help="of the report: a line a run")
    args = parser.parse_args()
    first, end = map(int, args.seeds.split(":"))
    if args.what == "report":
        runs = [run for run in read_runs(args.output) if first <= run.seed < end]
        report(runs)
        if args.csv:
            write_csv(runs, args.csv)
        return
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    study, methods = Study(args.output), METHODS
    if args.quick:
        end = first + 2
        args.scenarios, methods = (
            ["clean", "flipped domains"],
            dict.fromkeys(SCENARIOS, ("none", "domain", "meta alone")),
        )
    for seed in range(first, end):
        for name in args.scenarios:
            study.run(name, seed, methods[name])
        if args.meta_sizes and seed < NUM_META_SEEDS:
            study.meta_sizes("flipped instances", seed)
        if args.objectives and seed < NUM_TABLE_SEEDS:
            study.objectives("flipped domains", seed)


if __name__ == "__main__":
    main()
