"""Do learned weights help, and is there a simpler way? Scenarios with known truth, and baselines at equal samples.

    python tools/study_noise.py prepare                  # executes two banks, makes the base: ten minutes
    python tools/ablation.py run --seeds 0:20            # appends to runs/ablation/runs.jsonl; skips what is there
    python tools/ablation.py run --quick                 # two seeds of two scenarios, three methods: a minute
    python tools/ablation.py report --csv docs/ablation.csv

A run takes some four seconds of CPU, under GRPO forty. Seeds come one after the other, each with all that is asked
for, so that the finished seeds are always complete. Data, methods, what is run and the tables: tools/ablation_*.py;
preregistered in docs/study.md. The primary metric is forced-choice accuracy on the clean
test pairs, against the best baseline; the area under the curve of the weights says whether they found the bad labels.
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from ablation_conditions import (
    AFTERWARDS,
    FIRST,
    GROUP_SIZE,
    META_METHODS,
    META_SIZES,
    METHODS,
    NUM_META_SEEDS,
    NUM_TABLE_SEEDS,
    OBJECTIVES,
    RESPONSE_TOKENS,
    afterwards,
)
from ablation_data import ROOT, SCENARIOS, Pools, Scenario, make
from ablation_methods import Outcome, train
from ablation_report import read_runs, report, run_of, write_csv
from daj_lightning.training import Rollouts

OUTPUT = ROOT / "runs.jsonl"


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
