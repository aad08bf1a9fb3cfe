"""Toy runs through Lightning, and what they cost."""

from __future__ import annotations

from typing import Any

from lightning import Callback

from conftest import Prepared
from daj_lightning.training import DataReweightedJudge
from tiny import toy_data, toy_module, toy_trainer


def fit(
    prepared: Prepared, tmp_path: Any, callbacks: list[Callback] | None = None, **module: Any
) -> DataReweightedJudge:
    data = {name: module.pop(name) for name in ("num_inner", "num_meta", "max_windows", "corrupt") if name in module}
    trained = toy_module(prepared.base, **module)
    toy_trainer(tmp_path, callbacks or []).fit(trained, toy_data(prepared.root, prepared.base, **data))
    return trained


class Passes(Callback):
    """Counts forwards and backwards of the whole judge in every window."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.windows: list[list[int]] = []
        decoder = pl_module.judge.causal_lm.get_decoder()
        decoder.register_forward_hook(lambda *_: self._count(0))
        first = pl_module.judge.trained_parameters()[0]
        first.register_post_accumulate_grad_hook(lambda _: self._count(1))

    def _count(self, which: int) -> None:
        self.windows[-1][which] += 1

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.windows.append([0, 0])
