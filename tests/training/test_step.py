"""One bi-level step: what it computes, how often it passes through the judge, and what it must equal."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning import Callback

from conftest import Prepared
from daj_lightning.bilevel import DomainWeights, InstanceNet, InstanceTable, Uniform
from daj_lightning.objectives import DPO
from daj_lightning.records import JudgeBatch
from daj_lightning.training import DataReweightedJudge, Level, NonFiniteError
from runs import Passes, fit
from tiny import toy_data, toy_module, toy_trainer


def adapters(module: DataReweightedJudge) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.judge.trained_parameters()])


@pytest.mark.parametrize("reweighter", [DomainWeights, InstanceTable, InstanceNet])
def test_a_step_of_16_and_8_takes_24_forwards_and_24_backwards(
    prepared: Prepared, tmp_path: Any, reweighter: type
) -> None:
    """Chosen and rejected share a forward; the reference's were computed before; the hypergradient adds none."""
    passes = Passes()
    fit(prepared, tmp_path, [passes], reweighter=reweighter(), num_inner=16, num_meta=8, max_windows=3)
    assert passes.windows == [[16, 16], [24, 24], [24, 24]], "the first window is outer warm-up"


def test_without_reweighting_a_step_takes_no_meta_pass(prepared: Prepared, tmp_path: Any) -> None:
    passes = Passes()
    fit(prepared, tmp_path, [passes], reweighter=Uniform(), max_windows=2)
    assert passes.windows == [[4, 4], [4, 4]]


class Remembers(Uniform):
    """What it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[list[int], torch.Tensor]] = []

    def observe(self, batch: JudgeBatch, losses: torch.Tensor) -> None:
        self.told.append((batch.sample_ids.tolist(), losses))


def test_a_reweighter_is_told_every_windows_losses_once(prepared: Prepared, tmp_path: Any) -> None:
    reweighter, seen = Remembers(), list[tuple[list[int], torch.Tensor]]()

    class Looks(Callback):
        def on_train_batch_end(self, trainer: Any, module: DataReweightedJudge, *_: Any) -> None:
            assert module.report is not None
            seen.append((module.report.sample_ids.tolist(), module.report.losses))

    fit(prepared, tmp_path, [Looks()], reweighter=reweighter, max_windows=3)
    assert len(reweighter.told) == 3
    for (told, losses), (ids, reported) in zip(reweighter.told, seen, strict=True):
        assert told == ids
        torch.testing.assert_close(losses, reported, rtol=0, atol=0)


def test_meta_every_spaces_the_outer_steps(prepared: Prepared, tmp_path: Any) -> None:
    module = fit(prepared, tmp_path, meta_every=3, outer_warmup_windows=1, max_windows=7)
    assert (module.num_windows, module.num_outer_steps) == (7, 2), "outer steps after windows 3 and 6"


def plain_training(prepared: Prepared, windows: int, *, one_backward: bool) -> torch.Tensor:
    """DPO by hand: mean loss over each window, clip, Adam."""
    data = toy_data(prepared.root, prepared.base, max_windows=windows)
    data.setup("fit")
    data.load_samples("pair")
    module = toy_module(prepared.base)
    module.judge.load()
    judge = module.judge
    with judge.reference():
        for dataset in (data.train_set, data.meta_set):
            dataset.reference_logp = torch.stack([judge.response_logp(dataset.batch([i])) for i in range(len(dataset))])
    optimizer = torch.optim.Adam(judge.trained_parameters(), lr=1e-3)
    schedule = Level(lr=1e-3, schedule="cosine", warmup_steps=2).make_schedule(optimizer, windows)
    for batch in data.train_dataloader():
        optimizer.zero_grad()
        if one_backward:
            DPO()(judge, batch.inner).mean().backward()
        else:
            for sample in batch.inner.micro_batches():
                (DPO()(judge, sample) / len(batch.inner)).sum().backward()
        torch.nn.utils.clip_grad_norm_(judge.trained_parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return adapters(module)


def test_weights_of_one_equal_no_weights_and_plain_dpo_training(prepared: Prepared, tmp_path: Any) -> None:
    """Uniform, a table that never steps, and a hand-written loop: the same judge, step for step."""
    still = Level(lr=1e-30, optimizer="lazy_adam")
    uniform = adapters(fit(prepared, tmp_path, reweighter=Uniform(), max_windows=4))
    untouched = adapters(fit(prepared, tmp_path, reweighter=InstanceTable(), outer=still, max_windows=4))
    torch.testing.assert_close(uniform, plain_training(prepared, 4, one_backward=False), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(uniform, untouched, rtol=1e-4, atol=1e-7)


class Lengths(Callback):
    """Of every row of the bank, and of the meta batch's gradient."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.rows: list[torch.Tensor] = []
        self.metas: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *of_batch: Any) -> None:
        self.rows.append(pl_module.store.rows.norm(dim=1))
        if not pl_module.meta_average.is_empty:
            self.metas.append(pl_module.meta_average.value.norm())


def test_a_sample_norm_shortens_what_is_longer_and_nothing_else(prepared: Prepared, tmp_path: Any) -> None:
    """In the bank; a mean of shortened meta gradients is no longer either. One that nothing reaches changes no bit."""
    free, never, clipped = Lengths(), Lengths(), Lengths()
    free_end = adapters(fit(prepared, tmp_path, [free], reweighter=InstanceTable(), max_windows=4))
    median = float(free.rows[0].median())
    same = fit(prepared, tmp_path, [never], reweighter=InstanceTable(), max_windows=4, max_sample_norm=1e6)
    fit(prepared, tmp_path, [clipped], reweighter=InstanceTable(), max_windows=4, max_sample_norm=median)
    assert torch.equal(adapters(same), free_end)
    torch.testing.assert_close(clipped.rows[0], free.rows[0].clamp(max=median))
    assert all(float(lengths.max()) <= median * (1 + 1e-5) for lengths in [*clipped.rows, *clipped.metas])
    assert float(max(free.metas)) > median


def test_a_window_of_one_batch_equals_its_samples_accumulated(prepared: Prepared) -> None:
    together, alone = (plain_training(prepared, 3, one_backward=flag) for flag in (True, False))
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-6)


def test_the_same_seed_gives_the_same_bits(prepared: Prepared, tmp_path: Any) -> None:
    first, second = (fit(prepared, tmp_path) for _ in range(2))
    assert torch.equal(adapters(first), adapters(second))
    assert torch.equal(first.reweighter.raw, second.reweighter.raw)
    assert not torch.equal(first.reweighter.raw, torch.zeros(2)), "the weights moved"


def test_a_domain_of_swapped_labels_loses_weight(prepared: Prepared, tmp_path: Any) -> None:
    module = fit(
        prepared,
        tmp_path,
        corrupt={"atcoder-hard": 1.0},
        max_windows=60,
        num_inner=8,
        num_meta=4,
        inner=Level(lr=5e-3),
        outer=Level(lr=0.1, optimizer="lazy_adam"),
    )
    weights = module.reweighter.named_weights()
    assert weights["atcoder-hard"] < 0.7 * weights["atcoder-easy"]


class _Poisoned(DPO):
    def __call__(self, judge: Any, batch: JudgeBatch) -> torch.Tensor:
        poison = torch.where(batch.sample_ids == 5, float("nan"), 1.0)
        return super().__call__(judge, batch) * poison


def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_the_sample(
    prepared: Prepared, tmp_path: Any
) -> None:
    module = toy_module(prepared.base, objective=_Poisoned())
    with pytest.raises(NonFiniteError, match=r"samples \[5\]"):
        toy_trainer(tmp_path).fit(module, toy_data(prepared.root, prepared.base, max_windows=50))
    assert adapters(module).isfinite().all()


def test_create_graph_is_never_asked_for(prepared: Prepared, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backward = torch.autograd.backward

    def checked(tensors: Any, grads: Any = None, retain: Any = None, create_graph: bool = False, **more: Any) -> None:
        assert not create_graph
        backward(tensors, grads, retain, create_graph, **more)

    monkeypatch.setattr(torch.autograd, "backward", checked)
    fit(prepared, tmp_path, max_windows=3)
