"""Which way of crediting samples learns the better weights? A preregistered study (docs/study.md).

    python tools/study_learning.py pretrain                  # two judges to start from
    python tools/study_learning.py run --seeds 0:20          # appends to runs/study/runs.jsonl; skips what is there
    python tools/study_learning.py report                    # the tables of docs/results.md

A run is one `fit` of half a minute on the bundled bank, through the command line's own classes. It starts from a
tiny judge that has already learned something (from clean pairs of other problems), because nothing is learned from
random weights in half a minute. Three of the six training domains have every preference swapped (which three, and
everything else random, follows from the seed); the meta set is clean. Conditions differ in nothing but
what `CONDITIONS` says, and share their seeds.

Outcomes: forced-choice accuracy on test pairs (is the right response likelier than the wrong one?), of known
families and of unseen ones, and the mean weight of the swapped domains over that of the clean ones.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer

from daj_lightning.cli import Cli
from daj_lightning.data import JudgeData, PairDataset, TemplatedResponses
from daj_lightning.data.pairs import preference_pairs
from daj_lightning.training import DataReweightedJudge

NUM_JUDGES = 2
"""Pretrained; seed s starts from judge s mod 2."""
NUM_SWAPPED = 3
CONFIGS = ("configs/quickstart.yaml", "configs/study/short.yaml")
DIRECTORY = Path("runs/study")
OUTER_LR = 0.1

CONDITIONS: Mapping[str, Mapping[str, object]] = {
    "none": {"model.reweighter": {"class_path": "daj_lightning.bilevel.Uniform"}},
    "exact": {},
    "frozen": {"model.engine.init_args.preconditioner": "frozen"},
    "identity": {"model.engine.init_args.preconditioner": "identity"},
    "unroll 4": {"model.engine.init_args.unroll_windows": 4},
    "trace 0.9": {"model.engine": {"class_path": "daj_lightning.bilevel.TraceEngine", "init_args": {"decay": 0.9}}},
    "mean of 4 derivatives": {"model.outer_accumulation": 4, "model.outer.lr": 4 * OUTER_LR},
    "average of q 0.8": {"model.meta_decay": 0.8},
    "exact, meta_every 4": {"model.meta_every": 4, "model.outer.lr": 4 * OUTER_LR},
    "average of q 0.5, meta_every 4": {"model.meta_every": 4, "model.meta_decay": 0.5},
}
"""Name -> what it changes. Fewer outer steps go with a rate as many times higher: Adam's steps have the rate's size."""


@dataclass(frozen=True)
class Run:
    """One run's outcomes."""

    condition: str
    seed: int
    swapped: list[str]
    """The domains."""
    weights: dict[str, float]
    """Domain -> alpha; empty for "none"."""
    test: dict[str, list[int]]
    """Family -> [right, asked] on the test problems."""
    unseen: dict[str, list[int]]
    """The same on the unseen families."""
    cpu_s: float
    """Of the windows."""
    split_half: float
    """Mean correlation of d alpha between the halves of a meta batch; NaN where it is not measured."""

    @property
    def ratio(self) -> float:
        """Mean weight of the swapped domains over the clean ones'; 1 without weights."""
        if not self.weights:
            return 1.0
        swapped = [w for name, w in self.weights.items() if name in self.swapped]
        clean = [w for name, w in self.weights.items() if name not in self.swapped]
        return float(np.mean(swapped) / np.mean(clean))

    def accuracy(self, side: str) -> float:
        counts = np.array(list(getattr(self, side).values())).sum(axis=0)
        return float(counts[0] / counts[1])


class CpuTime(Callback):
    """Process CPU seconds from the first window to the last."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start = time.process_time()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds = time.process_time() - self.start


def swapped_domains(seed: int, domains: Sequence[str]) -> list[str]:
    """Three of the six domains; every choice once in 20 seeds in a row."""
    choices = list(itertools.combinations(domains, NUM_SWAPPED))
    random.Random(0).shuffle(choices)
    return list(choices[seed % len(choices)])


def fit(overrides: Mapping[str, object], seed: int) -> tuple[Cli, float]:
    """One run by these overrides of `CONFIGS`; process CPU seconds of its windows."""
    files = [argument for config in CONFIGS for argument in ("--config", config)]
    changes = [f"--{key}={v if isinstance(v, str) else json.dumps(v)}" for key, v in overrides.items()]
    cli = Cli(["fit", *files, *changes], run=False)
    cli.datamodule.seed = seed  # of order and swaps; the prepared files keep theirs
    clock = CpuTime()
    cli.trainer.callbacks.append(clock)  # type: ignore[attr-defined]
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    return cli, clock.seconds


def pretrain(index: int) -> None:
    """Write a judge trained on clean pairs of another bank, adapters merged."""
    overrides = {
        "seed_everything": index,
        "model.judge.init_args.base": str(DIRECTORY / f"cold-{index}"),
        "model.cold_start.seed": index,
        "model.reweighter": {"class_path": "daj_lightning.bilevel.Uniform"},
        "data.source.init_args.seed": 1,
        "data.root": str(DIRECTORY / "pretraining"),
        "data.corrupt": {},
        "data.num_inner": 16,
        "data.max_windows": 240,
    }
    cli, _ = fit(overrides, index)
    accuracy = [sum(column) for column in zip(*forced_choice(cli.model, cli.datamodule, "test").values(), strict=True)]
    print(f"judge {index}: {accuracy[0] / accuracy[1]:.1%} on its own bank's {accuracy[1]} test pairs")
    cli.model.judge.policy.merge_and_unload().save_pretrained(str(DIRECTORY / f"judge-{index}"))
    cli.datamodule.tokenizer.save_pretrained(DIRECTORY / f"judge-{index}")


def train(condition: str, seed: int, domains: Sequence[str]) -> Run:
    swapped = swapped_domains(seed, domains)
    overrides = {
        "seed_everything": seed,
        "data.corrupt": dict.fromkeys(swapped, 1.0),
        "model.cold_start": None,
        "model.judge.init_args.base": str(DIRECTORY / f"judge-{seed % NUM_JUDGES}"),
        **CONDITIONS[condition],
    }
    cli, seconds = fit(overrides, seed)
    module, data = cli.model, cli.datamodule
    assert isinstance(module, DataReweightedJudge)
    assert isinstance(data, JudgeData)
    correlations = module.agreement.values
    return Run(
        condition=condition,
        seed=seed,
        swapped=swapped,
        weights=module.reweighter.named_weights(),
        test=forced_choice(module, data, "test"),
        unseen=forced_choice(module, data, "unseen"),
        cpu_s=seconds,
        split_half=float(np.mean(correlations)) if correlations else float("nan"),
    )


def forced_choice(module: DataReweightedJudge, data: JudgeData, side: str) -> dict[str, list[int]]:
    """Family -> [right, asked]: for how many mixed comparisons is the right response likelier than the wrong one."""
    mixed = [c for c in data.comparisons["test"] if c.kind == "mixed" and c.problem_id in data.difficulty[side]]
    pairs = preference_pairs(mixed, TemplatedResponses(format_error_rate=0.0))
    dataset = PairDataset(pairs, data.tokenizer, data.domains, data.max_length)
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    module.judge.eval()
    with torch.no_grad():
        for i, pair in enumerate(pairs):
            chosen, rejected = module.judge.response_logp(dataset.batch([i])).tolist()
            count = counts[pair.problem_id.rsplit("-", 2)[0]]  # family-number-platform
            count[0] += chosen > rejected
            count[1] += 1
    return dict(counts)


def read_runs(path: Path) -> list[Run]:
    return [Run(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def tables(runs: Sequence[Run], condition: str, seeds: Sequence[int], side: str) -> tuple[np.ndarray, np.ndarray]:
    """Right answers and questions, (seeds, families) each."""
    of_seed = {run.seed: getattr(run, side) for run in runs if run.condition == condition}
    families = sorted({family for counts in of_seed.values() for family in counts})
    table = np.array([[of_seed[seed].get(family, [0, 0]) for family in families] for seed in seeds])
    return table[..., 0], table[..., 1]


def difference(runs: Sequence[Run], first: str, second: str, side: str, draws: int = 10_000) -> tuple[float, ...]:
    """Accuracy of first minus second: (value, low, high), 95 %, seeds and families drawn with replacement."""
    seeds = sorted({r.seed for r in runs if r.condition == first} & {r.seed for r in runs if r.condition == second})
    (right_a, asked), (right_b, _) = (tables(runs, name, seeds, side) for name in (first, second))
    gain = (right_a - right_b).astype(float)
    rng = np.random.default_rng(0)
    values = []
    for _ in range(draws):
        drawn = np.ix_(rng.integers(len(seeds), size=len(seeds)), rng.integers(gain.shape[1], size=gain.shape[1]))
        values.append(gain[drawn].sum() / asked[drawn].sum())
    low, high = np.quantile(values, [0.025, 0.975])
    return float(gain.sum() / asked.sum()), float(low), float(high)


def ratio_change(runs: Sequence[Run], first: str, second: str, draws: int = 10_000) -> tuple[float, ...]:
    """Geometric mean over seeds of first's weight ratio over second's: (value, low, high), seeds drawn."""
    of = {name: {r.seed: r.ratio for r in runs if r.condition == name} for name in (first, second)}
    seeds = sorted(of[first].keys() & of[second].keys())
    logs = np.log([of[first][s] / of[second][s] for s in seeds])
    drawn = np.random.default_rng(0).integers(len(seeds), size=(draws, len(seeds)))
    low, high = np.quantile(logs[drawn].mean(axis=1), [0.025, 0.975])
    return float(np.exp(logs.mean())), float(np.exp(low)), float(np.exp(high))


def report(runs: Sequence[Run]) -> None:
    known = [name for name in CONDITIONS if any(run.condition == name for run in runs)]
    questions = {side: sum(n for _, n in getattr(runs[0], side).values()) for side in ("test", "unseen")}
    print(f"{len({r.seed for r in runs})} seeds, {questions['test']} test pairs, {questions['unseen']} unseen pairs\n")
    columns = ("condition", "test accuracy", "unseen accuracy", "weight ratio", "ratio <= 0.5", "split-half", "CPU s")
    print(f"| {' | '.join(columns)} |")
    print("|---|---|---|---|---|---|---|")
    for name in known:
        own = [run for run in runs if run.condition == name]
        ratios = [run.ratio for run in own]
        row = [f"{np.mean([run.accuracy(side) for run in own]):.1%}" for side in ("test", "unseen")]
        row += [f"{np.exp(np.mean(np.log(ratios))):.2f}", f"{sum(r <= 0.5 for r in ratios)} of {len(ratios)}"]
        row += [f"{np.mean([run.split_half for run in own]):.2f}", f"{np.median([run.cpu_s for run in own]):.0f}"]
        print(f"| {name} | {' | '.join(row)} |")
    print("\n| against | condition | test accuracy, points | unseen accuracy, points | weight ratio, times |")
    print("|---|---|---|---|---|")
    against = [("none", "exact"), *(("exact", name) for name in known if name not in ("none", "exact"))]
    if "average of q 0.5, meta_every 4" in known:
        against.append(("exact, meta_every 4", "average of q 0.5, meta_every 4"))
    for base, name in against:
        points = [f"{v:+.1f} [{a:+.1f}, {b:+.1f}]" for v, a, b in
                  (100 * np.array(difference(runs, name, base, side)) for side in ("test", "unseen"))]  # fmt: skip
        value, low, high = ratio_change(runs, name, base)
        print(f"| {base} | {name} | {points[0]} | {points[1]} | {value:.2f} [{low:.2f}, {high:.2f}] |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pretrain", "run", "report"))
    parser.add_argument("--seeds", default="0:20", help="first:end")
    parser.add_argument("--conditions", nargs="*", default=list(CONDITIONS))
    parser.add_argument("--output", type=Path, default=DIRECTORY / "runs.jsonl")
    args = parser.parse_args()
    if args.what == "report":
        report(read_runs(args.output))
        return
    torch.set_num_threads(1)
    if args.what == "pretrain":
        for index in range(NUM_JUDGES):
            pretrain(index)
        return
    domains = [f"{platform}-{level}" for platform in ("atcoder", "leetcode") for level in ("easy", "medium", "hard")]
    done = {(run.condition, run.seed) for run in read_runs(args.output)}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    for seed, condition in itertools.product(range(*map(int, args.seeds.split(":"))), args.conditions):
        if (condition, seed) in done:
            continue
        run = train(condition, seed, domains)
        with args.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(run)) + "\n")
        print(f"{condition}, seed {seed}: test {run.accuracy('test'):.1%}, ratio {run.ratio:.2f}, {run.cpu_s:.0f} s")


if __name__ == "__main__":
    main()
