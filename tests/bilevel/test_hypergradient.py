"""The hypergradient of one window is the derivative through the inner step, for every optimizer it knows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import Qwen3Config

import oracle
from daj_lightning.bilevel import (
    AdamUpdate,
    BankEngine,
    FlatView,
    InstanceNet,
    Window,
    check_optimizer,
    snapshot,
    split_half_correlation,
)
from daj_lightning.objectives import DPO
from daj_lightning.records import DajError
from inner import (
    ALPHA,
    adam_state,
    batches,
    credited,
    double_judge,
    gradient_scale,
    relative_error,
    take_step,
    truth,
    warm,
)
from tiny import make_batch, make_judge, randomize_adapters

K, M = len(ALPHA), 3


@pytest.mark.usefixtures("true_float64")
class TestAgainstDoubleBackward:
    @pytest.mark.parametrize("clipped", [False, True], ids=["unclipped", "clipped"])
    @pytest.mark.parametrize("kind", ["sgd", "momentum", "nesterov"])
    def test_sgd_is_exact(self, tiny_config: Qwen3Config, kind: str, clipped: bool) -> None:
        lr, mu = 1e-2, 0.0 if kind == "sgd" else 0.9
        judge = double_judge(tiny_config)
        inner, meta = batches()
        scale = gradient_scale(judge, inner)
        optimizer = torch.optim.SGD(judge.trained_parameters(), lr=lr, momentum=mu, nesterov=kind == "nesterov")
        warm(judge, optimizer, 3, scale)
        buffers = [optimizer.state[p].get("momentum_buffer") for p in judge.trained_parameters()]
        flat = FlatView(judge.trained_parameters())
        buffer = flat.gather(
            [torch.zeros_like(p) if b is None else b for p, b in zip(flat.parameters, buffers, strict=True)]
        )
        max_norm = 0.3 * scale if clipped else None
        update = oracle.sgd(lr) if kind == "sgd" else oracle.momentum(lr, mu, buffer, kind == "nesterov")
        wanted = truth(judge, update, max_norm)
        window, q = take_step(judge, optimizer, inner, meta, ALPHA, max_norm)
        got = credited(BankEngine(), window, q)
        assert relative_error(got, wanted) <= 1e-12

    @pytest.mark.parametrize("clipped", [False, True], ids=["unclipped", "clipped"])
    @pytest.mark.parametrize("step", [1, 2, 5, 20, 200])
    def test_adamw_is_exact(self, tiny_config: Qwen3Config, step: int, clipped: bool) -> None:
        judge = double_judge(tiny_config)
        inner, meta = batches()
        scale = gradient_scale(judge, inner)
        optimizer = torch.optim.AdamW(judge.trained_parameters(), lr=1e-4, weight_decay=0.01)
        warm(judge, optimizer, step - 1, scale)
        state = adam_state(optimizer, judge, step)
        max_norm = 0.3 * scale if clipped else None
        decay = 1e-4 * 0.01 * torch.cat([p.detach().flatten() for p in judge.trained_parameters()])
        plain = oracle.adam(1e-4, state)
        wanted = truth(judge, lambda g: plain(g) + decay, max_norm)
        window, q = take_step(judge, optimizer, inner, meta, ALPHA, max_norm)
        got = credited(BankEngine(), window, q)
        assert relative_error(got, wanted) <= (1e-8 if step == 1 else 1e-12)

    def test_clipping_is_no_detail(self, tiny_config: Qwen3Config) -> None:
        """Without its Jacobian the derivative points elsewhere."""
        judge = double_judge(tiny_config)
        inner, meta = batches()
        max_norm = 0.3 * gradient_scale(judge, inner)
        optimizer = torch.optim.SGD(judge.trained_parameters(), lr=1e-2)
        wanted = truth(judge, oracle.sgd(1e-2), max_norm)
        window, q = take_step(judge, optimizer, inner, meta, ALPHA, max_norm)
        unclipped = replace(window, max_norm=None)
        assert relative_error(credited(BankEngine(), unclipped, q), wanted) > 0.01

    def test_the_oracle_agrees_with_central_differences(self, tiny_config: Qwen3Config) -> None:
        judge = double_judge(tiny_config)
        inner, meta = batches()
        optimizer = torch.optim.Adam(judge.trained_parameters(), lr=1e-3)
        warm(judge, optimizer, 19, gradient_scale(judge, inner))
        update = oracle.adam(1e-3, adam_state(optimizer, judge, 20))
        wanted = truth(judge, update)
        world = oracle.Oracle(judge, inner, meta)
        for i in (0, 3):
            step = torch.zeros(K, dtype=torch.float64)
            step[i] = 1e-3
            up, down = (float(world.meta_loss(lambda _, a=a: a, update)) for a in (ALPHA + step, ALPHA - step))
            assert (up - down) / 2e-3 == pytest.approx(float(wanted[i]), rel=1e-6)

    @pytest.mark.parametrize("optimizer_type", [torch.optim.SGD, torch.optim.Adam])
    def test_it_is_finite_and_exact_at_lora_init(self, tiny_config: Qwen3Config, optimizer_type: type) -> None:
        """B = 0: half of all gradients are exactly zero, where sqrt(v) has no derivative."""
        judge = double_judge(tiny_config, at_init=True)
        inner, meta = batches()
        optimizer = optimizer_type(judge.trained_parameters(), lr=1e-4)
        flat = FlatView(judge.trained_parameters())
        is_adam = optimizer_type is torch.optim.Adam
        zero = oracle.AdamState(flat.new_zeros(), flat.new_zeros(), 1)
        wanted = truth(judge, oracle.adam(1e-4, zero) if is_adam else oracle.sgd(1e-4))
        window, q = take_step(judge, optimizer, inner, meta, ALPHA, None)
        got = credited(BankEngine(), window, q)
        assert got.isfinite().all()
        assert relative_error(got, wanted) <= (1e-8 if is_adam else 1e-12)

    def test_the_instance_nets_parameters_get_their_exact_gradient(self, tiny_config: Qwen3Config) -> None:
        torch.manual_seed(0)
        net = InstanceNet().double()
        judge = double_judge(tiny_config)
        inner, meta = batches()
        optimizer = torch.optim.Adam(judge.trained_parameters(), lr=1e-4)
        warm(judge, optimizer, 4, gradient_scale(judge, inner))
        update = oracle.adam(1e-4, adam_state(optimizer, judge, 5))
        world = oracle.Oracle(judge, inner, meta)
        parameters = list(net.parameters())
        wanted = torch.autograd.grad(world.meta_loss(lambda losses: net(inner, losses), update), parameters)
        losses = DPO()(judge, inner).detach()
        weights = net(inner, losses)
        window, q = take_step(judge, optimizer, inner, meta, weights.detach(), None)
        weights.backward(gradient=credited(BankEngine(), window, q))
        got = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        assert relative_error(got, torch.cat([g.flatten() for g in wanted])) <= 1e-12

    @pytest.mark.parametrize("base_dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16 base"])
    def test_low_precision_stays_at_the_noise_of_the_gradients(
        self, tiny_config: Qwen3Config, base_dtype: torch.dtype
    ) -> None:
        exact = double_judge(tiny_config)
        state = {name: value.clone() for name, value in exact.state_dict().items()}
        inner, meta = batches(torch.float32)
        low = make_judge(tiny_config, base_dtype=base_dtype)
        low.load_state_dict({n: state[n].to(v.dtype) for n, v in low.state_dict().items()})
        exact.load_state_dict({n: v.double() for n, v in low.state_dict().items()})  # same numbers, more digits
        assert all(p.dtype == torch.float32 for p in low.trained_parameters())
        wanted = truth(exact, oracle.sgd(1e-6))
        optimizer = torch.optim.SGD(low.trained_parameters(), lr=1e-6)
        window, q = take_step(low, optimizer, inner, meta, ALPHA.float(), None)
        got = credited(BankEngine(), window, q)
        tolerance = 1e-4 if base_dtype is torch.float32 else 6e-2
        assert relative_error(got, wanted) <= tolerance
        assert float(got.double() @ wanted / got.double().norm() / wanted.norm()) >= 0.999


class LeastSquares:
    """Small enough to see: losses (x.phi - y)^2 / 2, so gradients are x (x.phi - y)."""

    def __init__(self) -> None:
        self.phi = torch.tensor([1.0, 0.0], dtype=torch.float64)
        self.train = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)  # raw gradients
        self.meta_gradient = torch.tensor([2.0, 0.0], dtype=torch.float64)


def test_a_sample_gains_weight_iff_its_gradient_helps_the_meta_set() -> None:
    """One SGD step: dL_meta/dalpha_i = -lr/K <q, g_i>; the outer optimizer descends it."""
    toy = LeastSquares()
    flat = FlatView([torch.nn.Parameter(toy.phi)])
    optimizer = torch.optim.SGD(flat.parameters, lr=0.3)
    window = Window(make_batch(3), torch.zeros(3), toy.train, toy.train.mean(0), None, snapshot(optimizer, flat))
    derivative = credited(BankEngine(), window, toy.meta_gradient)
    torch.testing.assert_close(derivative, torch.tensor([-0.2, 0.2, 0.0], dtype=torch.float64))
    weights = 1 - derivative.sign()
    assert weights.tolist() == [2.0, 0.0, 1.0], "helps: gains; hurts: loses; neither: stays"


def test_every_sample_of_the_window_gets_a_gradient_and_nothing_else_changes(tiny_config: Qwen3Config) -> None:
    judge = make_judge(tiny_config)
    randomize_adapters(judge)
    inner, meta = make_batch(16), make_batch(8, seed=5)
    optimizer = torch.optim.Adam(judge.trained_parameters(), lr=1e-3)
    window, q = take_step(judge, optimizer, inner, meta, torch.ones(16), 1.0)
    phi = [p.detach().clone() for p in judge.parameters()]
    state = [v.clone() for s in optimizer.state.values() for v in s.values()]
    bank = window.rows.clone()
    first, second = credited(BankEngine(), window, q), credited(BankEngine(), window, q)
    assert (first != 0).all()
    assert torch.equal(first, second), "same input, same bits"
    assert all(torch.equal(a, b) for a, b in zip(phi, judge.parameters(), strict=True))
    assert all(
        torch.equal(a, b) for a, b in zip(state, [v for s in optimizer.state.values() for v in s.values()], strict=True)
    )
    assert torch.equal(bank, window.rows)


def test_preconditioners_differ_as_documented(tiny_config: Qwen3Config) -> None:
    judge = make_judge(tiny_config)
    randomize_adapters(judge)
    inner, meta = make_batch(K), make_batch(M, seed=5)
    optimizer = torch.optim.Adam(judge.trained_parameters(), lr=1e-3)
    warm(judge, optimizer, 5, gradient_scale(judge, inner))
    window, q = take_step(judge, optimizer, inner, meta, torch.ones(K), None)
    identity, frozen, exact = (credited(BankEngine(name), window, q) for name in ("identity", "frozen", "exact"))
    torch.testing.assert_close(identity, -1e-3 / K * window.rows @ q)
    update = window.update
    assert isinstance(update, AdamUpdate)
    v = update.beta2 * update.v0 + (1 - update.beta2) * window.gradient**2
    denominator = (v / (1 - update.beta2**update.step)).sqrt() + update.eps
    torch.testing.assert_close(frozen, -1 / K * window.rows @ (q * 1e-3 / denominator))
    assert relative_error(exact, frozen) > 0.05


def test_optimizers_without_an_elementwise_jacobian_are_refused() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    check_optimizer(torch.optim.AdamW([parameter], lr=1.0, weight_decay=0.1))
    for optimizer in (
        torch.optim.RMSprop([parameter], lr=1.0),
        torch.optim.Adam([parameter], lr=1.0, weight_decay=0.1),
        torch.optim.Adam([parameter], lr=1.0, amsgrad=True),
        torch.optim.Adam([parameter], lr=1.0, eps=0.0),  # 0 / 0 where a gradient is 0
    ):
        with pytest.raises(DajError, match=type(optimizer).__name__):
            check_optimizer(optimizer)


def test_split_half_correlation_is_one_for_agreeing_halves_and_minus_one_for_opposed_ones() -> None:
    first = torch.tensor([0.1, -0.4, 0.3, 0.2])
    assert split_half_correlation(first, 3 * first + 1) == pytest.approx(1)
    assert split_half_correlation(first, -first) == pytest.approx(-1)
