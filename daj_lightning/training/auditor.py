"""Plain training in which every window's samples are credited: what did each do to the meta loss?

Algorithm 1 without its outer step. All weights stay 1; the engine watches, and what would have moved the weights is
kept instead, for each meta sample on its own.
Letters: K samples in a window, M meta samples, S samples of a set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from daj_lightning.bilevel import Credit, HypergradientEngine
from daj_lightning.data import PairDataset
from daj_lightning.judge import Judge
from daj_lightning.kernels import grad_bank_dot
from daj_lightning.objectives import DPO
from daj_lightning.records import JudgeBatch
from daj_lightning.training.levels import Level
from daj_lightning.training.module import DataReweightedJudge


class Look(NamedTuple):
    """What one meta batch said of one window's samples; on the CPU."""

    window: int
    """That the samples were in; the meta batch came after it, or after a later one that the engine still remembers."""
    sample_ids: Tensor
    """(K,)."""
    meta_ids: Tensor
    """(M,)."""
    influence: Tensor
    """(M, K) -d L_m / d alpha_i: by how much a unit more of sample i would have lowered the loss of meta sample m."""


class Auditor(DataReweightedJudge):
    """Trains with DPO on all samples alike, and keeps what the engine credits them with.

    Args:
        judge: the model.
        inner: its optimizer.
        objective: DPO; its margins are measured after training.
        engine: keeps every sample's gradient; or credits domains, and then no look is kept.
        max_norm: gradient clipping; off if absent.
        warmup_windows: windows before the first that is credited.
    """

    def __init__(
        self,
        judge: Judge,
        inner: Level,
        objective: DPO,
        engine: HypergradientEngine,
        max_norm: float | None,
        warmup_windows: int,
    ) -> None:
        # The outer level is never built: Uniform has nothing to learn.
        super().__init__(
            judge,
            inner,
            outer=inner,
            objective=objective,
            engine=engine,
            max_norm=max_norm,
            outer_warmup_windows=warmup_windows,
        )
        self.beta = objective.beta
        self.looks: list[Look] = []
        self.cosines: list[tuple[Tensor, Tensor]] = []
        """Of each credited window the samples (K,), and the cosine (K,) of their gradients and the meta batch's."""
        self.train_margins = self.meta_margins = torch.empty(0)
        """(S,) of either set after training: beta times the log-ratio of chosen over rejected, judge to reference."""

    @property
    def credits_samples(self) -> bool:
        return True

    def meta_parts(self, meta: JudgeBatch) -> list[range]:
        """Every meta sample apart: the engine is linear, so that their credits add up to the batch's."""
        self.meta_ids = meta.sample_ids
        return [range(i, i + 1) for i in range(len(meta))]

    def compare(self, halves: Sequence[Sequence[Credit]]) -> None:
        """Keep what each meta sample credits to each window that the engine remembers."""
        if self.engine.credits_domains:
            return
        windows = list(zip(*halves, strict=True))
        first = self.num_windows + 1 - len(windows)
        for window, by_meta_sample in enumerate(windows, start=first):
            influence = -torch.stack([credit.derivative for credit in by_meta_sample])
            sample_ids = by_meta_sample[0].batch.sample_ids
            self.looks.append(Look(window, sample_ids.cpu(), self.meta_ids.cpu(), influence.cpu()))
        rows, q = self.store.rows, self.meta_average.value
        lengths = torch.linalg.vector_norm(rows, dim=1, dtype=q.dtype) * q.norm()
        cosine = (grad_bank_dot(rows, q) / lengths).nan_to_num()  # a sample without a gradient has no direction
        self.cosines.append((sample_ids.cpu(), self.ranks.collect(cosine, len(sample_ids)).cpu()))

    def outer_step(self, credits: Sequence[Credit]) -> None:
        """The weights stay 1."""

    def on_train_end(self) -> None:
        assert isinstance(self.data.train_set, PairDataset)
        assert isinstance(self.data.meta_set, PairDataset)
        self.train_margins, self.meta_margins = (self.margins(s) for s in (self.data.train_set, self.data.meta_set))

    @torch.no_grad()
    def margins(self, dataset: PairDataset) -> Tensor:
        """(S,) float32 on the CPU: what the loss -log sigmoid(margin) sees of each pair at the judge as it is."""
        assert dataset.reference_logp is not None
        self.judge.eval()
        logp = [self.judge.response_logp(dataset.batch([i]).to(self.device)).cpu() for i in range(len(dataset))]
        ratio = torch.stack(logp) - dataset.reference_logp
        return self.beta * (ratio[:, 0] - ratio[:, 1])
