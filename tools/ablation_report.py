"""Tables of what tools/ablation.py has run: accuracy against the baselines, and whether weights find bad labels."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ablation_conditions import AFTERWARDS, EVERY, OBJECTIVES, OURS, SIMPLE
from ablation_data import SCENARIOS, Scenario
from ablation_methods import NUM_LOOKS, Outcome, auc


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
