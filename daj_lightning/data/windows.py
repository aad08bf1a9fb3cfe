"""What one bi-level fit needs of its data, wherever that comes from: two sets of samples, dealt out in windows.

Letters: K inner samples, M meta samples of a window.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from transformers import PreTrainedTokenizerBase

from daj_lightning.data.dataset import PairDataset
from daj_lightning.data.prompts import PromptDataset
from daj_lightning.data.schedule import BilevelLoader, SampleStream
from daj_lightning.records import BilevelBatch, DajError, Unit


class BilevelData(LightningDataModule):
    """Training samples and meta samples, one bi-level step a batch.

    Args:
        root: directory for what is computed of the samples once.
        domains: names that a batch's `domains` index.
        num_inner: K.
        num_meta: M.
        max_windows: bi-level steps of a run.
        seed: of the order of samples.
    """

    tokenizer: PreTrainedTokenizerBase
    held_out: PairDataset | PromptDataset | None = None
    """Meta samples that no step sees; None: none were set aside."""

    def __init__(
        self, root: str | Path, domains: Sequence[str], num_inner: int, num_meta: int, max_windows: int, seed: int
    ) -> None:
        super().__init__()
        if min(num_inner, num_meta, max_windows) < 1:
            raise DajError(f"num_inner={num_inner}, num_meta={num_meta}, max_windows={max_windows}: each must be >= 1.")
        self.root = Path(root)
        self.domains = tuple(domains)
        self.num_inner, self.num_meta = num_inner, num_meta
        self.max_windows = max_windows
        self.seed = seed

    @abstractmethod
    def load_samples(self, unit: Unit, max_new_tokens: int = 0) -> None:
        """Read and encode both sets, for a loss whose sample is such a unit, and `take_in` them.

        Args:
            max_new_tokens: what the length limit leaves to the responses to a prompt that are still to be drawn.
        Raises:
            DajError: a set is empty, or a domain is unknown.
        """

    def take_in(
        self,
        train_set: PairDataset | PromptDataset,
        meta_set: PairDataset | PromptDataset,
        held_out: PairDataset | PromptDataset | None = None,
    ) -> None:
        self.train_set, self.meta_set = train_set, meta_set
        self.held_out = held_out
        self.train_stream = SampleStream(len(train_set), self.seed, "train")
        self.meta_stream = SampleStream(len(meta_set), self.seed, "meta")

    def train_dataloader(self) -> BilevelLoader:
        return BilevelLoader(self.window, self.max_windows)

    def window(self, number: int) -> BilevelBatch:
        """All samples of one bi-level step: a function of the seed and the step alone."""
        return BilevelBatch(
            inner=self.train_set.batch(self.train_stream.take(number * self.num_inner, self.num_inner)),
            meta=self.meta_set.batch(self.meta_stream.take(number * self.num_meta, self.num_meta)),
        )

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch.to(device) if isinstance(batch, BilevelBatch) else batch  # comparisons are text
