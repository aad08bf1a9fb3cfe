"""Engines beside the bank: the same derivative by other means, or the credit of more than one window."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer
from transformers import Qwen3Config

import oracle
from daj_lightning.bilevel import (
    BankEngine,
    DomainSums,
    FiniteDifferenceEngine,
    FlatView,
    GradientBank,
    GradientSum,
    HypergradientEngine,
    JvpEngine,
    TraceEngine,
    Window,
    mean_credits,
)
from daj_lightning.judge import Judge
from daj_lightning.records import DajError, JudgeBatch
from inner import (
    ALPHA,
    K,
    adam_state,
    batches,
    credited,
    double_judge,
    gradient_scale,
    meta_gradient,
    relative_error,
    setting,
    take_inner_step,
    take_step,
    warm,
)
from tiny import make_batch, make_judge, randomize_adapters

T = 4
Make = Callable[[list[torch.nn.Parameter]], Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-3),
    "momentum": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, dampening=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1),
}


def windows_of(seed: int = 20, count: int = T) -> list[JudgeBatch]:
    return [batches(seed=seed + 2 * t)[0] for t in range(count)]


def history_of(
    engine: HypergradientEngine,
    judge: Judge,
    optimizer: Optimizer,
    windows: Sequence[JudgeBatch],
    weights: Tensor,
    max_norm: float | None = None,
) -> None:
    """The engine watches one inner step for each batch."""
    store = engine.start(setting(judge))
    for inner in windows:
        engine.observe(take_inner_step(judge, optimizer, inner, weights, max_norm, store))


@pytest.mark.usefixtures("true_float64")
class TestJvp:
    @pytest.mark.parametrize("max_norm", [None, 1e-3], ids=["unclipped", "clipped"])
    @pytest.mark.parametrize("kind", ["sgd", "adam"])
    def test_it_equals_the_bank(self, tiny_config: Qwen3Config, kind: str, max_norm: float | None) -> None:
        judge = double_judge(tiny_config)
        inner, meta = batches()
        optimizer = OPTIMIZERS[kind](judge.trained_parameters())
        warm(judge, optimizer, 19, gradient_scale(judge, inner))
        window, q = take_step(judge, optimizer, inner, meta, ALPHA, max_norm)
        jvp = JvpEngine()
        jvp.start(setting(judge))
        assert relative_error(credited(jvp, window, q), credited(BankEngine(), window, q)) <= 1e-12

    def test_it_works_over_scaled_dot_product_attention_and_a_bfloat16_base(self, tiny_config: Qwen3Config) -> None:
        judge = make_judge(tiny_config, base_dtype=torch.bfloat16)
        randomize_adapters(judge)
        inner, meta = batches(torch.float32)
        optimizer = torch.optim.SGD(judge.trained_parameters(), lr=1e-6)
        window, q = take_step(judge, optimizer, inner, meta, ALPHA.float(), None)
        jvp = JvpEngine()
        jvp.start(setting(judge))
        got, bank = credited(jvp, window, q), credited(BankEngine(), window, q)
        assert float(got @ bank / got.norm() / bank.norm()) > 0.999


@pytest.mark.parametrize("engine", [JvpEngine(), FiniteDifferenceEngine()], ids=lambda e: type(e).__name__)
def test_going_back_moves_nothing(tiny_config: Qwen3Config, engine: HypergradientEngine) -> None:
    """Betty perturbs the adapters in place and adds the perturbation back, which rounds; these pass a copy."""
    judge = make_judge(tiny_config)
    randomize_adapters(judge)
    inner, meta = make_batch(K), make_batch(3, seed=5)
    optimizer = torch.optim.Adam(judge.trained_parameters(), lr=1e-3)
    store = engine.start(setting(judge))
    window = take_inner_step(judge, optimizer, inner, torch.ones(K), 1.0, store)
    q = meta_gradient(judge, meta)
    before = [p.detach().clone() for p in judge.parameters()]
    first, second = credited(engine, window, q), credited(engine, window, q)
    assert torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(before, judge.parameters(), strict=True))
    assert all(p.grad is None for p in judge.parameters())


def test_finite_differences_come_near_in_float32_and_fail_at_a_wide_radius(tiny_config: Qwen3Config) -> None:
    judge = make_judge(tiny_config)
    randomize_adapters(judge)
    inner, meta = batches(torch.float32)
    optimizer = torch.optim.SGD(judge.trained_parameters(), lr=1e-2)
    window, q = take_step(judge, optimizer, inner, meta, ALPHA.float(), None)
    errors = {}
    for radius in (1e-2, 30.0):
        engine = FiniteDifferenceEngine(radius=radius)
        engine.start(setting(judge))
        errors[radius] = relative_error(credited(engine, window, q), credited(BankEngine(), window, q))
    assert errors[1e-2] < 0.02
    assert errors[30.0] > 0.2


@pytest.mark.parametrize("engine", [JvpEngine(), FiniteDifferenceEngine()], ids=lambda e: type(e).__name__)
def test_engines_without_a_bank_keep_one_weighted_sum(tiny_config: Qwen3Config, engine: HypergradientEngine) -> None:
    """The window's gradient is the bank's, from P numbers of memory instead of K P."""
    judge = make_judge(tiny_config)
    randomize_adapters(judge)
    inner, weights = make_batch(K), ALPHA.float()
    sgd = torch.optim.SGD(judge.trained_parameters(), lr=0.0 + 1e-9)
    store = engine.start(setting(judge))
    assert isinstance(store, GradientSum)
    assert store.rows.shape[0] == 1
    summed = take_inner_step(judge, sgd, inner, weights, store=store)
    banked = take_inner_step(judge, sgd, inner, weights)
    torch.testing.assert_close(summed.gradient, banked.gradient, rtol=1e-4, atol=1e-7)


def differentiable_adam(lr: float, kept: float = 1.0) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    def step(phi: Tensor, m: Tensor, v: Tensor, g: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        root = (v / (1 - 0.999**number)).sqrt()
        return kept * phi - lr * (m / (1 - 0.9**number)) / (root + 1e-8), m, v

    return step


def unrolled_truth(
    judge: Judge,
    windows: Sequence[JudgeBatch],
    meta: JudgeBatch,
    start: oracle.AdamState,
    lr: float,
    max_norm: float | None,
) -> Tensor:
    """(T, K) d L_meta / d alpha by double backward through all T steps, Hessian and all."""
    world = oracle.Oracle(judge, windows[0], meta)
    sizes = [p.numel() for p in world.phi]
    phi = torch.cat([p.flatten() for p in world.phi]).requires_grad_()
    alpha = ALPHA.repeat(len(windows), 1).requires_grad_()
    m, v, step = start.m0, start.v0, differentiable_adam(lr)

    def split(flat: Tensor) -> list[Tensor]:
        return [part.view_as(p) for part, p in zip(flat.split(sizes), world.phi, strict=True)]

    for t, inner in enumerate(windows):
        with oracle.twice_differentiable():
            losses = world.losses(split(phi), inner)
        rows = torch.stack([torch.autograd.grad(loss, phi, create_graph=True)[0] for loss in losses])
        gradient = oracle.clip((alpha[t][:, None] * rows).mean(dim=0), max_norm)
        phi, m, v = step(phi, m, v, gradient, start.step + t)
    return torch.autograd.grad(world.losses(split(phi), meta).mean(), alpha)[0]


@pytest.mark.usefixtures("true_float64")
class TestUnrolling:
    @pytest.mark.parametrize("clipped", [False, True], ids=["unclipped", "clipped"])
    def test_four_windows_of_adam_at_the_papers_rate_need_no_hessian(
        self, tiny_config: Qwen3Config, clipped: bool
    ) -> None:
        judge = double_judge(tiny_config)
        windows, meta = windows_of(), batches(seed=40)[1]
        optimizer = torch.optim.Adam(judge.trained_parameters(), lr=1e-6)
        scale = gradient_scale(judge, windows[0])
        warm(judge, optimizer, 20, scale)
        max_norm = 0.3 * scale if clipped else None
        wanted = unrolled_truth(judge, windows, meta, adam_state(optimizer, judge, 21), 1e-6, max_norm)
        engine = BankEngine(unroll_windows=T)
        history_of(engine, judge, optimizer, windows, ALPHA, max_norm)
        got = torch.stack([credit.derivative for credit in engine(meta_gradient(judge, meta))])
        assert relative_error(got, wanted) <= 1e-4
        last_alone = torch.zeros_like(wanted)
        last_alone[-1] = got[-1]
        assert relative_error(last_alone, wanted) > 0.5, "the earlier windows are most of it"

    def test_without_the_moments_the_earlier_windows_are_wrong(self, tiny_config: Qwen3Config) -> None:
        judge = double_judge(tiny_config)
        windows, meta = windows_of(), batches(seed=40)[1]
        optimizer = torch.optim.Adam(judge.trained_parameters(), lr=1e-6)
        warm(judge, optimizer, 20, gradient_scale(judge, windows[0]))
        wanted = unrolled_truth(judge, windows, meta, adam_state(optimizer, judge, 21), 1e-6, None)
        engine = BankEngine(unroll_windows=T)
        history_of(engine, judge, optimizer, windows, ALPHA)
        q = meta_gradient(judge, meta)
        each_as_if_last = torch.stack([credited(BankEngine(), window, q) for window in engine.history])
        assert relative_error(each_as_if_last, wanted) > 0.1

    def test_a_bank_of_one_window_credits_the_last_alone(self, tiny_config: Qwen3Config) -> None:
        judge = double_judge(tiny_config)
        windows, meta = windows_of(), batches(seed=40)[1]
        engine = BankEngine()
        history_of(engine, judge, OPTIMIZERS["adam"](judge.trained_parameters()), windows, ALPHA)
        (credit,) = engine(meta_gradient(judge, meta))
        assert credit.batch is windows[-1]

    def test_the_history_survives_a_checkpoint(self, tiny_config: Qwen3Config) -> None:
        """State taken after three windows, given to a fresh engine: after the fourth both say the same bits."""
        judge = double_judge(tiny_config)
        windows, meta = windows_of(), batches(seed=40)[1]
        optimizer = OPTIMIZERS["adam"](judge.trained_parameters())
        first, second = BankEngine(unroll_windows=3), BankEngine(unroll_windows=3)
        store = first.start(setting(judge))
        for inner in windows[:3]:
            first.observe(take_inner_step(judge, optimizer, inner, ALPHA, None, store))
            first.forget()
        assert len(first.history) == 2, "what the fourth window pushes out is gone"
        second.start(setting(judge))
        second.load_state(first.state(), first.parts())
        last = take_inner_step(judge, optimizer, windows[3], ALPHA, None, store)
        q = meta_gradient(judge, meta)
        first.observe(last)
        second.observe(last)
        for a, b in zip(first(q), second(q), strict=True):
            assert torch.equal(a.derivative, b.derivative)
            assert torch.equal(a.batch.sample_ids, b.batch.sample_ids)


@pytest.mark.parametrize("engine", [BankEngine(unroll_windows=2), TraceEngine()], ids=lambda e: type(e).__name__)
def test_the_credits_of_two_halves_of_a_meta_batch_add_up(
    tiny_config: Qwen3Config, engine: HypergradientEngine
) -> None:
    judge = make_judge(tiny_config)
    randomize_adapters(judge)
    optimizer = OPTIMIZERS["adam"](judge.trained_parameters())
    history_of(engine, judge, optimizer, [make_batch(K, seed=s) for s in (1, 2)], torch.ones(K))
    first, second = (meta_gradient(judge, make_batch(3, seed=s)) for s in (5, 6))
    added = mean_credits([engine(first), engine(second)], [0.25, 0.75])
    whole = engine(0.25 * first + 0.75 * second)
    for a, b in zip(added, whole, strict=True):
        torch.testing.assert_close(a.derivative, b.derivative, rtol=1e-4, atol=1e-9)


def by_domain(credits: Sequence[tuple[JudgeBatch, Tensor]]) -> Tensor:
    """(3,) derivatives summed over the samples of each domain."""
    total = torch.zeros(3, dtype=torch.float64)
    for batch, derivative in credits:
        total.index_add_(0, batch.domains, derivative)
    return total


@pytest.mark.usefixtures("true_float64")
class TestTrace:
    @pytest.mark.parametrize("max_norm", [None, 1e-3], ids=["unclipped", "clipped"])
    @pytest.mark.parametrize("kind", OPTIMIZERS)
    def test_undecayed_it_is_the_transpose_of_unrolling_the_whole_run(
        self, tiny_config: Qwen3Config, kind: str, max_norm: float | None
    ) -> None:
        """One carries D tangents forward, the other adjoints back through T banks: the same number."""
        windows, meta = windows_of(), batches(seed=40)[1]
        results = []
        for engine in (TraceEngine(decay=1.0), BankEngine(unroll_windows=T)):
            judge = double_judge(tiny_config)
            weights = torch.tensor([0.7, 1.4, 0.1, 0.7], dtype=torch.float64)  # samples 0 and 3 share a domain
            history_of(engine, judge, OPTIMIZERS[kind](judge.trained_parameters()), windows, weights, max_norm)
            credits = engine(meta_gradient(judge, meta))
            results.append(by_domain([(c.batch, c.derivative) for c in credits]))
        assert relative_error(results[0], results[1]) <= 1e-12

    def test_many_steps_agree_with_central_differences(self, tiny_config: Qwen3Config) -> None:
        """Twelve windows of Adam at 1e-5: another weight of a domain throughout moves the meta loss as it says."""
        windows, meta = windows_of(count=12), batches(seed=60)[1]

        def run(weights: Tensor, engine: HypergradientEngine) -> Judge:
            judge = double_judge(tiny_config)
            optimizer = torch.optim.Adam(judge.trained_parameters(), lr=1e-5)
            warm(judge, optimizer, 10, gradient_scale(judge, windows[0]))
            store = engine.start(setting(judge))
            for inner in windows:
                engine.observe(take_inner_step(judge, optimizer, inner, weights[inner.domains], None, store))
            return judge

        def meta_loss(weights: Tensor) -> float:
            judge = run(weights, BankEngine())
            return float(
                oracle.Oracle(judge, windows[0], meta).losses(judge.trained_parameters(), meta).mean().detach()
            )

        weights = torch.tensor([1.2, 0.8, 1.0], dtype=torch.float64)
        engine = TraceEngine(decay=1.0)
        judge = run(weights, engine)
        got = by_domain([(c.batch, c.derivative) for c in engine(meta_gradient(judge, meta))])
        wanted = torch.zeros_like(weights)
        for k in range(3):
            step = torch.zeros_like(weights)
            step[k] = 1e-3
            wanted[k] = (meta_loss(weights + step) - meta_loss(weights - step)) / 2e-3
        assert relative_error(got, wanted) <= 1e-2

    def test_decay_forgets_the_first_windows(self, tiny_config: Qwen3Config) -> None:
        """With decay 0 the credit is that of the last window, but for what the optimizer's state remembers."""
        windows, meta = windows_of(), batches(seed=40)[1]
        results = []
        for engine in (TraceEngine(decay=0.0), BankEngine()):
            judge = double_judge(tiny_config)
            weights = torch.tensor([0.7, 1.4, 0.1, 0.7], dtype=torch.float64)
            history_of(engine, judge, OPTIMIZERS["sgd"](judge.trained_parameters()), windows, weights)
            credits = engine(meta_gradient(judge, meta))
            results.append(by_domain([(c.batch, c.derivative) for c in credits]))
        assert relative_error(results[0], results[1]) <= 1e-12

    def test_the_tangents_survive_a_checkpoint(self, tiny_config: Qwen3Config) -> None:
        judge = double_judge(tiny_config)
        weights = torch.tensor([0.7, 1.4, 0.1, 0.7], dtype=torch.float64)
        first, second = TraceEngine(), TraceEngine()
        optimizer = OPTIMIZERS["adam"](judge.trained_parameters())
        history_of(first, judge, optimizer, windows_of(), weights)
        second.start(setting(judge))
        second.load_state(first.state(), first.parts())
        q = meta_gradient(judge, batches(seed=40)[1])
        for a, b in zip(first(q), second(q), strict=True):
            assert torch.equal(a.derivative, b.derivative)
            assert torch.equal(a.batch.domains, b.batch.domains)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_store_gives_the_same_window_gradient(tiny_config: Qwen3Config, dtype: str) -> None:
    judge = make_judge(tiny_config)
    randomize_adapters(judge)
    inner, weights = make_batch(K), torch.tensor([0.7, 1.4, 0.1, 0.7])  # domains 0, 1, 2, 0
    sgd = torch.optim.SGD(judge.trained_parameters(), lr=1e-9)
    flat = FlatView(judge.trained_parameters())
    stores = [GradientBank(flat, K, dtype, num_windows=2), DomainSums(flat, 3), GradientSum(flat)]  # type: ignore[arg-type]
    first, *others = [take_inner_step(judge, sgd, inner, weights, store=store).gradient for store in stores]
    for other in others:
        assert relative_error(first, other) < (1e-5 if dtype == "float32" else 1e-2)


def test_a_ring_of_two_windows_keeps_the_one_before(tiny_config: Qwen3Config) -> None:
    judge = make_judge(tiny_config)
    randomize_adapters(judge)
    sgd = torch.optim.SGD(judge.trained_parameters(), lr=1e-3)
    store = GradientBank(FlatView(judge.trained_parameters()), K, num_windows=2)
    windows: list[Window] = []
    kept: list[Tensor] = []
    for seed in range(3):
        windows.append(take_inner_step(judge, sgd, make_batch(K, seed=seed), torch.ones(K), store=store))
        kept.append(windows[-1].rows.clone())
    assert torch.equal(windows[1].rows, kept[1])
    assert torch.equal(windows[2].rows, kept[2])
    assert torch.equal(windows[0].rows, kept[2]), "the third window took the first one's place"


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (lambda: BankEngine(unroll_windows=0), "unroll_windows >= 1, got 0"),
        (lambda: FiniteDifferenceEngine(radius=0.0), "radius > 0, got 0"),
        (lambda: TraceEngine(decay=1.5), "0 <= decay <= 1, got 1.5"),
    ],
)
def test_an_engine_refuses_a_setting_without_meaning(make: Callable[[], HypergradientEngine], wanted: str) -> None:
    with pytest.raises(DajError, match=wanted):
        make()
