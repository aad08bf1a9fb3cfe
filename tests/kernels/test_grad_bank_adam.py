"""Adam's Jacobian is the derivative of Adam's update, and the bank's dot with it fused is the dot with it computed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor
from torch.autograd import forward_ad

from called import ops_called
from daj_lightning.bilevel import AdamUpdate, BankEngine, Credit, FlatView, GradientBank, SgdUpdate, Window
from daj_lightning.kernels import AdamJacobian, grad_bank_dot_adam
from tiny import make_batch

BANK_DTYPES = [torch.float32, torch.bfloat16]
SHAPES = [(1, 1), (3, 31), (4, 64), (5, 4097), (16, 100_003), (17, 8192)]
STEPS = [1, 2, 100]


def draw_jacobian(P: int, step: int = 100, eps: float = 1e-8, device: str = "cpu") -> AdamJacobian:
    """Gradients of 1e-3 in float32, with the moments that such ones leave behind; none at step 1."""
    generator = torch.Generator().manual_seed(P + step)
    gradient, m0, root = (1e-3 * torch.randn(P, generator=generator) for _ in range(3))
    v0 = root.square() * 0.5
    if step == 1:
        m0, v0 = torch.zeros(P), torch.zeros(P)
    return AdamJacobian(gradient.to(device), m0.to(device), v0.to(device), 1e-3, 0.9, 0.999, eps, step)


def draw(K: int, P: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Bank (K, P) and vector (P,), from N(0, 1)."""
    generator = torch.Generator().manual_seed(K * 1_000_003 + P)
    bank, vector = (torch.randn(shape, generator=generator) for shape in ((K, P), (P,)))
    return bank.to(device, dtype), vector.to(device)


def double(j: AdamJacobian) -> AdamJacobian:
    return replace(j, gradient=j.gradient.double(), m0=j.m0.double(), v0=j.v0.double())


def autograd_jacobian(j: AdamJacobian) -> Tensor:
    """du/dg of what torch.optim.Adam computes from g and its moments, in float64; v must not be 0."""
    j = double(j)
    g = j.gradient.clone().requires_grad_()
    m, v = j.beta1 * j.m0 + (1 - j.beta1) * g, j.beta2 * j.v0 + (1 - j.beta2) * g * g
    denominator = v.sqrt() / (1 - j.beta2**j.step) ** 0.5 + j.eps
    update = j.lr / (1 - j.beta1**j.step) * m / denominator
    (jacobian,) = torch.autograd.grad(update.sum(), g)
    return jacobian


def magnitude(j: AdamJacobian) -> Tensor:
    """(P,) J with its two terms added instead of subtracted: rounding errors are relative to this."""
    opposed = replace(j, m0=-j.m0.abs() * j.gradient.sign())
    return double(opposed).diagonal()


def fused(bank: Tensor, vector: Tensor, j: AdamJacobian) -> Tensor:
    """(K + 1,) of the bare op."""
    return torch.ops.daj.grad_bank_dot_adam(bank, vector, j.gradient, j.m0, j.v0, j.lr, j.beta1, j.beta2, j.eps, j.step)


def elementwise(j: AdamJacobian) -> Tensor:
    """(P,) J as the extension computes it: each row of the identity picks one column."""
    P = len(j.gradient)
    identity = torch.eye(P, device=j.gradient.device)
    return fused(identity, identity.new_ones(P), j)[:-1]


def check_accuracy(bank: Tensor, vector: Tensor, j: AdamJacobian) -> None:
    """Against float64; the errors allowed are some float32 roundings of each term of the sum."""
    rows = torch.cat([bank.double(), j.gradient.double()[None]])
    truth = rows @ (double(j).diagonal() * vector.double())
    allowed = 2e-6 * (rows.abs() @ (magnitude(j) * vector.double().abs()))
    got = fused(bank, vector, j)
    assert got.dtype == torch.float32
    assert got.shape == truth.shape
    assert ((got.double() - truth).abs() <= allowed).all()


class TestTheJacobian:
    @pytest.mark.parametrize("eps", [1e-8, 1e-2])
    @pytest.mark.parametrize("step", STEPS)
    def test_it_is_the_derivative_of_adams_update(self, step: int, eps: float):
        j = draw_jacobian(1000, step, eps)
        tolerance = 1e-8 if step == 1 else 1e-12  # autograd's own form cancels at step 1
        assert ((double(j).diagonal() - autograd_jacobian(j)).abs() <= tolerance * magnitude(j).max()).all()

    def test_float32_is_exact_at_the_first_step(self):
        """There u = lr g / (|g| + eps), so that J = lr eps / (|g| + eps)^2."""
        j = draw_jacobian(1000, step=1)
        wanted = j.lr * j.eps / (j.gradient.double().abs() + j.eps).square()
        torch.testing.assert_close(j.diagonal().double(), wanted, rtol=1e-6, atol=0)

    @pytest.mark.parametrize("step", STEPS)
    def test_where_nothing_was_ever_seen_it_is_the_limit(self, step: int):
        """v0 = 0 and g = 0: u = lr (1 - b1) g / (bc1 (|g| sqrt((1 - b2) / bc2) + eps)), so lr (1 - b1) / (bc1 eps)."""
        j = AdamJacobian(*torch.zeros(3, 4), lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, step=step)
        wanted = torch.full((4,), 1e-3 * (1 - 0.9) / ((1 - 0.9**step) * 1e-8))
        torch.testing.assert_close(j.diagonal(), wanted)


class TestThePublicFunction:
    def test_plain_torch_by_hand(self, monkeypatch: pytest.MonkeyPatch):
        """In the first step J = lr eps / D^2 with D = |g| + eps; here 1/4 and 1/9."""
        monkeypatch.setenv("DAJ_KERNELS", "torch")
        j = AdamJacobian(torch.tensor([1.0, -2.0]), torch.zeros(2), torch.zeros(2), 1.0, 0.5, 0.5, 1.0, 1)
        dots, along = grad_bank_dot_adam(torch.tensor([[4.0, 0.0], [4.0, 9.0]]), torch.tensor([2.0, 3.0]), j)
        torch.testing.assert_close(dots, torch.tensor([2.0, 5.0]))  # y = (2/4, 3/9)
        torch.testing.assert_close(along, torch.tensor(0.5 - 2 / 3))

    @pytest.mark.usefixtures("ext")
    def test_float64_stays_float64_and_float32_reaches_the_extension(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("DAJ_KERNELS", "auto")
        bank, vector = draw(3, 5)
        dots, along = grad_bank_dot_adam(bank.double(), vector.double(), double(draw_jacobian(5)))
        assert dots.dtype == along.dtype == torch.float64
        assert "daj::grad_bank_dot_adam" not in ops_called(
            lambda: grad_bank_dot_adam(bank.double(), vector, draw_jacobian(5))
        )
        for dtype in BANK_DTYPES:
            assert "daj::grad_bank_dot_adam" in ops_called(
                lambda dtype=dtype: grad_bank_dot_adam(bank.to(dtype), vector, draw_jacobian(5))
            )

    @pytest.mark.parametrize("name", ["gradient", "m0", "v0"])
    def test_operands_that_do_not_fit_are_named(self, name: str):
        bank, vector = draw(2, 3)
        j = replace(draw_jacobian(3), **{name: torch.zeros(4)})
        with pytest.raises(
            ValueError, match=rf"{name} needs the shape \(3,\) for a bank of shape \(2, 3\); got \(4,\)"
        ):
            grad_bank_dot_adam(bank, vector, j)

    def test_steps_count_from_one(self):
        with pytest.raises(ValueError, match="step counts Adam's steps from 1; got 0"):
            grad_bank_dot_adam(*draw(2, 3), replace(draw_jacobian(3), step=0))

    @pytest.mark.parametrize("name", ["vector", "gradient", "m0", "v0"])
    def test_derivatives_are_refused(self, name: str):
        bank, vector = draw(2, 3)
        tensors = {"vector": vector, **{n: getattr(draw_jacobian(3), n) for n in ("gradient", "m0", "v0")}}

        def call() -> object:
            j = replace(draw_jacobian(3), **{n: tensors[n] for n in ("gradient", "m0", "v0")})
            return grad_bank_dot_adam(bank, tensors["vector"], j)

        tensors[name] = tensors[name].clone().requires_grad_()
        with pytest.raises(NotImplementedError, match=r"grad_bank_dot_adam has no derivative.*requires grad"):
            call()
        with forward_ad.dual_level():
            tensors[name] = forward_ad.make_dual(tensors[name].detach(), torch.ones(3))
            with pytest.raises(NotImplementedError, match="forward-mode tangent"):
                call()


@pytest.mark.usefixtures("ext")
class TestTheExtension:
    @pytest.mark.parametrize("eps", [1e-15, 1e-8, 1e-2])
    @pytest.mark.parametrize("step", STEPS)
    def test_its_jacobian_is_exact_in_every_column(self, step: int, eps: float):
        j = draw_jacobian(301, step, eps)
        assert ((elementwise(j).double() - double(j).diagonal()).abs() <= 2e-6 * magnitude(j)).all()

    @pytest.mark.parametrize("step", STEPS)
    def test_columns_without_a_second_moment_are_finite_and_exact(self, step: int):
        """v0 = 0 under every gradient down to one whose square is no float: there the update is linear."""
        gradient = torch.tensor([0.0, 1e-30, -1e-22, 1e-18, -1e-12, 1e-8, -1e-3, 1.0])
        j = AdamJacobian(gradient, torch.zeros(8), torch.zeros(8), 1e-3, 0.9, 0.999, 1e-8, step)
        torch.testing.assert_close(elementwise(j).double(), double(j).diagonal(), rtol=1e-5, atol=0)

    @pytest.mark.parametrize("dtype", BANK_DTYPES, ids=str)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_it_is_the_dot_with_the_jacobian(self, shape: tuple[int, int], dtype: torch.dtype):
        check_accuracy(*draw(*shape, dtype), draw_jacobian(shape[1]))

    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(
        K=st.integers(0, 18),
        P=st.integers(0, 9000),
        shift=st.integers(0, 3),
        dtype=st.sampled_from(BANK_DTYPES),
        step=st.sampled_from(STEPS),
    )
    def test_any_shape_at_any_address(self, K: int, P: int, shift: int, dtype: torch.dtype, step: int):
        bank, vector = draw(K, P, dtype)
        shifted = torch.cat([bank.new_zeros(shift), bank.flatten()])[shift:].view(K, P)
        check_accuracy(shifted, vector, draw_jacobian(P, step))

    @pytest.mark.parametrize(("K", "P"), [(0, 5), (3, 0), (0, 0)])
    def test_an_empty_bank_has_the_gradients_sum_alone(self, K: int, P: int):
        j = draw_jacobian(P)
        got = fused(*draw(K, P), j)
        assert got[:K].tolist() == [0.0] * K
        torch.testing.assert_close(got[K], torch.dot(j.gradient, j.diagonal() * draw(K, P)[1]))

    @pytest.mark.parametrize("dtype", BANK_DTYPES, ids=str)
    def test_twenty_runs_on_one_or_two_threads_give_the_same_bits(self, dtype: torch.dtype):
        (bank, vector), j = draw(16, 300_001, dtype), draw_jacobian(300_001)
        first = fused(bank, vector, j)
        try:
            for run in range(20):
                torch.set_num_threads(1 + run % 2)
                assert torch.equal(fused(bank, vector, j), first)
        finally:
            torch.set_num_threads(1)

    @pytest.mark.parametrize("dtype", BANK_DTYPES, ids=str)
    def test_opcheck_and_compile(self, dtype: torch.dtype):
        (bank, vector), j = draw(3, 5, dtype), draw_jacobian(5)
        numbers = (j.lr, j.beta1, j.beta2, j.eps, j.step)
        torch.library.opcheck(
            torch.ops.daj.grad_bank_dot_adam.default, (bank, vector, j.gradient, j.m0, j.v0, *numbers)
        )
        compiled = torch.compile(lambda *inputs: 2 * fused(*inputs, j), fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(bank, vector), 2 * fused(bank, vector, j))

    def test_the_bare_op_refuses_too(self):
        (bank, vector), j = draw(2, 3), draw_jacobian(3)
        with pytest.raises(NotImplementedError, match="requires grad"):
            fused(bank, vector, replace(j, v0=j.v0.clone().requires_grad_()))
        with pytest.raises(RuntimeError, match=r"m0 needs the shape \(3\) for a bank of shape \(2, 3\); got \(4\)"):
            fused(bank, vector, replace(j, m0=torch.zeros(4)))
        with pytest.raises(RuntimeError, match="step counts Adam's steps from 1; got 0"):
            fused(bank, vector, replace(j, step=0))


def window_of(update: AdamUpdate | SgdUpdate, rows: Tensor, max_norm: float | None) -> Window:
    weights = torch.linspace(0.5, 1.5, len(rows))
    gradient = (weights[:, None] * rows.float()).mean(dim=0)
    return Window(make_batch(len(rows)), torch.zeros(len(rows)), rows, gradient, max_norm, update)


def credited(window: Window, q: Tensor) -> Tensor:
    engine = BankEngine()
    engine.observe(window)
    credits: list[Credit] = engine(q)
    return credits[0].derivative


class TestTheEngine:
    """BankEngine under "exact" and one window: the fused path."""

    K, P = 6, 20_001

    def update(self, kind: str) -> AdamUpdate | SgdUpdate:
        if kind == "sgd":
            return SgdUpdate(1e-2, 0.9, 1.0, nesterov=True)
        j = draw_jacobian(self.P)
        return AdamUpdate(j.lr, j.beta1, j.beta2, j.eps, 1.0, j.step, j.m0, j.v0)

    def bank(self, dtype: torch.dtype) -> Tensor:
        """As training fills it: rows of a GradientBank, all of which share a direction."""
        flat = FlatView([torch.nn.Parameter(torch.zeros(self.P))])
        store = GradientBank(flat, self.K, "bfloat16" if dtype is torch.bfloat16 else "float32")
        raw, shared = draw(self.K, self.P)
        sample = make_batch(1)
        for i in range(self.K):
            store.open(i, sample)
            flat.parameters[0].grad.copy_(1e-3 * (raw[i] + shared))
            store.close(i, torch.ones(1))
        assert store.rows.dtype == dtype
        assert store.rows.shape == (self.K, self.P)
        assert store.rows.is_contiguous()
        return store.rows

    @pytest.mark.parametrize("dtype", BANK_DTYPES, ids=str)
    @pytest.mark.parametrize("max_norm", [None, 1e9, 0.01], ids=["no clipping", "inactive", "active"])
    @pytest.mark.parametrize("kind", ["adam", "sgd"])
    def test_it_is_the_dot_with_the_written_out_direction(
        self, monkeypatch: pytest.MonkeyPatch, kind: str, max_norm: float | None, dtype: torch.dtype
    ):
        monkeypatch.setenv("DAJ_KERNELS", "torch")
        window, q = window_of(self.update(kind), self.bank(dtype), max_norm), draw(1, self.P)[1]
        direction = window.direction(-q * window.update.jacobian(window.clipped_gradient, "exact"))
        wanted = window.rows.double() @ direction.double()
        assert _relative_error(credited(window, q), wanted) <= 1e-5
        active = torch.equal(window.clipped_gradient, window.gradient)
        assert active == (max_norm != 0.01)

    @pytest.mark.usefixtures("ext")
    @pytest.mark.parametrize("dtype", BANK_DTYPES, ids=str)
    @pytest.mark.parametrize("max_norm", [None, 0.01], ids=["unclipped", "clipped"])
    @pytest.mark.parametrize("kind", ["adam", "sgd"])
    def test_the_extension_and_plain_torch_agree(
        self, monkeypatch: pytest.MonkeyPatch, kind: str, max_norm: float | None, dtype: torch.dtype
    ):
        window, q = window_of(self.update(kind), self.bank(dtype), max_norm), draw(1, self.P)[1]
        results = {}
        for mode in ("torch", "ext"):
            monkeypatch.setenv("DAJ_KERNELS", mode)
            results[mode] = credited(window, q)
        assert _relative_error(results["ext"], results["torch"].double()) <= 1e-5
        op = "daj::grad_bank_dot_adam" if kind == "adam" else "daj::grad_bank_dot"
        assert op in ops_called(lambda: credited(window, q))


def _relative_error(got: Tensor, wanted: Tensor) -> float:
    return float((got.double() - wanted).norm() / wanted.norm())


@pytest.mark.gpu
@pytest.mark.usefixtures("cuda")
class TestOnAGpu:
    @pytest.mark.parametrize("dtype", BANK_DTYPES, ids=str)
    @pytest.mark.parametrize("shape", [*SHAPES, (16, 4096), (5, 4104), (33, 1_000_008), (0, 5), (3, 0)], ids=str)
    @pytest.mark.parametrize("step", [1, 100])
    def test_it_is_the_dot_with_the_jacobian(self, shape: tuple[int, int], dtype: torch.dtype, step: int):
        check_accuracy(*draw(*shape, dtype, "cuda"), draw_jacobian(shape[1], step, device="cuda"))

    def test_rows_may_start_at_any_address(self):
        bank, vector = draw(5, 1024, torch.bfloat16, "cuda")
        shifted = torch.cat([bank.new_zeros(1), bank.flatten()])[1:].view(5, 1024)
        check_accuracy(shifted, vector, draw_jacobian(1024, device="cuda"))

    @pytest.mark.parametrize("step", STEPS)
    def test_its_jacobian_is_exact_in_every_column(self, step: int):
        j = draw_jacobian(301, step, device="cuda")
        assert ((elementwise(j).double() - double(j).diagonal()).abs() <= 2e-6 * magnitude(j)).all()

    @pytest.mark.parametrize("step", STEPS)
    def test_columns_without_a_second_moment_are_finite_and_exact(self, step: int):
        gradient = torch.tensor([0.0, 1e-30, -1e-22, 1e-18, -1e-12, 1e-8, -1e-3, 1.0], device="cuda")
        j = AdamJacobian(gradient, *torch.zeros(2, 8, device="cuda"), 1e-3, 0.9, 0.999, 1e-8, step)
        torch.testing.assert_close(elementwise(j).double(), double(j).diagonal(), rtol=1e-5, atol=0)

    def test_twenty_runs_give_the_same_bits(self):
        bank, vector = draw(16, 1_000_008, torch.bfloat16, "cuda")
        j = draw_jacobian(1_000_008, device="cuda")
        first = fused(bank, vector, j)
        assert all(torch.equal(fused(bank, vector, j), first) for _ in range(20))

    def test_it_runs_in_a_cuda_graph(self):
        bank, vector = draw(16, 100_000, torch.bfloat16, "cuda")
        j, later = draw_jacobian(100_000, device="cuda"), torch.zeros_like(vector)
        wanted = fused(bank, vector, j)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            got = fused(bank, later, j)
        later.copy_(vector)
        graph.replay()
        assert torch.equal(got, wanted)
