"""The bank on the host says what the bank beside the judge says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import Qwen3Config

from conftest import Prepared
from daj_lightning.bilevel import BankEngine, FlatView, GradientBank, OffloadedBank, RecomputedLoss, Setting, Window
from daj_lightning.judge import Judge
from daj_lightning.objectives import DPO
from daj_lightning.training import Auditor, Level, WindowCheckpoint
from inner import ALPHA, K, batches, double_judge, gradient_scale, meta_gradient, relative_error, take_inner_step, warm
from runs import fit
from tiny import make_batch, make_judge, randomize_adapters, toy_data, toy_module, toy_trainer


def windows_and_q(config: Qwen3Config, engine: BankEngine, clipped: bool, count: int) -> tuple[list[Window], Tensor]:
    """The engine has watched `count` windows of a float64 judge under Adam; its windows, and q after the last."""
    judge = double_judge(config)
    optimizer = torch.optim.Adam(judge.trained_parameters(), lr=1e-4)
    scale = gradient_scale(judge, batches()[0])
    warm(judge, optimizer, 19, scale)
    flat = FlatView(judge.trained_parameters())
    store = engine.start(Setting(flat, K, 3, RecomputedLoss(judge, DPO()).at))
    windows = []
    for w in range(count):
        inner = batches(seed=20 + 2 * w)[0]
        windows.append(take_inner_step(judge, optimizer, inner, ALPHA, 0.3 * scale if clipped else None, store))
        engine.observe(windows[-1])
    return windows, meta_gradient(judge, batches(seed=40)[1])


@pytest.mark.usefixtures("true_float64")
@pytest.mark.parametrize("clipped", [False, True], ids=["unclipped", "clipped"])
@pytest.mark.parametrize("preconditioner", ["exact", "frozen", "identity"])
@pytest.mark.parametrize("num_windows", [1, 3])
def test_its_credits_are_the_banks(
    tiny_config: Qwen3Config, num_windows: int, preconditioner: str, clipped: bool
) -> None:
    """To the bit, but for one window's exact derivative: the bank has that in a single pass over its rows."""
    credits, steps = [], []
    for offload in (False, True):
        engine = BankEngine(preconditioner, unroll_windows=num_windows, offload=offload)  # type: ignore[arg-type]
        windows, q = windows_and_q(tiny_config, engine, clipped, num_windows)
        steps.append(torch.stack([window.gradient for window in windows]))
        credits.append(torch.stack([credit.derivative for credit in engine(q)]))
    assert torch.equal(*steps)
    assert credits[0].shape == (num_windows, K)
    assert credits[0].abs().min() > 0
    assert relative_error(credits[1], credits[0]) <= 1e-12
    if num_windows > 1 or preconditioner != "exact":
        assert torch.equal(*credits)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_its_rows_and_their_sum_are_the_banks_to_the_bit(tiny_config: Qwen3Config, dtype: str) -> None:
    judge = make_judge(tiny_config)
    randomize_adapters(judge)
    flat = FlatView(judge.trained_parameters())
    sgd = torch.optim.SGD(judge.trained_parameters(), lr=0.0)
    plain, offloaded = (kind(flat, K, dtype, 2) for kind in (GradientBank, OffloadedBank))  # type: ignore[operator]
    for seed in range(3):
        inner = make_batch(K, seed=seed)
        one, other = (take_inner_step(judge, sgd, inner, ALPHA.float(), store=store) for store in (plain, offloaded))
        assert one.rows.abs().sum(dim=1).min() > 0
        assert torch.equal(one.rows, other.rows)
        assert torch.equal(one.gradient, other.gradient)


@pytest.mark.parametrize("size", [1, 3], ids=["one by one", "three and one together"])
def test_a_run_takes_the_same_inner_steps_and_ends_with_the_banks_weights(
    prepared: Prepared, tmp_path: Path, size: int
) -> None:
    ends = []
    for offload in (False, True):
        module = fit(prepared, tmp_path, engine=BankEngine(offload=offload), max_windows=5, micro_batch_size=size)
        ends.append(torch.cat([p.detach().flatten() for p in module.reweighter.parameters()]))
        assert isinstance(module.store, OffloadedBank if offload else GradientBank)
    assert ends[0].abs().max() > 1e-3
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("offload", [False, True])
def test_a_run_may_be_resumed_with_it_or_without(prepared: Prepared, tmp_path: Path, offload: bool) -> None:
    """Begun the other way, stopped after window 4 of 7 with a window in the history: the same weights in the end."""

    def run(offload: bool, ckpt: str | None = None) -> Tensor:
        torch.manual_seed(0)
        module = toy_module(prepared.base, engine=BankEngine(unroll_windows=2, offload=offload))
        directory = tmp_path / ("resumed" if ckpt else "unbroken")
        callbacks = [WindowCheckpoint(str(directory), every_n_windows=4, keep=5)]
        data = toy_data(prepared.root, prepared.base, max_windows=7)
        toy_trainer(directory, callbacks).fit(module, data, ckpt_path=ckpt)
        assert all(window.rows.device.type == "cpu" for window in module.engine.history)
        return torch.cat([p.detach().flatten() for p in module.reweighter.parameters()])

    unbroken = run(not offload)
    assert unbroken.abs().max() > 1e-3
    resumed = run(offload, str(tmp_path / "unbroken" / "window-000004.ckpt"))
    torch.testing.assert_close(resumed, unbroken, rtol=1e-5, atol=1e-7)


def test_an_audit_finds_the_same(prepared: Prepared, tmp_path: Path) -> None:
    auditors = []
    for offload in (False, True):
        torch.manual_seed(0)
        judge = Judge(str(prepared.base), "float32", lora_r=4, lora_alpha=8)
        engine = BankEngine(unroll_windows=2, offload=offload)
        auditors.append(Auditor(judge, Level(lr=1e-3), DPO(), engine, 1.0, 2))
        toy_trainer(tmp_path).fit(auditors[-1], toy_data(prepared.root, prepared.base))
    plain, offloaded = auditors
    assert len(plain.looks) == 7
    for one, other in zip(plain.looks, offloaded.looks, strict=True):
        assert one.window == other.window
        assert relative_error(other.influence, one.influence) <= 1e-5
    for (_, one_cosine), (_, other_cosine) in zip(plain.cosines, offloaded.cosines, strict=True):
        assert torch.equal(one_cosine, other_cosine)


@pytest.mark.gpu
@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_leave_a_gpu_whole(dtype: str) -> None:
    """Rows large enough that a copy is still under way when the next sample's gradient is written."""
    K, P = 8, 1 << 24
    parameter = torch.nn.Parameter(torch.zeros(P, device="cuda"))
    flat = FlatView([parameter])
    store = OffloadedBank(flat, K, dtype, num_windows=2)  # type: ignore[arg-type]
    sample = make_batch(K).to("cuda")
    weights = torch.linspace(0.5, 1.5, K, device="cuda")
    for window in range(3):
        gradients = [torch.randn(P, device="cuda") + window for _ in range(K)]
        for i, gradient in enumerate(gradients):
            store.open(i, sample)
            assert parameter.grad is not None
            parameter.grad.add_(gradient)
            store.close(i, weights[i : i + 1])
        combined = store.combine(sample, weights)
        assert store.rows.is_pinned()
        assert store.rows.device.type == "cpu"
        for row, gradient in zip(store.rows, gradients, strict=True):
            assert torch.equal(row.cuda(), gradient.to(row.dtype))
        wanted = sum(w * row.cuda().double() for w, row in zip(weights, store.rows, strict=True)) / K
        assert combined.is_cuda
        assert relative_error(combined, wanted) < 1e-6


@pytest.mark.gpu
@pytest.mark.usefixtures("cuda")
def test_on_a_gpu_its_credits_are_the_banks(tiny_config: Qwen3Config) -> None:
    credits = []
    for offload in (False, True):
        judge = make_judge(tiny_config).cuda()
        randomize_adapters(judge)
        optimizer = torch.optim.Adam(judge.trained_parameters(), lr=1e-4)
        engine = BankEngine(unroll_windows=2, offload=offload)
        flat = FlatView(judge.trained_parameters())
        store = engine.start(Setting(flat, K, 3, RecomputedLoss(judge, DPO()).at))
        for seed in (1, 2):
            inner = make_batch(K, seed=seed).to("cuda")
            engine.observe(take_inner_step(judge, optimizer, inner, ALPHA.float().cuda(), 1e-3, store))
        found = engine(meta_gradient(judge, make_batch(3, seed=5).to("cuda")))
        credits.append(torch.stack([credit.derivative for credit in found]))
    assert credits[1].is_cuda
    assert relative_error(credits[1], credits[0]) < 1e-4
