"""The loss, or the reward, of samples at the judge as it is: measured beside training, which it does not touch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torchmetrics import MeanMetric

from daj_lightning.bilevel import Reweighter
from daj_lightning.data import PairDataset, PromptDataset
from daj_lightning.records import JudgeBatch
from daj_lightning.training.module import DataReweightedJudge


@torch.no_grad()
def mean_loss(module: DataReweightedJudge, samples: JudgeBatch, reweighter: Reweighter) -> float:
    """Weighted by the reweighter: what a level minimises.

    A judge that has learned to disagree with swapped preferences loses on them, and their weight says so.
    """
    mean = MeanMetric(sync_on_compute=False)  # every process has all of the samples
    was_training = module.judge.training
    module.judge.eval()
    for sample in module.objective.prepare(module.judge, samples.to(module.device)).micro_batches():
        loss = module.objective(module.judge, sample)
        mean.update(loss.cpu(), reweighter(sample, loss).cpu())
    module.judge.train(was_training)
    return float(mean.compute())


def mean_reward(module: DataReweightedJudge, dataset: PromptDataset, ids: Sequence[int]) -> float:
    """Of responses drawn for the purpose; the same draws whenever it is asked."""
    assert module.rollouts is not None
    drawn = module.rollouts.measure(dataset.batch(ids), module.num_windows)
    assert drawn.rewards is not None
    return float(drawn.rewards.mean())


def badness(module: DataReweightedJudge, dataset: PairDataset | PromptDataset, reweighter: Reweighter) -> float:
    """The mean loss of a whole set; minus the mean reward, where the judge answers while it trains."""
    ids = range(len(dataset))
    if isinstance(dataset, PairDataset):
        return mean_loss(module, dataset.batch(ids), reweighter)
    return -mean_reward(module, dataset, ids)
