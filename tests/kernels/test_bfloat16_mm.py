"""bfloat16 products with float32 results on a CPU: exact but for the order of sums, whatever the shape."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings, strategies as st

import called
from daj_lightning.kernels import fused_linear_logprob
from daj_lightning.kernels.dispatch import extension, multiplies_bfloat16
from linear_logprob_cases import draw, truth

needs_instruction = pytest.mark.skipif(
    not extension().has_bfloat16_mm, reason="no extension here, or a CPU without AVX512-BF16"
)


def product(left: torch.Tensor, right: torch.Tensor, *, transposed: bool = True) -> torch.Tensor:
    out = torch.full((left.size(0), right.size(0 if transposed else 1)), torch.nan)
    torch.ops.daj.bfloat16_mm(left, right, transposed, False, out)
    return out


def matrix(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).bfloat16()


@needs_instruction
class TestTheProduct:
    @given(
        R=st.integers(0, 40), C=st.integers(0, 70), K=st.integers(0, 90), transposed=st.booleans(), add=st.booleans()
    )
    @settings(max_examples=80, deadline=None)
    def test_it_is_float64s_up_to_float32_sums(self, R: int, C: int, K: int, transposed: bool, add: bool):
        left, right = matrix(R, K), matrix(*((C, K) if transposed else (K, C)), seed=1)
        out = torch.randn(R, C)
        wanted = left.double() @ (right.T if transposed else right).double() + (out.double() if add else 0)
        torch.ops.daj.bfloat16_mm(left, right, transposed, add, out)
        torch.testing.assert_close(out.double(), wanted, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("transposed", [True, False])
    def test_long_sums_are_cut_into_panels(self, transposed: bool):
        K = 5001  # three panels of 2048, and an odd number at the end
        left, right = matrix(13, K), matrix(*((35, K) if transposed else (K, 35)), seed=1)
        columns = (right.T if transposed else right).double()
        error = (product(left, right, transposed=transposed) - left.double() @ columns).abs()
        assert (error / (left.double().abs() @ columns.abs())).max() < 1e-6

    def test_no_bit_depends_on_the_neighbours(self):
        left, right = matrix(29, 130), matrix(77, 130, seed=1)
        whole = product(left, right)
        assert torch.equal(product(left[5:7], right), whole[5:7])
        assert torch.equal(product(left, right[40:47]), whole[:, 40:47])

    def test_what_is_not_finite_stays_where_it_is(self):
        left, right = matrix(14, 8), matrix(33, 8, seed=1)
        left[3, 2], right[32, 5] = torch.nan, torch.inf
        out = product(left, right)
        assert out[3].isnan().all()
        assert not out[torch.arange(14) != 3, 32].isfinite().any()
        assert out[torch.arange(14) != 3, :32].isfinite().all()

    def test_opcheck(self):
        inputs = matrix(3, 8), matrix(5, 8), True, False, torch.zeros(3, 5)
        torch.library.opcheck(torch.ops.daj.bfloat16_mm.default, inputs)

    def test_it_says_what_came_and_what_was_wanted(self):
        left, right, out = matrix(3, 8), matrix(5, 8), torch.zeros(3, 5)
        op = torch.ops.daj.bfloat16_mm
        for inputs, message in (
            (
                (left, right, False, False, out),
                r"right needs 8 rows for left of shape \(3, 8\); got the shape \(5, 8\)",
            ),
            ((left, right, True, False, out.T), r"out \(5, 3\) needs contiguous memory"),
            ((left, right, True, False, out[:2]), r"out needs the shape \(3, 5\); got \(2, 5\)"),
            ((left.float(), right, True, False, out), r"left needs bfloat16"),
            ((left, right[0], True, False, out), r"right needs two dimensions; got the shape \(8\)"),
        ):
            with pytest.raises(RuntimeError, match=message):
                op(*inputs)
        with pytest.raises(NotImplementedError, match="bfloat16_mm has no derivative"):
            op(left.requires_grad_(), right, True, False, out)


@needs_instruction
class TestInThePass:
    def test_bfloat16_rows_go_through_it_and_others_do_not(self, monkeypatch: pytest.MonkeyPatch):
        half, full = draw(dtype=torch.bfloat16), draw()
        for case, mode, uses in ((half, "auto", True), (half, "torch", False), (full, "auto", False)):
            monkeypatch.setenv("DAJ_KERNELS", mode)
            ops = called.ops_called(lambda case=case: fused_linear_logprob(case.hidden, case.weight, case.targets))
            assert ("daj::bfloat16_mm" in ops) == uses

    def test_it_is_as_exact_as_products_of_widened_weights(self, monkeypatch: pytest.MonkeyPatch):
        case = draw(N=300, H=257, V=4099, dtype=torch.bfloat16)  # odd sizes: half a pair at every end
        hidden = case.hidden.requires_grad_()
        exact = truth(case.hidden, case.weight, case.targets)
        for mode in ("auto", "torch"):
            monkeypatch.setenv("DAJ_KERNELS", mode)
            logp = fused_linear_logprob(hidden, case.weight, case.targets).logp
            (gradient,) = torch.autograd.grad(logp.sum(), hidden)
            assert (logp - exact.logp).abs().max() < 1e-5
            assert ((logp - exact.logp) / exact.logp)[case.confident].abs().max() < 1e-4
            assert (gradient - exact.u).norm() / exact.u.norm() < 4e-3, "of a gradient in bfloat16"


@needs_instruction
@pytest.mark.parametrize(("capability", "uses"), [("avx2", False), ("avx512", True)])
def test_a_torch_that_is_kept_from_avx512_keeps_the_extension_from_it(capability: str, uses: bool):
    """torch reads the variable when it is loaded."""
    asks = "from daj_lightning.kernels.dispatch import multiplies_bfloat16; print(multiplies_bfloat16())"
    environment = os.environ | {"ATEN_CPU_CAPABILITY": capability, "DAJ_KERNELS": "auto"}
    told = subprocess.run([sys.executable, "-c", asks], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.split() == [str(uses)]


@pytest.mark.usefixtures("ext")
def test_elsewhere_it_says_so_and_the_pass_widens(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DAJ_KERNELS", "auto")
    if extension().has_bfloat16_mm:
        pytest.skip("this CPU has AVX512-BF16")
    assert not multiplies_bfloat16()
    with pytest.raises(RuntimeError, match="this CPU has no AVX512-BF16"):
        product(matrix(3, 8), matrix(5, 8))
