"""Ways to use a training set that cannot be trusted and a small meta set that can: ours, and what it must beat.

Every method sees the same judge, steps and number of samples: a window takes K training samples and, every second
window, M meta samples; a method without an outer level trains on all K + M / 2 of them. Rules that weigh without a
meta set are reweighters without parameters.
Letters: S training pairs, D domains, K and M samples of the two levels.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from ablation_data import DOMAINS, HASTY, ROOT, Scenario, family
from daj_lightning.bilevel import BankEngine, InstanceNet, Reweighter, TrainingSet, Uniform
from daj_lightning.data import JudgeData, PairDataset, PromptDataset, SampleStream
from daj_lightning.judge import Judge, load_tokenizer, parse_selection
from daj_lightning.objectives import DPO, Objective
from daj_lightning.records import BilevelBatch, Comparison, JudgeBatch, Pair
from daj_lightning.training import DataReweightedJudge, Level, MetaValidation, Rollouts
from noise_base import BASE
from study_learning import CpuTime

NUM_INNER, NUM_META, META_EVERY = 8, 8, 2
NUM_PLAIN = NUM_INNER + NUM_META // META_EVERY
"""Samples of a window without an outer level: as many as the bi-level step has on average."""
NUM_WINDOWS, UNROLL = 60, 8
MAX_NORM, MAX_SAMPLE_NORM = 1.0, 0.3
TOGETHER = 8
"""Samples of a pass, or rows of a test."""
NUM_LOOKS = 4
"""At the losses of the training pairs, evenly through the run; the last at the end."""
MEASURED_EVERY = 5
"""Windows between two looks at the held-out meta pairs."""
HELD_OUT_SHARE = 0.25
INNER = Level(lr=3e-3, warmup_steps=10)
OUTER: Mapping[str, Level] = {
    "domain": Level(lr=0.2, optimizer="lazy_adam"),
    "table": Level(lr=1.0, optimizer="lazy_adam", optimizer_args={"eps": 3e-3}),
    "net": Level(lr=0.01, optimizer="adam"),
}
RobustNet = partial(InstanceNet, features=("mean_loss",), normalize=True)
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

    def observe(self, batch: JudgeBatch, losses: Tensor) -> None:
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

    def observe(self, batch: JudgeBatch, losses: Tensor) -> None:
        for domain in batch.domains.unique():
            self.logits[domain] += self.step * losses[batch.domains == domain].mean()


class ScenarioData(JudgeData):
    """The pairs of a scenario as a data module.

    Training ids below S are the scenario's; the others are meta samples, where a method trains on them too.

    Args:
        scenario: pairs.
        mixture: what windows are drawn from.
        with_meta_domain: the meta pairs among the training pairs are a domain of their own.
        meta_share: of a window's samples, for the mixture "union"; None: as many as there are.
        holds_out: a share of the meta pairs is set aside, for `MetaValidation`.
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
        holds_out: bool = False,
        domains: Sequence[str] = DOMAINS,
    ) -> None:
        bank = HASTY.data()  # nothing is prepared here
        super().__init__(
            bank.preparation.source,
            bank.preparation.responses,
            root=str(ROOT / "runs"),
            tokenizer=str(base),
            domains=[*domains, META_DOMAIN] if with_meta_domain else domains,
            num_inner=num_inner,
            num_meta=NUM_META,
            max_windows=max_windows,
            max_length=1024,
            seed=seed,
        )
        self.scenario, self.mixture, self.meta_share = scenario, mixture, meta_share
        self.with_meta_domain, self.holds_out = with_meta_domain, holds_out

    def prepare_data(self) -> None:
        pass

    def setup(self, stage: str) -> None:
        self.tokenizer = load_tokenizer(self.tokenizer_name)

    def load_samples(self, unit: Any, max_new_tokens: int = 0) -> None:
        train, meta, held_out = self.scenario.train, self.scenario.meta, list[Pair]()
        if self.holds_out:
            start = len(meta) - 2 * round(HELD_OUT_SHARE * len(meta) / 2)  # both orders of a question
            meta, held_out = meta[:start], meta[start:]
        pairs = list(train)
        if self.mixture != "train":
            pairs += [_of_domain(pair, META_DOMAIN) for pair in meta] if self.with_meta_domain else meta
        limit = self.max_length - max_new_tokens

        def encode(some: Sequence[Pair]) -> PairDataset | PromptDataset:
            if unit == "prompt":
                return PromptDataset([comparison_of(pair) for pair in some], self.tokenizer, self.domains, limit)
            return PairDataset(some, self.tokenizer, self.domains, self.max_length, unit)

        self.take_in(encode(pairs), encode(meta), encode(held_out) if held_out else None)
        self.num_own = len(train) * (len(self.train_set) // len(pairs))
        self.train_stream = SampleStream(self.num_own, self.seed, "train")
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


def comparison_of(pair: Pair) -> Comparison:
    """The question of a pair, and who is right by its label."""
    right = parse_selection(pair.chosen, len(pair.candidate_ids))
    passed = tuple(i == right for i in range(len(pair.candidate_ids)))
    return Comparison(pair.problem_id, pair.domain, "", "", pair.candidate_ids, passed, pair.prompt, "mixed")


@dataclass(frozen=True)
class Outcome:
    """What a run left."""

    weights: list[float]
    """(S,) of the scenario's training pairs, at the end; empty where the judge wrote its own responses."""
    losses: list[list[float]]
    """(S,) at each look."""
    domain_weights: dict[str, float]
    test: dict[str, list[int]]
    """Family -> [right, asked]: is the right response likelier than the wrong one?"""
    window: int
    """Of the state that was tested."""
    cpu_s: float


@dataclass(frozen=True)
class Method:
    """How a run differs from plain training."""

    reweighter: Callable[[], Reweighter] = Uniform
    outer: Level = OUTER["domain"]
    mixture: Mixture = "train"
    with_meta_domain: bool = False
    meta_share: float | None = None
    stops_early: bool = False
    """The state that is best on meta pairs set aside is what the run leaves."""


def train(
    scenario: Scenario,
    method: Method,
    seed: int,
    objective: Objective | None = None,
    rollouts: Rollouts | None = None,
) -> Outcome:
    """One run.

    Args:
        objective: DPO unless given.
        rollouts: of an objective that trains on the judge's own responses.
    """
    seed_everything(seed, verbose=False)
    reweighter = method.reweighter()
    learns = any(True for _ in reweighter.parameters())
    of_prompts = rollouts is not None
    module = DataReweightedJudge(
        Judge(str(BASE), "float32", lora_r=8, lora_alpha=16),
        inner=INNER,
        outer=method.outer,
        objective=objective or DPO(beta=1.0, nll_weight=0.2),
        reweighter=reweighter,
        engine=BankEngine(unroll_windows=UNROLL),
        max_norm=MAX_NORM,
        max_sample_norm=MAX_SAMPLE_NORM,
        meta_every=META_EVERY,
        rollouts=rollouts,
        micro_batch_size=1 if of_prompts else TOGETHER,
        packing=True,
    )
    num_inner = NUM_INNER if learns else NUM_PLAIN
    data = ScenarioData(
        scenario, BASE, method.mixture, num_inner, NUM_WINDOWS, seed, method.with_meta_domain, method.meta_share,
        method.stops_early,
    )  # fmt: skip
    clock, looks, window = CpuTime(), Looks(data), NUM_WINDOWS
    callbacks: list[Callback] = [clock] if of_prompts else [looks, clock]
    with tempfile.TemporaryDirectory() as directory:
        best = MetaValidation(f"{directory}/best.ckpt", MEASURED_EVERY)
        if method.stops_early:
            callbacks.append(best)
        trainer = Trainer(
            accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
            enable_checkpointing=method.stops_early, callbacks=callbacks, limit_val_batches=0,
        )  # fmt: skip
        trainer.fit(module, datamodule=data)
        if method.stops_early:
            window = best.best_window
            state = torch.load(best.path, weights_only=False)["state_dict"]
            assert not module.load_state_dict(state, strict=False).unexpected_keys  # the frozen base is not in it
    weights = [] if of_prompts else weights_and_losses(module, data)[0]
    test = forced_choice(module.judge, data, scenario.test)
    return Outcome(weights, looks.losses, reweighter.named_weights(), test, window, clock.seconds)


class Looks(Callback):
    """Weights and losses of the scenario's training samples, evenly through a run; the last at its end.

    Args:
        at_start: and once before.
    """

    def __init__(self, data: ScenarioData, at_start: bool = False) -> None:
        self.data, self.at_start = data, at_start
        later = [data.max_windows * (k + 1) // NUM_LOOKS for k in range(NUM_LOOKS)]
        self.windows = [0, *later] if at_start else later
        self.weights: list[list[float]] = []
        self.losses: list[list[float]] = []

    def look(self, module: LightningModule) -> None:
        assert isinstance(module, DataReweightedJudge)
        weights, losses = weights_and_losses(module, self.data)
        self.weights.append(weights)
        self.losses.append(losses)
        module.judge.train()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.at_start:
            self.look(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx + 1 in self.windows:
            self.look(pl_module)


@torch.no_grad()
def weights_and_losses(module: DataReweightedJudge, data: ScenarioData) -> tuple[list[float], list[float]]:
    """Weight and loss of each of the scenario's training samples, at the judge as it is."""
    module.judge.eval()
    batch = data.train_set.batch(range(data.num_own))
    assert isinstance(batch, JudgeBatch)
    batch = module.objective.prepare(module.judge, batch)
    weights, losses = [], []
    for samples in batch.micro_batches(module.micro_batch_size):
        loss = module.objective(module.judge, samples).detach()
        losses += loss.tolist()
        weights += module.reweighter(samples, loss).tolist()
    return weights, losses


@torch.no_grad()
def forced_choice(judge: Judge, data: JudgeData, pairs: Sequence[Pair]) -> dict[str, list[int]]:
    """Family -> [pairs whose right response is the likelier one, pairs]."""
    dataset = PairDataset(pairs, data.tokenizer, data.domains, 1024)
    counts: dict[str, list[int]] = {}
    judge.eval()
    for start in range(0, len(pairs), TOGETHER):
        some = pairs[start : start + TOGETHER]
        logp = judge.response_logp(dataset.batch(range(start, start + len(some)))).view(-1, 2).tolist()
        for pair, (chosen, rejected) in zip(some, logp, strict=True):
            count = counts.setdefault(family(pair), [0, 0])
            count[0] += chosen > rejected
            count[1] += 1
    return counts


def auc(scores: Sequence[float], is_clean: Sequence[bool]) -> float:
    """How well scores tell clean labels from others; 0.5 is chance, NaN where all are clean."""
    if all(is_clean) or not any(is_clean):
        return float("nan")
    return float(binary_auroc(torch.tensor(scores), torch.tensor(is_clean).long()))
