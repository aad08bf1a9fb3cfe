"""Ways to use a training set that cannot be trusted and a small meta set that can: ours, and what it must beat.

Every method sees the same judge, steps and number of samples: a window takes K training samples and, every second
window, M meta samples; a method without an outer level trains on all K + M / 2 of them. Rules that weigh without a
meta set are reweighters without parameters; they look back at the last window through a callback.
Letters: S training pairs, D domains, K and M samples of the two levels.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from ablation_data import OTHER, ROOT, Scenario, family
from daj_lightning.bilevel import (
    BankEngine,
    Reweighter,
    TrainingSet,
    Uniform,
)
from daj_lightning.data import JudgeData, PairDataset, SampleStream
from daj_lightning.data.datamodule import LCB_DOMAINS
from daj_lightning.judge import Judge, load_tokenizer
from daj_lightning.objectives import DPO, Objective
from daj_lightning.records import BilevelBatch, JudgeBatch, Pair
from daj_lightning.training import ColdStart, DataReweightedJudge, Level
from study_learning import CpuTime

NUM_JUDGES = 2
"""Pretrained; seed s starts from judge s mod 2."""
NUM_INNER, NUM_META, META_EVERY = 8, 8, 2
NUM_PLAIN = NUM_INNER + NUM_META // META_EVERY
"""Samples of a window without an outer level: as many as the bi-level step has on average."""
NUM_WINDOWS = 60
INNER = Level(lr=3e-3, optimizer="adam", warmup_steps=10)
OUTER: Mapping[str, Level] = {
    "domain": Level(lr=2e-1, optimizer="lazy_adam"),
    "table": Level(lr=1.0, optimizer="lazy_adam"),
    "net": Level(lr=1e-1, optimizer="adam"),
}
META_DOMAIN = "meta"
Mixture = Literal["train", "union", "meta", "train then meta"]


class FixedWeights(Reweighter):
    """A weight for every sample, given beforehand; 1 on average."""

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        given = torch.tensor(weights, dtype=torch.float32)
        self.weights: Tensor
        self.register_buffer("weights", given / given.mean())

    def forward(self, batch: JudgeBatch, losses: Tensor) -> Tensor:
        return self.weights[batch.sample_ids].to(losses)


class SmallLoss(Reweighter):
    """Trains on the samples with the smallest losses (as in co-teaching, Han et al. 2018), for a known share of noise.

    Args:
        keep: share kept; the bound is that quantile of the last `memory` losses.
    """

    def __init__(self, keep: float, memory: int = 60) -> None:
        super().__init__()
        self.keep, self.memory = keep, memory
        self.seen: list[float] = []

    def forward(self, batch: JudgeBatch, losses: Tensor) -> Tensor:
        if len(self.seen) < self.memory:
            return torch.ones_like(losses)
        return (losses <= float(np.quantile(self.seen, self.keep))).to(losses) / self.keep

    def look_back(self, domains: Tensor, losses: Tensor) -> None:
        self.seen = [*self.seen, *losses.tolist()][-self.memory :]


class GroupDRO(Reweighter):
    """Weighs the domain that fares worst (Sagawa et al. 2020): q_k proportional to exp(step x sum of its losses).

    Args:
        step: of the exponentiated gradient ascent, a window.
    """

    def __init__(self, step: float = 0.1) -> None:
        super().__init__()
        self.step = step
        self.logits: Tensor
        self.register_buffer("logits", torch.zeros(0))

    def build(self, training_set: TrainingSet) -> None:
        self.logits = torch.zeros(len(training_set.domains))

    def forward(self, batch: JudgeBatch, losses: Tensor) -> Tensor:
        return self.logits.softmax(0)[batch.domains].to(losses) * len(self.logits)

    def look_back(self, domains: Tensor, losses: Tensor) -> None:
        for domain in domains.unique():
            self.logits[domain] += self.step * losses[domains == domain].mean()


class LookBack(Callback):
    """Tells a rule the losses of each window after it."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, DataReweightedJudge)
        assert pl_module.report is not None
        if isinstance(pl_module.reweighter, SmallLoss | GroupDRO):
            pl_module.reweighter.look_back(pl_module.report.domains, pl_module.report.losses)


class ScenarioData(JudgeData):
    """The pairs of a scenario as a data module.

    Training ids below S are the scenario's; the others are meta samples, where a method trains on them too.

    Args:
        scenario: pairs.
        mixture: what windows are drawn from.
        with_meta_domain: the meta pairs among the training pairs are a domain of their own.
        meta_share: of a window's samples, for the mixture "union"; None: as many as there are.
    """

    def __init__(
        self,
        scenario: Scenario,
        base: Path,
        mixture: Mixture,
        num_inner: int,
        max_windows: int,
        seed: int,
        with_meta_domain: bool = False,
        meta_share: float | None = None,
    ) -> None:
        domains = [*LCB_DOMAINS, META_DOMAIN] if with_meta_domain else LCB_DOMAINS
        bank = OTHER.data()  # its source is of no consequence: nothing is prepared here
        super().__init__(
            bank.preparation.source,
            bank.preparation.responses,
            root=str(ROOT / "runs"),
            tokenizer=str(base),
            domains=domains,
            num_inner=num_inner,
            num_meta=NUM_META,
            max_windows=max_windows,
            max_length=1024,
            seed=seed,
        )
        self.scenario, self.mixture, self.meta_share = scenario, mixture, meta_share
        self.with_meta_domain = with_meta_domain

    def prepare_data(self) -> None:
        pass

    def setup(self, stage: str) -> None:
        self.tokenizer = load_tokenizer(self.tokenizer_name)

    def load_samples(self, unit: Any, max_new_tokens: int = 0) -> None:
        train, meta = self.scenario.train, self.scenario.meta
        pairs = list(train)
        if self.mixture != "train":
            own = [_of_domain(pair, META_DOMAIN) for pair in meta] if self.with_meta_domain else meta
            pairs += own
        self.train_set = PairDataset(pairs, self.tokenizer, self.domains, self.max_length, unit)
        self.meta_set = PairDataset(meta, self.tokenizer, self.domains, self.max_length, unit)
        per_pair = len(self.train_set) // len(pairs)
        self.num_own = len(train) * per_pair
        self.train_stream = SampleStream(self.num_own, self.seed, "train")
        self.meta_stream = SampleStream(len(self.meta_set), self.seed, "meta")
        self.union_stream = SampleStream(len(self.train_set), self.seed, "union")

    def window(self, number: int) -> BilevelBatch:
        first, count = number * self.num_inner, self.num_inner
        meta_ids = [self.num_own + i for i in self.meta_stream.take(first, count)] if self.mixture != "train" else []
        train_ids = self.train_stream.take(first, count)
        if self.mixture == "train" or (self.mixture == "train then meta" and number < self.max_windows // 2):
            ids = train_ids
        elif self.mixture in ("meta", "train then meta"):
            ids = meta_ids
        elif self.meta_share is None:
            ids = self.union_stream.take(first, count)
        else:
            rng = random.Random(f"{self.seed}/{number}")
            ids = [m if rng.random() < self.meta_share else t for m, t in zip(meta_ids, train_ids, strict=True)]
        return BilevelBatch(
            inner=self.train_set.batch(ids),
            meta=self.meta_set.batch(self.meta_stream.take(number * self.num_meta, self.num_meta)),
        )


def _of_domain(pair: Pair, domain: str) -> Pair:
    return replace(pair, domain=domain)


@dataclass(frozen=True)
class Outcome:
    """What a run left."""

    weights: list[float]
    """(S,) of the scenario's training pairs, at the end."""
    losses: list[float]
    """(S,) at the end."""
    domain_weights: dict[str, float]
    test: dict[str, list[int]]
    """Family -> [right, asked]: is the right response likelier than the wrong one?"""
    cpu_s: float


@dataclass(frozen=True)
class Method:
    """How a run differs from plain training."""

    reweighter: Callable[[], Reweighter] = Uniform
    outer: Level = OUTER["domain"]
    mixture: Mixture = "train"
    with_meta_domain: bool = False
    meta_share: float | None = None


def train(
    scenario: Scenario,
    method: Method,
    seed: int,
    objective: Objective | None = None,
    base: Path | None = None,
    num_windows: int | None = None,
) -> tuple[Outcome, DataReweightedJudge]:
    """One run, and the judge that it made.

    Args:
        base: of the judge; None: one that was pretrained, by seed.
        num_windows: NUM_WINDOWS unless given.
    """
    num_windows = num_windows or NUM_WINDOWS
    seed_everything(seed, verbose=False)
    base = base or ROOT / f"judge-{seed % NUM_JUDGES}"
    reweighter = method.reweighter()
    learns = any(True for _ in reweighter.parameters())
    module = DataReweightedJudge(
        Judge(str(base), "float32", lora_r=16, lora_alpha=32),
        inner=INNER,
        outer=method.outer,
        objective=objective or DPO(beta=1.0, nll_weight=0.2),
        reweighter=reweighter,
        engine=BankEngine(),
        max_norm=1.0,
        meta_every=META_EVERY,
    )
    num_inner = NUM_INNER if learns else NUM_PLAIN
    data = ScenarioData(
        scenario, base, method.mixture, num_inner, num_windows, seed, method.with_meta_domain, method.meta_share
    )
    clock = CpuTime()
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[LookBack(), clock], limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    weights, losses = final_weights(module, data)
    named = reweighter.named_weights()
    return Outcome(weights, losses, named, forced_choice(module.judge, data, scenario.test), clock.seconds), module


@torch.no_grad()
def final_weights(module: DataReweightedJudge, data: ScenarioData) -> tuple[list[float], list[float]]:
    """Weight and loss of each of the scenario's training samples at the end."""
    module.judge.eval()
    batch = data.train_set.batch(range(data.num_own))
    assert isinstance(batch, JudgeBatch)
    batch = module.objective.prepare(module.judge, batch)
    weights, losses = [], []
    for sample in batch.micro_batches():
        loss = module.objective(module.judge, sample).detach()
        losses += loss.tolist()
        weights += module.reweighter(sample, loss).tolist()
    return weights, losses


@torch.no_grad()
def forced_choice(judge: Judge, data: JudgeData, pairs: Sequence[Pair]) -> dict[str, list[int]]:
    dataset = PairDataset(pairs, data.tokenizer, LCB_DOMAINS, 1024)
    counts: dict[str, list[int]] = {}
    judge.eval()
    for i, pair in enumerate(pairs):
        chosen, rejected = judge.response_logp(dataset.batch([i])).tolist()
        count = counts.setdefault(family(pair), [0, 0])
        count[0] += chosen > rejected
        count[1] += 1
    return counts


def auc(scores: Sequence[float], is_clean: Sequence[bool]) -> float:
    """How well scores tell clean labels from others; 0.5 is chance, NaN where all are clean."""
    if all(is_clean) or not any(is_clean):
        return float("nan")
    return float(binary_auroc(torch.tensor(scores), torch.tensor(is_clean).long()))


def pretrain(index: int) -> None:
    """Write a judge that knows clean pairs of other instances, adapters merged."""
    directory = ROOT / f"judge-{index}"
    if directory.exists():
        return
    cold = ROOT / f"cold-{index}"
    architecture = {
        "model_type": "qwen3",
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 12,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    }
    ColdStart(architecture, steps=500, seed=index).run(OTHER.root / "train.jsonl", cold)
    pairs = [pair for pair, _ in OTHER.pairs("train")]
    scenario = Scenario(pairs, [True] * len(pairs), pairs[:1], [pair for pair, _ in OTHER.pairs("test")])
    outcome, module = train(scenario, Method(), index, base=cold, num_windows=PRETRAINING_WINDOWS)
    right, asked = (sum(column) for column in zip(*outcome.test.values(), strict=True))
    print(f"judge {index}: {right / asked:.1%} of {asked} test pairs of its own bank")
    merged = module.judge.policy.merge_and_unload()  # type: ignore[operator]
    merged.save_pretrained(str(directory))
    load_tokenizer(str(cold)).save_pretrained(directory)


PRETRAINING_WINDOWS = 200
