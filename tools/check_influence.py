"""Is influence true? What it predicts for groups of rows, against training again without each group.

    python tools/check_influence.py run --seeds 0:5     # appends to runs/influence/runs.jsonl; skips what is there
    python tools/check_influence.py report

A seed has a base of its own (a random-init Qwen3 of one layer, width 32), 40 groups of four preference rows, of which
eight groups have every preference turned round, and 48 meta rows. Rows ask for the colour of a thing; in half of
them the chosen answer has the right colour, in the others the better manners. Truth: training from scratch, once with
everything and once without each group, whose rows then weigh 0 in the same windows; the effect of a group is by how
much the meta loss at the end is higher without it. Predictions are the engines' credits of a single run with
everything, summed over a group's rows and windows. Compared by Spearman's correlation over groups, with a bootstrap
interval over groups.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from lightning import Trainer
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from daj_lightning.bilevel import BankEngine, Credit, HypergradientEngine, Reweighter, TraceEngine
from daj_lightning.data.preference_data import PreferenceData
from daj_lightning.data.preferences import Message, Preference
from daj_lightning.judge import Judge, load_tokenizer
from daj_lightning.objectives import DPO
from daj_lightning.records import JudgeBatch
from daj_lightning.training import Auditor, DataReweightedJudge, Level
from daj_lightning.training.cold_start import train_tokenizer

DIRECTORY = Path("runs/influence")
NUM_GROUPS, GROUP_SIZE, NUM_TURNED, NUM_META = 40, 4, 8, 48
LOOKS, NUM_INNER, NUM_META_DRAWN = 2, 8, 8
INNER = Level(lr=3e-3, warmup_steps=5)
OBJECTIVE, MAX_NORM = DPO(beta=0.5), 1.0
THINGS = ("sky", "grass", "snow", "coal", "blood", "sun", "plum", "mud", "ash", "rose", "leaf", "sand")
COLOURS = ("blue", "green", "white", "black", "red", "yellow", "violet", "brown", "grey", "pink")
POLITE, RUDE = ("please", "thanks", "kindly"), ("now", "quick", "obviously")
RIGHT = dict(zip(THINGS, (*COLOURS, "green", "yellow"), strict=True))

ENGINES: Mapping[str, Callable[[], HypergradientEngine]] = {
    "one step": BankEngine,
    "one step, frozen": lambda: BankEngine("frozen"),
    "one step, identity": lambda: BankEngine("identity"),
    "unrolled, T = 4": lambda: BankEngine(unroll_windows=4),
    "unrolled, T = 8": lambda: BankEngine(unroll_windows=8),
    "whole run": lambda: TraceEngine(decay=1.0),
}
"""Name -> engine. "whole run" credits the meta loss at the end, of all meta rows; the others that of each window's meta
batch after it. None sees the first five windows, from which the truth leaves the group out too."""
WARMUP_WINDOWS = 5
LOSS = "loss alone"
"""What needs no meta set: minus the mean loss of the group's rows before their steps."""


@dataclass(frozen=True)
class Run:
    """One seed: an entry for every group."""

    seed: int
    turned: list[int]
    """The groups with their preferences turned round."""
    meta_loss: float
    """At the end, with everything; ln 2 = 0.6931 at the start."""
    truth: list[float]
    """Meta loss without the group, less `meta_loss`."""
    predicted: dict[str, list[float]]
    """Name -> the same as that engine predicts."""
    cpu_s: float


class LeftOut(Reweighter):
    """Weight 0 for one domain, 1 for the others; learns nothing.

    Args:
        domain: index, or None to leave out nothing.
    """

    def __init__(self, domain: int | None) -> None:
        super().__init__()
        self.domain = domain

    def forward(self, batch: JudgeBatch, losses: Tensor) -> Tensor:
        return torch.ones_like(losses) if self.domain is None else (batch.domains != self.domain).to(losses.dtype)


class Retrained(DataReweightedJudge):
    """Takes a window's samples through the judge together: nothing here asks for a gradient of one alone."""

    def record(self, inner: JudgeBatch) -> tuple[Tensor, Tensor]:
        self.store.open(0, inner)
        losses = self.objective(self.judge, inner)
        weights = self.reweighter(inner, losses.detach())
        self.manual_backward((weights * losses).sum())
        self.store.close(0, torch.ones(1))
        self.flat.release_gradients()
        return losses.detach(), weights


class Crediting(Auditor):
    """Sums an engine's credits by group."""

    def on_train_start(self) -> None:
        super().on_train_start()
        self.predicted = torch.zeros(len(self.data.domains), dtype=torch.float64)
        self.loss_sums = torch.zeros_like(self.predicted)

    def outer_step(self, credits: Sequence[Credit]) -> None:
        if not self.engine.credits_domains:  # a trace has all windows in its last credit
            self._add(credits)

    def _add(self, credits: Sequence[Credit]) -> None:
        for credit in credits:
            self.predicted.index_add_(0, credit.batch.domains, -credit.derivative.double())

    def record(self, inner: JudgeBatch) -> tuple[Tensor, Tensor]:
        losses, weights = super().record(inner)
        self.loss_sums.index_add_(0, inner.domains, losses.double())
        return losses, weights

    def on_train_end(self) -> None:
        if not self.engine.credits_domains:
            return
        q = self.flat.new_zeros()
        self.flat.point_gradients_at(q)
        samples = list(all_of(self.data.meta_set).micro_batches())
        for sample in samples:
            self.accumulate(sample, share=1 / len(samples))
        self.flat.release_gradients()
        self._add(self.engine(q))


def all_of(dataset: object) -> JudgeBatch:
    return dataset.batch(range(len(dataset)))  # type: ignore[attr-defined, arg-type]  # a PairDataset


@torch.no_grad()
def meta_loss(module: DataReweightedJudge, data: PreferenceData) -> float:
    """Mean over the whole meta set at the judge as it is."""
    return float(OBJECTIVE(module.judge, all_of(data.meta_set)).double().mean())


def colour_row(rng: random.Random) -> tuple[str, str, str]:
    """Which colour is right: something to be learned of each thing."""
    thing, manner = rng.choice(THINGS), rng.choice(POLITE + RUDE)
    wrong = rng.choice([colour for colour in COLOURS if colour != RIGHT[thing]])
    return thing, f"{RIGHT[thing]} {manner}", f"{wrong} {manner}"


def manner_row(rng: random.Random) -> tuple[str, str, str]:
    """Politeness, whatever the colour: the same to be learned of all things."""
    thing, colour = rng.choice(THINGS), rng.choice(COLOURS)
    return thing, f"{colour} {rng.choice(POLITE)}", f"{colour} {rng.choice(RUDE)}"


def make_rows(
    number: int, rng: random.Random, kinds: Sequence[Callable[[random.Random], tuple[str, str, str]]]
) -> list[Preference]:
    """Rows of these kinds in turn, the right answer chosen."""
    rows = []
    for k in range(number):
        thing, chosen, rejected = kinds[k % len(kinds)](rng)
        rows.append(Preference(k + 1, str(k), "meta", (Message("user", thing),), chosen, rejected))
    return rows


def turned_round(row: Preference) -> Preference:
    return replace(row, chosen=row.rejected, rejected=row.chosen)


def write_base(directory: Path, seed: int) -> None:
    """A random model of one layer, and a tokenizer that has every word."""
    texts = [f" {word}" for word in (*POLITE, *RUDE)] + [*THINGS, *COLOURS]
    tokenizer = train_tokenizer(texts, vocab_size=400)
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        "qwen3",
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        initializer_range=0.2,  # at the usual 0.02 so small a model computes next to nothing
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def make_data(seed: int, directory: Path) -> tuple[PreferenceData, list[int]]:
    """The rows of a seed in random groups, and which groups are turned round."""
    rng = random.Random(seed)
    turned = sorted(rng.sample(range(NUM_GROUPS), NUM_TURNED))
    rows = make_rows(NUM_GROUPS * GROUP_SIZE, rng, (colour_row, manner_row))
    group_of = rng.sample([k % NUM_GROUPS for k in range(len(rows))], len(rows))
    rows = [replace(row, domain=f"group {group:02}") for row, group in zip(rows, group_of, strict=True)]
    rows = [turned_round(row) if group in turned else row for row, group in zip(rows, group_of, strict=True)]
    meta = [replace(row, domain="group 00") for row in make_rows(NUM_META, rng, (colour_row, manner_row))]
    tokenizer = load_tokenizer(str(directory))
    data = PreferenceData(rows, meta, tokenizer, 64, directory, NUM_INNER, NUM_META_DRAWN, LOOKS, 0, seed)
    return data, turned


def fit(module: DataReweightedJudge, data: PreferenceData, seed: int) -> None:
    """From scratch: the same adapters to start from, the same windows."""
    torch.manual_seed(seed)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=data.root,
    )
    trainer.fit(module, datamodule=data)


def new_judge(directory: Path) -> Judge:
    return Judge(str(directory), "float32", lora_r=4, lora_alpha=8)


def loss_without(group: int | None, data: PreferenceData, seed: int) -> float:
    """Meta loss after training without a group's rows."""
    module = Retrained(
        new_judge(data.root), INNER, INNER, objective=OBJECTIVE, reweighter=LeftOut(group), max_norm=MAX_NORM
    )
    fit(module, data, seed)
    return meta_loss(module, data)


def run_seed(seed: int) -> Run:
    start = time.process_time()
    directory = DIRECTORY / f"base-{seed}"
    write_base(directory, seed)
    data, turned = make_data(seed, directory)
    predicted: dict[str, list[float]] = {}
    for name, engine in ENGINES.items():
        module = Crediting(new_judge(directory), INNER, OBJECTIVE, engine(), MAX_NORM, WARMUP_WINDOWS)
        fit(module, data, seed)
        predicted[name] = module.predicted.tolist()
    predicted[LOSS] = (-module.loss_sums).tolist()
    whole = loss_without(None, data, seed)
    truth = [loss_without(group, data, seed) - whole for group in range(NUM_GROUPS)]
    return Run(seed, turned, whole, truth, predicted, time.process_time() - start)


def spearman(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Correlation of ranks; equal values share their mean rank."""
    return float(np.corrcoef(_ranks(np.asarray(a)), _ranks(np.asarray(b)))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


def interval(truth: np.ndarray, predicted: np.ndarray, draws: int = 2000) -> tuple[float, float]:
    """95 % of Spearman's correlation, groups drawn with replacement."""
    drawn = np.random.default_rng(0).integers(len(truth), size=(draws, len(truth)))
    low, high = np.quantile([spearman(truth[d], predicted[d]) for d in drawn], [0.025, 0.975])
    return float(low), float(high)


def report(runs: Sequence[Run]) -> None:
    names = list(runs[0].predicted)
    effects = [f"{min(run.truth):+.4f} to {max(run.truth):+.4f}" for run in runs]
    print(f"{len(runs)} seeds, {len(runs[0].truth)} groups each, {len(runs[0].turned)} of them turned round; meta loss "
          f"{', '.join(f'{run.meta_loss:.3f}' for run in runs)}; effects {'; '.join(effects)}\n")  # fmt: skip
    header = ("credit", *(f"seed {run.seed}" for run in runs), "mean", "mean, groups not turned round")
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for name in names:
        cells, clean_values, values = [], [], []
        for run in runs:
            truth, predicted = np.array(run.truth), np.array(run.predicted[name])
            clean = np.array([k not in run.turned for k in range(len(truth))])
            low, high = interval(truth, predicted)
            values.append(spearman(truth, predicted))
            clean_values.append(spearman(truth[clean], predicted[clean]))
            cells.append(f"{values[-1]:.2f} [{low:.2f}, {high:.2f}]")
        print(f"| {name} | {' | '.join(cells)} | {np.mean(values):.2f} | {np.mean(clean_values):.2f} |")
    print(f"\n{sum(run.cpu_s for run in runs):.0f} CPU s")


def read_runs(path: Path) -> list[Run]:
    return [Run(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--seeds", default="0:5", help="first:end")
    parser.add_argument("--output", type=Path, default=DIRECTORY / "runs.jsonl")
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if args.what == "run":
        args.output.parent.mkdir(parents=True, exist_ok=True)
        done = {run.seed for run in read_runs(args.output)}
        for seed in range(*map(int, args.seeds.split(":"))):
            if seed in done:
                continue
            run = run_seed(seed)
            with args.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(run)) + "\n")
            print(f"seed {seed}: {run.cpu_s:.0f} s", flush=True)
    report(read_runs(args.output))


if __name__ == "__main__":
    main()
