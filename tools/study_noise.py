"""Do learned weights find turned labels, better than the loss does? A preregistered study (docs/study.md).

    python tools/study_noise.py prepare                  # executes two banks, makes the base: ten minutes of CPU
    python tools/study_noise.py run --seeds 0:20         # appends to runs/noise/runs.jsonl; skips what is there
    python tools/study_noise.py baselines --seeds 0:20   # simpler ways on "flipped"; not preregistered
    python tools/study_noise.py report --csv docs/study_noise.csv

A run takes some ten seconds of CPU. Seeds come one after the other, each with all scenarios and methods, so that the
finished seeds are always complete. Scenarios: "flipped" (30 % of single labels turned round), "thinned" (labels by
a single hidden test) and "clean". Methods differ in the weights alone; all clip every sample's gradient.
Letters: S training pairs.
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
from lightning import Trainer, seed_everything

from ablation_data import NOISE, Pools, Scenario, family, prepare_banks, swapped
from ablation_methods import (
    INNER,
    MAX_NORM,
    MAX_SAMPLE_NORM,
    META_EVERY,
    NUM_INNER,
    NUM_LOOKS,
    NUM_PLAIN,
    OUTER,
    UNROLL,
    Looks,
    Mixture,
    ScenarioData,
    SmallLoss,
    auc,
    forced_choice,
)
from daj_lightning.bilevel import BankEngine, InstanceNet, InstanceTable, Reweighter, Uniform
from daj_lightning.data.datamodule import LCB_DOMAINS
from daj_lightning.judge import Judge
from daj_lightning.objectives import DPO
from daj_lightning.records import Pair
from daj_lightning.training import DataReweightedJudge, Level
from noise_base import BASE, make_base
from study_learning import CpuTime

DIRECTORY = Path("runs/noise")
OUTPUT = DIRECTORY / "runs.jsonl"
NUM_TRAIN, NUM_META_PAIRS = 40, 96
"""The meta pairs are 48 pairs of programs in both orders, so that a lean to one position cancels in the whole set."""
WINDOWS = 40
METHODS: Mapping[str, tuple[Callable[[], Reweighter], Level]] = {
    "none": (Uniform, INNER),
    "table": (InstanceTable, OUTER["table"]),
    "net": (InstanceNet, Level(lr=0.1, optimizer="adam")),
}
BASELINES: Mapping[str, tuple[Callable[[], Reweighter], Mixture]] = {
    "small loss": (partial(SmallLoss, keep=1 - NOISE), "train"),
    "meta alone": (Uniform, "meta"),
    "train and meta": (Uniform, "union"),
}


def clean(pools: Pools, rng: random.Random) -> list[tuple[Pair, bool]]:
    return [(pair, True) for pair in rng.sample(pools.train, NUM_TRAIN)]


def flipped(pools: Pools, rng: random.Random) -> list[tuple[Pair, bool]]:
    """A share of the labels turned round, whichever."""
    turned = set(rng.sample(range(NUM_TRAIN), round(NOISE * NUM_TRAIN)))
    return [(swapped(pair), False) if i in turned else (pair, true) for i, (pair, true) in enumerate(clean(pools, rng))]


def thinned(pools: Pools, rng: random.Random) -> list[tuple[Pair, bool]]:
    """Labels by one hidden test: wrong programs pass where they are hard to tell."""
    return rng.sample(pools.thinned, NUM_TRAIN)


SCENARIOS: Mapping[str, Callable[[Pools, random.Random], list[tuple[Pair, bool]]]] = {
    "flipped": flipped,
    "thinned": thinned,
    "clean": clean,
}


def make(pools: Pools, name: str, seed: int) -> Scenario:
    """The scenario's data at a seed: the same for every method."""
    train = SCENARIOS[name](pools, random.Random(f"{seed}/{name}"))
    meta = random.Random(f"{seed}/meta").sample(pools.meta, NUM_META_PAIRS // 2)
    both = [pair for orders in meta for pair in orders]
    return Scenario([pair for pair, _ in train], [true for _, true in train], both, pools.test)


@dataclass(frozen=True)
class Run:
    """One line of the results."""

    scenario: str
    method: str
    seed: int
    is_clean: list[bool]
    """(S,)."""
    families: list[str]
    """(S,) of the training pairs."""
    windows: list[int]
    """Where losses and weights were looked at: 0 before training."""
    losses: list[list[float]]
    """(S,) for each of these."""
    weights: list[list[float]]
    """(S,) for each of these."""
    test: dict[str, list[int]]
    """Family -> [right, asked] at the end."""
    cpu_s: float
    """Of the windows."""

    @property
    def accuracy(self) -> float:
        right, asked = (sum(column) for column in zip(*self.test.values(), strict=True))
        return right / asked

    def scores(self, of: str) -> list[float]:
        """(S,) higher for what looks clean: "weights", or "losses" and a place in `windows`."""
        if of == "weights":
            return self.weights[-1]
        return [-loss for loss in self.losses[int(of.removeprefix("losses "))]]

    def auc(self, of: str) -> float:
        return auc(self.scores(of), self.is_clean)


def train(scenario: Scenario, name: str, method: str, seed: int, base: Path) -> Run:
    seed_everything(seed, verbose=False)
    make_reweighter, outer = METHODS.get(method, METHODS["none"])
    mixture: Mixture = "train"
    if method in BASELINES:
        make_reweighter, mixture = BASELINES[method]
    reweighter = make_reweighter()
    learns = any(True for _ in reweighter.parameters())
    module = DataReweightedJudge(
        Judge(str(base), "float32", lora_r=8, lora_alpha=16),
        inner=INNER,
        outer=outer,
        objective=DPO(beta=1.0, nll_weight=0.2),
        reweighter=reweighter,
        engine=BankEngine(unroll_windows=UNROLL),
        max_norm=MAX_NORM,
        max_sample_norm=MAX_SAMPLE_NORM,
        meta_every=META_EVERY,
    )
    data = ScenarioData(scenario, base, mixture, NUM_INNER if learns else NUM_PLAIN, WINDOWS, seed, domains=LCB_DOMAINS)
    looks, clock = Looks(data, at_start=True), CpuTime()
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[looks, clock], limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    return Run(
        name,
        method,
        seed,
        scenario.is_clean,
        [family(pair) for pair in scenario.train],
        looks.windows,
        rounded(looks.losses),
        rounded(looks.weights),
        forced_choice(module.judge, data, scenario.test),
        round(clock.seconds, 1),
    )


def rounded(looks: Sequence[Sequence[float]]) -> list[list[float]]:
    return [[round(value, 5) for value in look] for look in looks]


def read_runs(path: Path) -> list[Run]:
    return [Run(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def run(seeds: range, output: Path, scenarios: Sequence[str], methods: Sequence[str]) -> None:
    done = {(run.scenario, run.method, run.seed) for run in read_runs(output)}
    output.parent.mkdir(parents=True, exist_ok=True)
    pools = Pools()
    for seed in seeds:
        for name in scenarios:
            for method in methods:
                if (name, method, seed) in done:
                    continue
                found = train(make(pools, name, seed), name, method, seed, BASE)
                with output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(found)) + "\n")
                losses = ", ".join(f"{found.auc(f'losses {k}'):.2f}" for k in range(NUM_LOOKS + 1))
                weights = f"AUC of weights {found.auc('weights'):.2f}, of losses {losses}"
                print(f"seed {seed}, {name}, {method}: {found.accuracy:.1%}, {weights}, {found.cpu_s} s", flush=True)


# The report ---------------------------------------------------------------------------------------


class Drawn:
    """Seeds and families drawn with replacement, the same draws for all that is compared."""

    def __init__(self, num_seeds: int, families: Sequence[str], draws: int = 2000) -> None:
        rng = np.random.default_rng(0)
        self.seeds = rng.integers(num_seeds, size=(draws, num_seeds))
        self.place = {name: k for k, name in enumerate(families)}
        drawn = rng.integers(len(families), size=(draws, len(families)))
        self.copies = np.stack([(drawn == k).sum(axis=1) for k in range(len(families))], axis=1)
        """(draws, families) how often each was drawn."""

    def of_auc(self, runs: Sequence[Run], of: str) -> np.ndarray:
        """(draws,) mean over the drawn seeds of the area under the curve among the drawn families."""
        per_seed = np.stack([self._of_run(run, of) for run in runs], axis=1)  # (draws, seeds)
        return np.nanmean(np.take_along_axis(per_seed, self.seeds, axis=1), axis=1)

    def _of_run(self, run: Run, of: str) -> np.ndarray:
        scores, is_clean = np.array(run.scores(of)), np.array(run.is_clean)
        copies = self.copies[:, [self.place[name] for name in run.families]].astype(float)  # (draws, S)
        above = np.sign(scores[is_clean][:, None] - scores[~is_clean]) / 2 + 0.5
        of_clean, of_turned = copies[:, is_clean], copies[:, ~is_clean]
        pairs = of_clean.sum(axis=1) * of_turned.sum(axis=1)
        right = np.einsum("dc,ct,dt->d", of_clean, above, of_turned)
        return np.divide(right, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)

    def of_accuracy(self, runs: Sequence[Run]) -> np.ndarray:
        """(draws,) share of the test questions answered rightly."""
        names = [name for name in self.place if name in runs[0].test]
        table = np.array([[run.test[name] for name in names] for run in runs], dtype=float)  # (seeds, families, 2)
        copies = self.copies[:, [self.place[name] for name in names]]
        sums = np.einsum("df,sfk->dsk", copies, table)
        drawn = np.take_along_axis(sums, self.seeds[:, :, None], axis=1).sum(axis=1)
        return drawn[:, 0] / drawn[:, 1]


def interval(value: float, draws: np.ndarray, scale: float = 1.0, digits: int = 3) -> str:
    low, high = scale * np.quantile(draws, [0.025, 0.975])
    return f"{scale * value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def report(runs: Sequence[Run]) -> None:
    """Of the seeds that have every scenario and method."""
    wanted = {(name, method) for name in SCENARIOS for method in METHODS}
    seeds = [
        s for s in sorted({r.seed for r in runs}) if wanted <= {(r.scenario, r.method) for r in runs if r.seed == s}
    ]
    runs = [run for run in runs if run.seed in seeds]
    names = sorted({name for run in runs for name in (*run.families, *run.test)})
    drawn = Drawn(len(seeds), names)
    print(f"{len(seeds)} complete seeds: {seeds[0]} to {seeds[-1]}; {len(runs[0].is_clean)} training pairs, "
          f"{sum(asked for _, asked in runs[0].test.values())} test pairs\n")  # fmt: skip
    for name in SCENARIOS:
        of = {m: [r for r in runs if (r.scenario, r.method) == (name, m)] for m in METHODS}
        shares = [1 - float(np.mean(run.is_clean)) for run in of["none"]]
        print(f"**{name}**: {np.mean(shares):.0%} of the labels are false\n")
        if max(shares) > 0:
            auc_table(of, drawn)
        for method in BASELINES:
            own = [r for r in runs if (r.scenario, r.method) == (name, method)]
            if len(own) == len(seeds):
                of[method] = own
        accuracy_table(of, drawn)


def auc_table(of: Mapping[str, Sequence[Run]], drawn: Drawn) -> None:
    sources = [("none", f"losses {k}") for k in range(NUM_LOOKS + 1)]
    sources += [(method, what) for method in of if method != "none" for what in ("weights", f"losses {NUM_LOOKS}")]
    usable = {m: [r for r in rs if any(r.is_clean) and not all(r.is_clean)] for m, rs in of.items()}
    mean = {s: float(np.mean([run.auc(s[1]) for run in usable[s[0]]])) for s in sources}
    alone = [("none", f"losses {k}") for k in (0, NUM_LOOKS // 2, NUM_LOOKS)]
    strongest = max(alone, key=lambda source: mean[source])
    print("| run | score | AUC | minus the strongest of the loss alone |\n|---|---|---|---|")
    for source in sources:
        method, what = source
        draws = drawn.of_auc(of[method], what)
        gain = draws - drawn.of_auc(of[strongest[0]], strongest[1])
        shown = what if what == "weights" else f"minus the losses after window {of[method][0].windows[int(what[7:])]}"
        cell = "(the strongest)" if source == strongest else interval(mean[source] - mean[strongest], gain)
        print(f"| {method} | {shown} | {interval(mean[source], draws)} | {cell} |")
    print()


def accuracy_table(of: Mapping[str, Sequence[Run]], drawn: Drawn) -> None:
    print("| run | test accuracy, % | minus none, points | CPU s |\n|---|---|---|---|")
    draws = {method: drawn.of_accuracy(runs) for method, runs in of.items()}
    value = {method: float(np.mean([run.accuracy for run in runs])) for method, runs in of.items()}
    for method, runs in of.items():
        against = "" if method == "none" else interval(
            value[method] - value["none"], draws[method] - draws["none"], 100, 1
        )  # fmt: skip
        seconds = np.median([run.cpu_s for run in runs])
        print(f"| {method} | {interval(value[method], draws[method], 100, 1)} | {against} | {seconds:.0f} |")
    print()


def write_csv(runs: Sequence[Run], path: Path) -> None:
    """A line a run."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        looks = [f"auc_losses_{k}_of_{NUM_LOOKS}" for k in range(NUM_LOOKS + 1)]
        writer.writerow(["scenario", "method", "seed", "false_labels", "test_accuracy", "auc_weights", *looks, "cpu_s"])
        for run in sorted(runs, key=lambda r: (r.seed, r.scenario, r.method)):
            scores = [run.auc(of) for of in ("weights", *(f"losses {k}" for k in range(NUM_LOOKS + 1)))]
            cells = ["" if np.isnan(score) else f"{score:.4f}" for score in scores]
            false = run.is_clean.count(False)
            writer.writerow([run.scenario, run.method, run.seed, false, f"{run.accuracy:.4f}", *cells, run.cpu_s])


def prepare() -> None:
    prepare_banks()
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    make_base(0, BASE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("prepare", "run", "baselines", "report"))
    parser.add_argument("--seeds", default="0:20", help="first:end; of a report too")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--csv", type=Path, help="of the report: a line a run")
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    if args.what == "prepare":
        prepare()
    elif args.what == "run":
        run(range(*map(int, args.seeds.split(":"))), args.output, list(SCENARIOS), list(METHODS))
    elif args.what == "baselines":
        run(range(*map(int, args.seeds.split(":"))), args.output, ["flipped"], list(BASELINES))
    else:
        runs = [run for run in read_runs(args.output) if run.seed in range(*map(int, args.seeds.split(":")))]
        report(runs)
        if args.csv:
            write_csv(runs, args.csv)


if __name__ == "__main__":
    main()
