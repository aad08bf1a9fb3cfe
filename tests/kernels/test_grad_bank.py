"""Bank ops: the extension computes what plain torch does, as exactly, the same bits every time."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from daj_lightning.kernels import grad_bank_combine, grad_bank_dot, reference

SHAPES = [
    (1, 1),  # one sample, one parameter
    (1, 4096),  # one row of exactly one block
    (3, 15),  # less than the dot takes at once
    (4, 64),  # one group of rows
    (5, 4097),  # a row beyond the group, a column beyond the block
    (16, 100_003),  # the paper's window; P is prime
]
BANK_DTYPES = [torch.float32, torch.bfloat16]


def draw(K: int, P: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Bank (K, P), vector (P,), weights (K,), from N(0, 1)."""
    generator = torch.Generator().manual_seed(K * 1_000_003 + P)
    bank, vector, weights = (torch.randn(shape, generator=generator) for shape in ((K, P), (P,), (K,)))
    return bank.to(device, dtype), vector.to(device), weights.to(device)


class TestTheReference:
    def test_sums_rows_by_hand(self):
        bank = torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
        # <row, vector>: 1 - 3 and 10 - 30
        assert reference.grad_bank_dot(bank, torch.tensor([1.0, 0.0, -1.0])).tolist() == [-2.0, -20.0]
        # 2 * row 0 + 0.5 * row 1
        assert reference.grad_bank_combine(bank, torch.tensor([2.0, 0.5])).tolist() == [7.0, 14.0, 21.0]

    def test_float64_stays_float64(self):
        """One part in 2**40 beside 1 is lost in float32, and kept here."""
        tiny = 2.0**-40
        bank = torch.tensor([[1.0, tiny]], dtype=torch.float64)
        assert grad_bank_dot(bank, torch.ones(2)).item() == 1 + tiny
        assert grad_bank_combine(bank.view(2, 1), torch.ones(2)).item() == 1 + tiny

    def test_slices_of_columns_join_seamlessly(self):
        bank, vector, weights = draw(2, 2 * reference.COLUMNS + 3, torch.float64)
        vector, weights = vector.double(), weights.double()
        torch.testing.assert_close(reference.grad_bank_dot(bank, vector), bank @ vector)
        torch.testing.assert_close(reference.grad_bank_combine(bank, weights), bank.T @ weights)


@pytest.mark.usefixtures("ext")
class TestTheExtension:
    @pytest.mark.parametrize("dtype", BANK_DTYPES, ids=str)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_it_is_as_accurate_as_plain_torch(self, shape: tuple[int, int], dtype: torch.dtype):
        check_accuracy(*draw(*shape, dtype))

    @pytest.mark.parametrize("dtype", BANK_DTYPES, ids=str)
    def test_rows_may_start_at_any_address(self, dtype: torch.dtype):
        K, P = 5, 1001
        bank, vector, weights = draw(K, P, dtype)
        shifted = torch.cat([bank.new_zeros(1), bank.flatten()])[1:].view(K, P)
        assert shifted.data_ptr() % 16 != 0
        check_accuracy(shifted, vector, weights)

    @pytest.mark.parametrize("dtype", BANK_DTYPES, ids=str)
    def test_a_long_row_of_equal_terms_does_not_drift(self, dtype: torch.dtype):
        """A single float32 sum of 2**24 ones and more would stand still at 2**24."""
        P = 2**24 + 2**20
        total = torch.ops.daj.grad_bank_dot(torch.ones(1, P, dtype=dtype), torch.ones(P))
        assert total.item() == P

    @pytest.mark.parametrize(("K", "P"), [(0, 5), (3, 0), (0, 0)])
    def test_an_empty_bank_sums_to_zero(self, K: int, P: int):
        bank, vector, weights = draw(K, P)
        assert torch.ops.daj.grad_bank_dot(bank, vector).tolist() == [0.0] * K
        assert torch.ops.daj.grad_bank_combine(bank, weights).tolist() == [0.0] * P

    @pytest.mark.parametrize("dtype", BANK_DTYPES, ids=str)
    def test_twenty_runs_on_one_or_two_threads_give_the_same_bits(self, dtype: torch.dtype):
        bank, vector, weights = draw(16, 300_001, dtype)  # 74 blocks: more than one thread takes
        dot, combined = (
            torch.ops.daj.grad_bank_dot(bank, vector),
            torch.ops.daj.grad_bank_combine(bank, weights),
        )
        try:
            for run in range(20):
                torch.set_num_threads(1 + run % 2)
                assert torch.equal(torch.ops.daj.grad_bank_dot(bank, vector), dot)
                assert torch.equal(torch.ops.daj.grad_bank_combine(bank, weights), combined)
        finally:
            torch.set_num_threads(1)

    @pytest.mark.parametrize("dtype", BANK_DTYPES, ids=str)
    @pytest.mark.parametrize("op", ["grad_bank_dot", "grad_bank_combine"])
    def test_opcheck(self, op: str, dtype: torch.dtype):
        bank, vector, weights = draw(3, 5, dtype)
        operand = vector if op == "grad_bank_dot" else weights
        torch.library.opcheck(getattr(torch.ops.daj, op).default, (bank, operand))


class TestMistakes:
    """The public function and the bare op name the shapes that came and those that were wanted."""

    MISTAKES = (
        ((2, 3), torch.zeros(4), r"\(3,?\) for a bank of shape \(2, 3\); got \(4,?\)"),
        ((2, 3), torch.zeros(3, 1), r"\(3,?\) for a bank of shape \(2, 3\); got \(3, 1\)"),
        ((3,), torch.zeros(3), r"\(K, P\).* got \(3,?\)"),
        ((2, 3), torch.zeros(6)[::2], r"contiguous"),
        ((2, 3), torch.zeros(3, dtype=torch.float16), r"float32.*got (torch.float16|Half)"),
    )

    @pytest.mark.parametrize(("shape", "vector", "message"), MISTAKES)
    def test_the_public_function(self, shape: tuple[int, ...], vector: Tensor, message: str):
        with pytest.raises(ValueError, match=message):
            grad_bank_dot(torch.zeros(shape), vector)

    @pytest.mark.usefixtures("ext")
    @pytest.mark.parametrize(("shape", "vector", "message"), MISTAKES)
    def test_the_bare_op(self, shape: tuple[int, ...], vector: Tensor, message: str):
        with pytest.raises(RuntimeError, match=message):
            torch.ops.daj.grad_bank_dot(torch.zeros(shape), vector)

    def test_columns_of_a_larger_bank_are_refused(self):
        with pytest.raises(ValueError, match=r"bank \(2, 3\) needs contiguous memory; got strides \(8, 1\)"):
            grad_bank_dot(torch.zeros(2, 8)[:, :3], torch.zeros(3))

    def test_one_weight_per_row(self):
        with pytest.raises(ValueError, match=r"weights needs the shape \(2,\) for a bank of shape \(2, 3\)"):
            grad_bank_combine(torch.zeros(2, 3), torch.zeros(3))


class TestDerivatives:
    """An op without a formula must refuse: torch would return silent zeros for a tangent."""

    BANK, VECTOR, TANGENT = torch.ones(2, 3), torch.ones(3), torch.ones(3)

    @pytest.fixture(params=["public, torch", "public, ext", "bare op"])
    def dot(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Tensor], Tensor]:
        if request.param == "public, torch":
            monkeypatch.setenv("DAJ_KERNELS", "torch")
            return functools.partial(grad_bank_dot, self.BANK)
        request.getfixturevalue("ext")
        monkeypatch.setenv("DAJ_KERNELS", "ext")
        return functools.partial(grad_bank_dot if "public" in request.param else torch.ops.daj.grad_bank_dot, self.BANK)

    def test_a_gradient_is_refused(self, dot):
        with pytest.raises(NotImplementedError, match=r"grad_bank_dot has no derivative.*\(3,\) requires grad"):
            dot(self.VECTOR.clone().requires_grad_())

    def test_without_grad_mode_the_same_input_is_fine(self, dot):
        with torch.no_grad():
            assert dot(self.VECTOR.clone().requires_grad_()).tolist() == [3.0, 3.0]

    def test_a_tangent_is_refused(self, dot):
        with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward-mode tangent"):
            dot(forward_ad.make_dual(self.VECTOR, self.TANGENT))

    def test_functorch_is_refused(self, dot):
        with pytest.raises(NotImplementedError, match="forward-mode tangent"):
            torch.func.jvp(dot, (self.VECTOR,), (self.TANGENT,))
        with pytest.raises(NotImplementedError, match="requires grad"):
            torch.func.grad(lambda vector: dot(vector).sum())(self.VECTOR)

    @pytest.mark.usefixtures("ext")
    def test_a_tangent_under_an_unrelated_gradient_is_refused(self):
        """jvp of grad: the op meets the tangent wrapped in a level that does not differentiate it."""

        def inner(vector: Tensor) -> Tensor:
            def loss(scale: Tensor) -> Tensor:
                return (torch.ops.daj.grad_bank_dot(self.BANK, vector) * scale).sum()

            return torch.func.grad(loss)(torch.ones(2))

        with pytest.raises(NotImplementedError, match="forward-mode tangent"):
            torch.func.jvp(inner, (self.VECTOR,), (self.TANGENT,))


@pytest.mark.gpu
@pytest.mark.usefixtures("cuda")
class TestOnAGpu:
    SHAPES = (*SHAPES, (16, 4096), (5, 4104), (17, 1_000_008))  # a tile, a tile and a vector, many tiles

    @pytest.mark.parametrize("dtype", BANK_DTYPES, ids=str)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_it_is_as_accurate_as_plain_torch(self, shape: tuple[int, int], dtype: torch.dtype):
        check_accuracy(*draw(*shape, dtype, "cuda"))

    @pytest.mark.parametrize("dtype", BANK_DTYPES, ids=str)
    def test_rows_may_start_at_any_address(self, dtype: torch.dtype):
        bank, vector, weights = draw(5, 1024, dtype, "cuda")
        check_accuracy(torch.cat([bank.new_zeros(1), bank.flatten()])[1:].view(5, 1024), vector, weights)

    @pytest.mark.parametrize("dtype", BANK_DTYPES, ids=str)
    def test_a_long_row_of_equal_terms_does_not_drift(self, dtype: torch.dtype):
        P = 2**24 + 2**20
        bank, vector = torch.ones(1, P, dtype=dtype, device="cuda"), torch.ones(P, device="cuda")
        assert torch.ops.daj.grad_bank_dot(bank, vector).item() == P

    @pytest.mark.parametrize(("K", "P"), [(0, 5), (3, 0), (0, 0)])
    def test_an_empty_bank_sums_to_zero(self, K: int, P: int):
        bank, vector, weights = draw(K, P, device="cuda")
        assert torch.ops.daj.grad_bank_dot(bank, vector).tolist() == [0.0] * K
        assert torch.ops.daj.grad_bank_combine(bank, weights).tolist() == [0.0] * P

    def test_twenty_runs_give_the_same_bits(self):
        bank, vector, weights = draw(16, 1_000_008, torch.bfloat16, "cuda")
        dots = {tuple(torch.ops.daj.grad_bank_dot(bank, vector).tolist()) for _ in range(20)}
        assert len(dots) == 1
        combined = torch.ops.daj.grad_bank_combine(bank, weights)
        assert all(torch.equal(torch.ops.daj.grad_bank_combine(bank, weights), combined) for _ in range(20))

    def test_it_runs_in_the_current_stream_and_in_a_cuda_graph(self):
        bank, vector, weights = draw(16, 100_000, torch.bfloat16, "cuda")
        dot, combined = (
            torch.ops.daj.grad_bank_dot(bank, vector),
            torch.ops.daj.grad_bank_combine(bank, weights),
        )
        vector_later, weights_later = torch.zeros_like(vector), torch.zeros_like(weights)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):  # on a stream of its own; a launch on another one would end the capture
            dot_later = torch.ops.daj.grad_bank_dot(bank, vector_later)
            combined_later = torch.ops.daj.grad_bank_combine(bank, weights_later)
        vector_later.copy_(vector)
        weights_later.copy_(weights)
        graph.replay()
        assert torch.equal(dot_later, dot)
        assert torch.equal(combined_later, combined)

    def test_a_vector_on_the_cpu_is_refused(self):
        bank, vector, _ = draw(2, 3)
        with pytest.raises(ValueError, match="bank's device, cuda:0; got cpu"):
            grad_bank_dot(bank.cuda(), vector)


def check_accuracy(bank: Tensor, vector: Tensor, weights: Tensor) -> None:
    """Both ops of the extension against float64, beside plain torch in float32."""
    K, P = bank.shape
    assert_as_accurate_as_plain_torch(
        torch.ops.daj.grad_bank_dot(bank, vector),
        plain=torch.mv(bank.float(), vector),
        truth=torch.mv(bank.double(), vector.double()),
        terms=P,
    )
    assert_as_accurate_as_plain_torch(
        torch.ops.daj.grad_bank_combine(bank, weights),
        plain=torch.mv(bank.float().T, weights),
        truth=torch.mv(bank.double().T, weights.double()),
        terms=K,
    )


def assert_as_accurate_as_plain_torch(result: Tensor, plain: Tensor, truth: Tensor, terms: int) -> None:
    """`truth` is float64; inputs are drawn from N(0, 1), so that a sum of n terms is about sqrt(n) large."""
    a_little = 8 * torch.finfo(torch.float32).eps * max(terms, 1) ** 0.5
    assert result.dtype == torch.float32
    assert result.shape == truth.shape
    assert _worst(result, truth) <= _worst(plain, truth) + a_little


def _worst(result: Tensor, truth: Tensor) -> float:
    return float((result.double() - truth).abs().max()) if truth.numel() else 0.0
