"""fused_linear_logprob: as exact as float64 says, of any shape, in memory that does not grow with the vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdRef

from daj_lightning.kernels import LinearLogprob, Logits, fused_linear_logprob, kernel_report
from daj_lightning.kernels.dispatch import extension as loaded_extension
from daj_lightning.kernels.vocabulary_pass import vocabulary_pass
from linear_logprob_cases import CHANGES, draw, relative, truth

DTYPES = [torch.float32, torch.bfloat16]
GRADIENT = {torch.float32: 1e-5, torch.bfloat16: 4e-3, torch.float64: 1e-12}  # relative L2 error; bf16 rounds u itself
Pass = Callable[..., LinearLogprob]


@pytest.fixture(params=["torch", "ext"])
def run(request: pytest.FixtureRequest) -> Pass:
    """The pass with plain torch between its products, and with the formulas that the GPU runs."""
    if request.param == "ext":
        request.getfixturevalue("ext")

    def run(
        hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None = None, **change: Any
    ) -> LinearLogprob:
        logits = Logits(change.get("logit_scale", 1.0), change.get("softcap"), change.get("temperature", 1.0))
        more = {key: change[key] for key in ("tile", "need_u") if key in change}
        more = {"need_u": True, "need_entropy": True, **more}
        return vocabulary_pass(hidden, weight, targets, bias, logits, extension=request.param == "ext", **more)

    return run


class TestAccuracy:
    @pytest.mark.parametrize("change", CHANGES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_it_is_what_float64_says(self, run: Pass, dtype: torch.dtype, change: str):
        hidden, weight, targets, confident = draw(dtype=dtype)
        assert confident.sum() >= 10
        got = run(hidden, weight, targets, **CHANGES[change], tile=(16, 1000))
        wanted = truth(hidden, weight, targets, **CHANGES[change])
        assert (got.logp - wanted.logp).abs().max() <= 1e-5
        assert got.u.dtype is dtype
        assert relative(got.u, wanted.u) <= GRADIENT[dtype]
        torch.testing.assert_close(got.lse.double(), wanted.lse, rtol=1e-6, atol=1e-5)
        torch.testing.assert_close(got.entropy.double(), wanted.entropy, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_where_the_target_is_near_certain_its_small_rest_is_kept(self, run: Pass, dtype: torch.dtype):
        """p > 0.99: log_softmax in float32 loses 1 - p by cancellation, and with it the gradient."""
        hidden, weight, targets, confident = draw(dtype=dtype)
        got, wanted = run(hidden, weight, targets, tile=(16, 1000)), truth(hidden, weight, targets)
        assert ((got.logp - wanted.logp) / wanted.logp)[confident].abs().max() <= 1e-4
        assert relative(got.u[confident], wanted.u[confident]) <= max(GRADIENT[dtype], 1e-4)
        torch.testing.assert_close(got.entropy[confident].double(), wanted.entropy[confident], rtol=1e-4, atol=0)

    def test_a_larger_vocabulary_in_the_tiles_that_a_cpu_takes(self):
        hidden, weight, targets, _ = draw(N=24, H=256, V=32_003, dtype=torch.bfloat16)
        got, wanted = fused_linear_logprob(hidden, weight, targets, need_u=True), truth(hidden, weight, targets)
        assert (got.logp - wanted.logp).abs().max() <= 1e-5
        assert relative(got.u, wanted.u) <= 4e-3

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_a_bias_shifts_the_logits(self, run: Pass, dtype: torch.dtype):
        hidden, weight, targets, _ = draw(dtype=dtype)
        bias = torch.randn(weight.size(0), generator=torch.Generator().manual_seed(1)).to(dtype)
        got = run(hidden, weight, targets, bias, **CHANGES["all"], tile=(16, 1000))
        wanted = truth(hidden, weight, targets, bias=bias, **CHANGES["all"])
        assert (got.logp - wanted.logp).abs().max() <= 1e-5
        assert relative(got.u, wanted.u) <= GRADIENT[dtype]

    def test_float64_stays_float64(self):
        hidden, weight, targets, _ = draw(dtype=torch.float64)
        got = fused_linear_logprob(hidden, weight, targets, need_u=True, need_entropy=True)
        for result, right in zip(got, truth(hidden, weight, targets), strict=True):
            assert result.dtype is torch.float64
            torch.testing.assert_close(result, right, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize(("hidden_dtype", "weight_dtype"), [DTYPES, DTYPES[::-1]])
    def test_hidden_and_weight_may_differ_in_dtype(
        self, run: Pass, hidden_dtype: torch.dtype, weight_dtype: torch.dtype
    ):
        hidden, weight, targets, _ = draw()
        hidden, weight = hidden.to(hidden_dtype), weight.to(weight_dtype)
        got, wanted = run(hidden, weight, targets), truth(hidden, weight, targets)
        assert (got.logp - wanted.logp).abs().max() <= 1e-5
        assert got.u.dtype is hidden_dtype
        assert relative(got.u, wanted.u) <= GRADIENT[hidden_dtype]

    def test_a_token_that_can_never_come_is_no_not_a_number(self, run: Pass):
        """A bias of -inf masks the padding of a vocabulary."""
        hidden, weight, targets, _ = draw(N=5, V=50)
        weight, targets = torch.cat([weight, weight.new_ones(2, 96)]), targets.clamp(max=49)
        bias = torch.zeros(52)
        bias[50:] = -torch.inf
        got, wanted = run(hidden, weight, targets, bias, tile=(5, 16)), truth(hidden, weight[:50], targets)
        assert (got.logp - wanted.logp).abs().max() <= 1e-5
        torch.testing.assert_close(got.entropy.double(), wanted.entropy, rtol=1e-5, atol=1e-5)
        assert relative(got.u, wanted.u) <= 1e-5


class TestShapes:
    @pytest.mark.parametrize("extension", [False, True], ids=["torch", "ext"])
    @settings(deadline=None, max_examples=30, derandomize=True)
    @given(
        N=st.sampled_from([0, 1, 2, 5, 17]),
        H=st.sampled_from([1, 3, 8, 31]),
        V=st.sampled_from([1, 2, 7, 64, 65, 200]),
        columns=st.sampled_from([1, 3, 64, 300]),
        rows=st.sampled_from([1, 4, 32]),
        size=st.sampled_from([0.0, 1.0, 1e4]),
        softcap=st.sampled_from([None, 3.0]),
        seed=st.integers(0, 99),
    )
    def test_any_shape_in_any_tiles(
        self,
        extension: bool,
        N: int,
        H: int,
        V: int,
        columns: int,
        rows: int,
        size: float,
        softcap: float | None,
        seed: int,
    ):
        """Logits up to 1e4 and beyond, a vocabulary of one, tiles wider than it, no rows at all."""
        generator = torch.Generator().manual_seed(seed)
        hidden = size * torch.randn(N, H, generator=generator)
        weight = torch.randn(V, H, generator=generator)
        targets = torch.randint(0, V, (N,), generator=generator)
        logits = Logits(softcap=softcap)
        if extension and loaded_extension().library is None:
            pytest.skip("no extension")
        options = {"need_u": True, "need_entropy": True, "tile": (rows, columns), "extension": extension}
        got = vocabulary_pass(hidden, weight, targets, None, logits, **options)
        wanted = truth(hidden, weight, targets, softcap=softcap)
        # A logit of 1e4 is itself known to 1e-3 in float32; a probability is then known to one part in a thousand.
        scale = 1 if softcap else max(1.0, float((hidden.double() @ weight.double().T).abs().amax())) if N else 1
        slack = 3e-6 * scale
        assert (got.logp - wanted.logp).abs().max() <= slack if N else got.logp.shape == (0,)
        torch.testing.assert_close(got.lse.double(), wanted.lse, rtol=1e-6, atol=slack)
        torch.testing.assert_close(got.u.double(), wanted.u, rtol=1e-4, atol=1e-4 + 10 * slack)
        torch.testing.assert_close(got.entropy.double(), wanted.entropy, rtol=1e-4, atol=1e-5 + 10 * slack)

    @pytest.mark.parametrize("broken", ["nan", "inf", "target"])
    def test_what_is_no_number_never_becomes_one(self, run: Pass, broken: str):
        """A judge that has diverged must not look like one that says ln 2; the other rows are not touched."""
        hidden, weight, targets, _ = draw(N=5)
        sound = run(hidden, weight, targets)
        if broken == "target":
            targets[2] = weight.size(0)
        else:
            hidden[2, 0] = float(broken)
        got = run(hidden, weight, targets)
        assert got.logp[2].isnan()
        assert got.u[2].isnan().any()
        for field, of_sound in zip(got, sound, strict=True):
            torch.testing.assert_close(field[[0, 1, 3, 4]], of_sound[[0, 1, 3, 4]])

    def test_ignored_rows_cost_no_product_and_yield_zeros(self):
        hidden, weight, targets, _ = draw(N=6)
        targets[[1, 4]] = -100
        kept = targets != -100
        hidden[~kept] = torch.nan  # would spread, were it multiplied
        got = fused_linear_logprob(hidden, weight, targets, ignore_index=-100, need_u=True, need_entropy=True)
        alone = fused_linear_logprob(hidden[kept], weight, targets[kept], need_u=True, need_entropy=True)
        for result, wanted in zip(got, alone, strict=True):
            assert torch.equal(result[kept], wanted)
            assert result[~kept].count_nonzero() == 0

    def test_all_rows_may_be_ignored(self):
        hidden, weight, targets, _ = draw(N=3)
        targets[:] = -100
        with ProductsSeen() as seen:
            got = fused_linear_logprob(hidden, weight, targets, ignore_index=-100, need_u=True)
        assert got.logp.tolist() == [0.0] * 3
        assert got.u.count_nonzero() == 0
        assert seen.flops == 0

    def test_without_u_half_of_the_products_are_made(self):
        hidden, weight, targets, _ = draw()
        N, (V, H) = hidden.size(0), weight.shape
        for need_u, products in ((False, 1), (True, 2)):
            with ProductsSeen() as seen:
                fused_linear_logprob(hidden, weight, targets, need_u=need_u)
            assert seen.flops == products * 2 * N * V * H


class TestInvariance:
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_tiles_change_nothing_but_rounding(self, run: Pass, dtype: torch.dtype):
        """Sums of 4099 positive terms in another order: within 1e-6 of each other, u to its dtype's rounding."""
        hidden, weight, targets, _ = draw(dtype=dtype)
        one = run(hidden, weight, targets, tile=(64, 8192))
        for tile in ((64, 64), (5, 1000), (1, 4099)):
            other = run(hidden, weight, targets, tile=tile)
            torch.testing.assert_close(other.logp, one.logp, rtol=1e-5, atol=2e-6)
            assert relative(other.u, one.u.double()) <= GRADIENT[dtype]

    def test_a_row_does_not_depend_on_its_neighbours(self, run: Pass):
        """Alone or among 36 others: within 2e-6 (a matrix product may take another path for one row)."""
        hidden, weight, targets, _ = draw()
        together = run(hidden, weight, targets)
        for n in (0, 20, 36):
            alone = run(hidden[n : n + 1], weight, targets[n : n + 1])
            torch.testing.assert_close(alone.logp, together.logp[n : n + 1], rtol=1e-5, atol=2e-6)
            torch.testing.assert_close(alone.u, together.u[n : n + 1], rtol=1e-5, atol=2e-5)

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_twenty_runs_give_the_same_bits(self, run: Pass, dtype: torch.dtype):
        hidden, weight, targets, _ = draw(dtype=dtype)
        first = run(hidden, weight, targets)
        for _ in range(19):
            assert all(torch.equal(a, b) for a, b in zip(run(hidden, weight, targets), first, strict=True))

    def test_the_log_probability_is_the_same_bits_with_and_without_u(self, run: Pass):
        """So that a judge equals its reference, which needs no gradient."""
        hidden, weight, targets, _ = draw()
        assert torch.equal(run(hidden, weight, targets).logp, run(hidden, weight, targets, need_u=False).logp)


class ProductsSeen(TorchDispatchMode):
    """Floating-point operations of matrix products."""

    flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "addmm", "addmm_"):
            left, right = args[-2:]
            self.flops += 2 * left.size(0) * left.size(1) * right.size(1)
        return func(*args, **(kwargs or {}))


class Allocations(TorchDispatchMode):
    """Bytes of the tensors that ops return, alive together, and of the largest one."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[WeakIdRef, int] = {}
        self.largest = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if not isinstance(tensor, Tensor) or tensor.untyped_storage().data_ptr() in before:
                continue
            storage = tensor.untyped_storage()
            self.alive[WeakIdRef(storage)] = storage.nbytes()
            self.largest = max(self.largest, storage.nbytes())
        self.peak = max(self.peak, sum(size for ref, size in self.alive.items() if ref() is not None))
        return out


class TestMemory:
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_it_does_not_grow_with_the_vocabulary(self, dtype: torch.dtype):
        """Twice the vocabulary: at most 5 % more, and nothing as large as the logits, or as a copy of the head."""
        N, H, V = 64, 128, 40_000
        seen = []
        for size in (V, 2 * V):
            hidden, weight, targets, _ = draw(N, H, size, dtype)
            hidden.requires_grad_()
            with Allocations() as allocations:
                fused_linear_logprob(hidden, weight, targets).logp.sum().backward()
            assert weight.grad is None
            assert 0 < allocations.largest < min(N, H) * size * 4 / 2
            seen.append(allocations)
        assert seen[1].largest <= 1.05 * seen[0].largest
        assert seen[1].peak <= 1.05 * seen[0].peak

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_it_is_two_percent_of_what_logits_take(self, dtype: torch.dtype):
        """Of autograd's peak over materialised logits: float32 logits, their log_softmax and its gradient."""
        N, H, V = 512, 64, 151_936
        weight = torch.zeros(V, H, dtype=dtype)
        hidden, targets = torch.zeros(N, H, dtype=dtype, requires_grad=True), torch.arange(N)
        with Allocations() as allocations:
            fused_linear_logprob(hidden, weight, targets).logp.sum().backward()
        assert allocations.peak <= 0.02 * (3 * N * V * 4)


class TestDispatch:
    def test_the_report_says_why_a_cpu_runs_plain_torch(self, monkeypatch: pytest.MonkeyPatch):
        for mode in ("auto", "ext"):
            monkeypatch.setenv("DAJ_KERNELS", mode)
            (use,) = [use for use in kernel_report() if use.op == "fused_linear_logprob" and use.device == "cpu"]
            assert use.implementation == "torch"
            assert "95 % of its time" in use.reason

    def test_ext_does_not_refuse_a_cpu(self, monkeypatch: pytest.MonkeyPatch):
        hidden, weight, targets, _ = draw(N=3)
        wanted = fused_linear_logprob(hidden, weight, targets).logp
        monkeypatch.setenv("DAJ_KERNELS", "ext")
        assert torch.equal(fused_linear_logprob(hidden, weight, targets).logp, wanted)


class TestMistakes:
    HIDDEN, WEIGHT, TARGETS = torch.zeros(2, 3), torch.zeros(5, 3), torch.zeros(2, dtype=torch.int64)

    MISTAKES: tuple[tuple[dict[str, Any], str], ...] = (
        ({"hidden": torch.zeros(2, 4)}, r"hidden needs the shape \(N, 3\).*got \(2, 4\)"),
        ({"weight": torch.zeros(3)}, r"weight needs the shape \(V, H\).*got \(3,\)"),
        ({"weight": torch.zeros(0, 3)}, r"with a token or more; got \(0, 3\)"),
        ({"weight": torch.zeros(3, 5).T}, r"weight \(5, 3\) needs contiguous memory; got strides \(1, 5\)"),
        ({"targets": torch.zeros(3, dtype=torch.int64)}, r"targets needs the shape \(2,\).*got \(3,\)"),
        ({"targets": torch.zeros(2)}, r"int64; got \(2,\), torch.float32"),
        ({"targets": torch.tensor([0, 5])}, r"targets\[1\] is 5; it needs to lie in \[0, 5\)"),
        ({"targets": torch.tensor([-1, 0]), "ignore_index": -100}, r"targets\[0\] is -1.*or be ignore_index = -100"),
        ({"bias": torch.zeros(3)}, r"bias needs the shape \(5,\).*got \(3,\)"),
        ({"hidden": torch.zeros(2, 3, dtype=torch.float16)}, r"hidden needs bfloat16, float32 or float64; got .*16"),
        ({"weight": torch.zeros(5, 3, device="meta")}, r"weight needs to lie beside hidden, on cpu; got meta"),
        ({"softcap": 0.0}, r"softcap needs to be > 0"),
        ({"temperature": 0.0}, r"temperature needs to be > 0; got 0.0"),
    )

    @pytest.mark.parametrize(("wrong", "message"), MISTAKES, ids=[message[:30] for _, message in MISTAKES])
    def test_it_says_what_came_and_what_was_wanted(self, wrong: dict[str, Any], message: str):
        inputs = {"hidden": self.HIDDEN, "weight": self.WEIGHT, "targets": self.TARGETS, **wrong}
        positional = [inputs.pop(name) for name in ("hidden", "weight", "targets")]
        with pytest.raises(ValueError, match=message):
            fused_linear_logprob(*positional, **inputs)

    @pytest.mark.usefixtures("ext")
    def test_the_bare_ops_check_too(self):
        state, products = torch.zeros(4, 2), torch.zeros(2, 5)
        with pytest.raises(RuntimeError, match="state needs 4 rows of 2; got the shape \\(3, 2\\)"):
            torch.ops.daj.logprob_tile(products, None, state[:3], None, self.TARGETS, None, 0, 1.0, 0.0, 1.0)
        with pytest.raises(RuntimeError, match="at most 8192 columns; got 8193"):
            torch.ops.daj.logprob_tile(torch.zeros(2, 8193), None, state, None, self.TARGETS, None, 0, 1.0, 0.0, 1.0)
        with pytest.raises(NotImplementedError, match="logprob_tile has no derivative"):
            torch.ops.daj.logprob_tile(
                products.requires_grad_(), None, state, None, self.TARGETS, None, 0, 1.0, 0.0, 1.0
            )


@pytest.mark.gpu
@pytest.mark.usefixtures("cuda")
class TestOnAGpu:
    @pytest.mark.parametrize("mode", ["ext", "torch"])
    @pytest.mark.parametrize("change", CHANGES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("V", [4099, 20_000], ids=["scalar loads", "wide loads"])
    def test_it_is_what_float64_says(
        self, monkeypatch: pytest.MonkeyPatch, V: int, dtype: torch.dtype, change: str, mode: str
    ):
        monkeypatch.setenv("DAJ_KERNELS", mode)
        hidden, weight, targets, confident = draw(V=V, dtype=dtype, device="cuda")
        bias = torch.randn(V, device="cuda")
        options = {**CHANGES[change], "bias": bias}
        got = fused_linear_logprob(hidden, weight, targets, **options, need_u=True, need_entropy=True)
        wanted = truth(hidden, weight, targets, **options)
        assert (got.logp - wanted.logp).abs().max() <= 1e-5
        assert relative(got.u, wanted.u) <= GRADIENT[dtype]
        torch.testing.assert_close(got.entropy.double(), wanted.entropy, rtol=1e-5, atol=1e-5)
        got, wanted = fused_linear_logprob(hidden, weight, targets, need_u=True), truth(hidden, weight, targets)
        assert ((got.logp - wanted.logp) / wanted.logp)[confident].abs().max() <= 1e-4
        assert relative(got.u[confident], wanted.u[confident]) <= max(GRADIENT[dtype], 1e-4)

    def test_twenty_runs_give_the_same_bits(self):
        hidden, weight, targets, _ = draw(N=300, V=20_000, dtype=torch.bfloat16, device="cuda")
        first = fused_linear_logprob(hidden, weight, targets, need_u=True, need_entropy=True)
        for _ in range(19):
            again = fused_linear_logprob(hidden, weight, targets, need_u=True, need_entropy=True)
            assert all(torch.equal(a, b) for a, b in zip(again, first, strict=True))

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_it_runs_in_the_current_stream_and_in_a_cuda_graph(self, dtype: torch.dtype):
        hidden, weight, targets, _ = draw(V=20_000, dtype=dtype, device="cuda")
        wanted = fused_linear_logprob(hidden, weight, targets, need_u=True)
        later = torch.zeros_like(hidden)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            got = fused_linear_logprob(later, weight, targets, need_u=True)
        later.copy_(hidden)
        graph.replay()
        assert torch.equal(got.logp, wanted.logp)
        assert torch.equal(got.u, wanted.u)

    def test_a_target_outside_the_vocabulary_is_not_a_number(self):
        hidden, weight, targets, _ = draw(N=3, device="cuda")
        targets[1] = 4099
        logp = fused_linear_logprob(hidden, weight, targets, need_u=True).logp
        assert logp.isnan().tolist() == [False, True, False]

    def test_memory_at_the_size_of_a_real_judge(self):
        """N 8192, H 2048, V 151,936, bfloat16: at most 0.6 GiB over the inputs, where logits alone take 4.6."""
        N, H, V = 8192, 2048, 151_936
        hidden = torch.randn(N, H, dtype=torch.bfloat16, device="cuda", requires_grad=True)
        weight = torch.randn(V, H, dtype=torch.bfloat16, device="cuda")
        targets = torch.randint(0, V, (N,), device="cuda")
        fused_linear_logprob(hidden[:1], weight, targets[:1])  # cuBLAS's own workspace is made here
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        fused_linear_logprob(hidden, weight, targets).logp.sum().backward()
        assert torch.cuda.max_memory_allocated() - before <= 0.6 * 2**30
