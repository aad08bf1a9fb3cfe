"""Segment losses: the extension computes what plain torch does, and its derivative is that of the float64 formula."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor
from torch.autograd import forward_ad
from transformers import Qwen3Config

from daj_lightning.kernels import (
    DPOTerms,
    KTOTerms,
    ORPOTerms,
    PolicyTerms,
    SFTTerms,
    segment_offsets,
    segment_policy_loss,
    segment_preference_loss,
)
from daj_lightning.kernels.segments import Segments
from daj_lightning.objectives import DPO, GRPO, KTO, ORPO, SFT, Objective
from daj_lightning.records import JudgeBatch
from tiny import make_batch, make_judge, randomize_adapters

Terms = Any
"""Of a preference loss or of the policy loss."""

LENGTHS = [
    (1, 1, 1, 1),  # one token a row
    (3, 7, 2, 5, 4, 1, 9, 6),
    (0, 4, 5, 0, 0, 0, 6, 2),  # empty rows, and a pair or group of them
    (0, 0, 0, 0),  # no token at all
    (700, 1, 513, 1024),  # a block of the GPU's threads, less, more
]


def draw(lengths: Sequence[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Log-probabilities (N,) below 0, from almost certain to unlikely, and offsets (R + 1,)."""
    generator = torch.Generator().manual_seed(seed + sum(lengths))
    logp = -torch.nn.functional.softplus(3 * torch.randn(sum(lengths), generator=generator) - 1)
    return logp, torch.tensor([0, *lengths]).cumsum(dim=0)


def policy(logp: Tensor, offsets: Tensor, g: torch.Generator, rows_per_sample: int = 4, **options: Any) -> PolicyTerms:
    """Old policy, engine and reference near the judge; advantages of both signs and one of 0."""
    num_rows = len(offsets) - 1
    near = {name: logp + 0.4 * torch.randn(len(logp), generator=g) for name in ("old", "sampled", "reference")}
    advantages = torch.randn(num_rows, generator=g)
    advantages[1:2] = 0
    divisors = torch.randint(1, 50, (num_rows,), generator=g)
    return PolicyTerms(rows_per_sample, advantages, divisors, **{**near, **options})


CASES: dict[str, Callable[[Tensor, Tensor, torch.Generator], Terms]] = {
    "dpo": lambda logp, offsets, g: DPOTerms(reference_of(logp, offsets, g), beta=0.3),
    "dpo with likelihood": lambda logp, offsets, g: DPOTerms(reference_of(logp, offsets, g), beta=0.3, nll_weight=0.2),
    "kto": lambda logp, offsets, g: KTOTerms(
        reference_of(logp, offsets, g),
        torch.rand(len(offsets) - 1, generator=g),
        torch.arange(len(offsets) - 1) % 3 != 1,
        beta=0.3,
        desirable_weight=1.3,
        undesirable_weight=0.7,
    ),
    "orpo": lambda logp, offsets, g: ORPOTerms(0.3),
    "orpo on the prompt": lambda logp, offsets, g: ORPOTerms(0.3, torch.rand(len(logp), generator=g) < 0.6),
    "sft": lambda logp, offsets, g: SFTTerms(),
    "grpo": policy,
    "grpo with kl": lambda *drawn: policy(*drawn, beta=0.2),
    "grpo with unbiased kl": lambda *drawn: policy(*drawn, beta=0.2, unbiased_kl=True, epsilon_high=0.4),
    "grpo with a low cap": lambda *drawn: policy(*drawn, importance_cap=1.1, epsilon=0.1),
    "grpo without a cap": lambda *drawn: policy(*drawn, importance_cap=None),
    "grpo of what the engine drew": lambda *drawn: policy(*drawn, sampled=None),
    "grpo on policy": lambda *drawn: policy(*drawn, old=None, beta=0.1, unbiased_kl=True),
    "grpo of rows": lambda *drawn: policy(*drawn, rows_per_sample=1),
}


def reference_of(logp: Tensor, offsets: Tensor, generator: torch.Generator) -> Tensor:
    """(R,) summed log-probabilities near the judge's own."""
    return Segments(logp, offsets).sums(logp) + 3 * torch.randn(len(offsets) - 1, generator=generator)


def terms_of(name: str, logp: Tensor, offsets: Tensor) -> tuple[Terms, Tensor]:
    """And weights (B,), the first of them 0."""
    generator = torch.Generator().manual_seed(len(logp))
    terms = CASES[name](logp, offsets, generator)
    weights = 2 * torch.rand((len(offsets) - 1) // terms.rows_per_sample, generator=generator)
    weights[:1] = 0
    return terms, weights


def map_tensors(terms: Terms, change: Callable[[Tensor], Tensor]) -> Terms:
    values = {f.name: getattr(terms, f.name) for f in fields(terms)}
    return replace(terms, **{name: change(value) for name, value in values.items() if isinstance(value, Tensor)})


def in_float64(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def losses_of(logp: Tensor, offsets: Tensor, terms: Terms, weights: Tensor | None = None) -> Tensor:
    public: Any = segment_policy_loss if isinstance(terms, PolicyTerms) else segment_preference_loss
    return public(logp, offsets, terms, weights)


def loss_and_coefficient(*arguments: Any) -> tuple[Tensor, Tensor]:
    """The public function's losses, and the gradient of their sum."""
    logp, *others = arguments
    logp = logp.detach().requires_grad_()
    losses = losses_of(logp, *others)
    return losses.detach(), torch.autograd.grad(losses.sum(), logp)[0]


def bare(logp: Tensor, offsets: Tensor, terms: Terms, weights: Tensor | None) -> tuple[Any, tuple[Any, ...]]:
    """The operator of torch.ops.daj and its arguments."""
    operands = tuple(terms.operands())
    if isinstance(terms, PolicyTerms):
        return torch.ops.daj.segment_policy_loss, (logp, offsets, *operands[:6], weights, *operands[6:])
    return torch.ops.daj.segment_preference_loss, (logp, offsets, *operands[:5], weights, *operands[5:])


def check_accuracy(monkeypatch: pytest.MonkeyPatch, name: str, lengths: Sequence[int], device: str = "cpu") -> None:
    """The extension against float64 autograd, beside plain torch in float32; errors in units of the largest entry."""
    logp, offsets = draw(lengths)
    terms, weights = terms_of(name, logp, offsets)
    monkeypatch.setenv("DAJ_KERNELS", "torch")
    truth = loss_and_coefficient(logp.double(), offsets, map_tensors(terms, in_float64), weights.double())
    given = [logp.to(device), offsets.to(device), map_tensors(terms, lambda t: t.to(device)), weights.to(device)]
    plain = loss_and_coefficient(*given)
    monkeypatch.setenv("DAJ_KERNELS", "ext")
    op, arguments = bare(*given)
    for result in (loss_and_coefficient(*given), op(*arguments)):
        for got, torchs, wanted in zip(result, plain, truth, strict=True):
            assert got.dtype == torch.float32
            a_little = 4 * torch.finfo(torch.float32).eps * float(wanted.abs().max()) if wanted.numel() else 0
            assert _worst(got, wanted) <= _worst(torchs, wanted) + a_little


def _worst(result: Tensor, truth: Tensor) -> float:
    assert result.shape == truth.shape
    return float((result.cpu().double() - truth).abs().max()) if truth.numel() else 0.0


@pytest.fixture
def kernels(ext: None, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The extension computes whatever it can."""
    monkeypatch.setenv("DAJ_KERNELS", "ext")
    return monkeypatch


class TestTheReference:
    LOGP = torch.tensor([-1.0, -2.0, -3.0, -4.0, -6.0])
    OFFSETS = torch.tensor([0, 2, 2, 3, 5])  # rows of 2, 0, 1 and 2 tokens

    def test_offsets_are_where_rows_start(self):
        scored = torch.tensor([[False, True, True], [False, False, False], [True, False, True]])
        assert segment_offsets(scored).tolist() == [0, 2, 2, 4]

    @pytest.mark.parametrize("mode", ["torch", "auto"])
    def test_sft_is_a_mean_over_tokens_by_hand(self, mode: str, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("DAJ_KERNELS", mode)
        weights = torch.tensor([1.0, 1.0, 2.0, 10.0])
        loss, coefficient = loss_and_coefficient(self.LOGP, self.OFFSETS, SFTTerms(), weights)
        # (1 + 2) / 2; no token; 2 * 3; 10 * (4 + 6) / 2
        assert loss.tolist() == [1.5, 0.0, 6.0, 50.0]
        # -1 / 2 twice; -2; -10 / 2 twice
        assert coefficient.tolist() == [-0.5, -0.5, -2.0, -5.0, -5.0]

    @pytest.mark.parametrize("mode", ["torch", "auto"])
    def test_a_group_sums_its_rows_over_their_divisors_by_hand(self, mode: str, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("DAJ_KERNELS", mode)
        terms = PolicyTerms(2, torch.tensor([1.0, 5.0, -2.0, 3.0]), torch.tensor([4, 4, 2, 8]))
        loss, coefficient = loss_and_coefficient(self.LOGP, self.OFFSETS, terms)
        # On policy every token costs minus its row's advantage: 2 (-1) / 4 + 0; 2 / 2 + 2 (-3) / 8
        assert loss.tolist() == [-0.5, 0.25]
        assert coefficient.tolist() == [-0.25, -0.25, 1.0, -0.375, -0.375]


class TestTheExtension:
    @pytest.mark.parametrize("lengths", LENGTHS, ids=str)
    @pytest.mark.parametrize("name", list(CASES))
    def test_it_is_as_accurate_as_plain_torch(self, name: str, lengths: tuple[int, ...], kernels: pytest.MonkeyPatch):
        check_accuracy(kernels, name, lengths)

    @pytest.mark.parametrize("name", list(CASES))
    @pytest.mark.usefixtures("ext")
    def test_rows_of_any_lengths(self, name: str):
        @settings(max_examples=15, deadline=None, derandomize=True, database=None)
        @given(st.lists(st.integers(0, 40), max_size=5).map(lambda drawn: drawn * 4))
        def check(lengths: list[int]) -> None:
            with pytest.MonkeyPatch.context() as patch:
                check_accuracy(patch, name, lengths)

        check()

    def test_the_cases_reach_every_branch_of_the_policy_loss(self):
        """Both sides of the clip, inside of it, the cap and below, in what the accuracy is asked of."""
        logp, offsets = draw(LENGTHS[4])
        terms, _ = terms_of("grpo with a low cap", logp, offsets)
        advantage, ratio = Segments(logp, offsets).of_token(terms.advantages), (logp - terms.old).exp()
        weight = (terms.old - terms.sampled).exp()
        for reached in (
            (advantage > 0) & (ratio > 1.1),
            (advantage > 0) & (ratio < 0.9),
            (advantage < 0) & (ratio > 1.1),
            (advantage < 0) & (ratio < 0.9),
            advantage == 0,
            weight > 1.1,
            weight < 1.1,
        ):
            assert reached.any()

    @pytest.mark.parametrize("margin", [-1e4, -90.0, -1e-4, 0.0, 1e-4, 90.0, 1e4])
    def test_large_margins_neither_overflow_nor_vanish(self, margin: float, kernels: pytest.MonkeyPatch):
        """-log sigmoid(m) and its slope -sigmoid(-m), to a relative 1e-6 wherever float32 has numbers for them."""
        logp, offsets = torch.tensor([0.0, 0.0]), torch.tensor([0, 1, 2])
        dpo = DPOTerms(torch.tensor([-margin, 0.0]), beta=1.0)
        loss, coefficient = loss_and_coefficient(logp, offsets, dpo)
        odds = math.exp(-abs(margin))
        assert loss.item() == pytest.approx(math.log1p(odds) + max(-margin, 0), rel=1e-6, abs=1e-44)
        slope = (odds if margin > 0 else 1) / (1 + odds)
        assert coefficient.tolist() == pytest.approx([-slope, slope], rel=1e-6, abs=1e-44)
        kto = KTOTerms(torch.tensor([-margin, -margin]), torch.zeros(2), torch.tensor([True, False]), beta=1.0)
        loss, coefficient = loss_and_coefficient(logp, offsets, kto)
        assert loss.tolist() == pytest.approx([slope, 1 - slope], rel=1e-6, abs=1e-7)
        curve = odds / (1 + odds) ** 2
        assert coefficient.tolist() == pytest.approx([-curve, curve], rel=1e-6, abs=1e-44)

    @pytest.mark.parametrize("chosen", [0.0, -1e-9, -1e-6, -1e-3, -0.693, -0.694, -5.0, -200.0])
    def test_odds_of_certain_and_of_hopeless_responses(self, chosen: float, kernels: pytest.MonkeyPatch):
        """As plain torch in float32, whose bound near 0 keeps the loss finite; -ln 2 is the seam of log1mexp."""
        logp, offsets = torch.tensor([chosen, -0.5, -0.5, chosen]), torch.tensor([0, 1, 2, 3, 4])
        kernels.setenv("DAJ_KERNELS", "torch")
        wanted = loss_and_coefficient(logp, offsets, ORPOTerms(0.3))
        kernels.setenv("DAJ_KERNELS", "ext")
        loss, coefficient = loss_and_coefficient(logp, offsets, ORPOTerms(0.3))
        assert loss.isfinite().all()
        torch.testing.assert_close(loss, wanted[0], rtol=2e-6, atol=1e-12)
        torch.testing.assert_close(coefficient, wanted[1], rtol=2e-6, atol=1e-12)

    @pytest.mark.parametrize("towards", [1e-6, 1e-4, -1e-3])
    def test_a_small_divergence_is_not_lost_in_rounding(self, towards: float, kernels: pytest.MonkeyPatch):
        """exp(x) - x - 1 is x^2 / 2: plain torch in float32 has no digit of it at 1e-4."""
        logp = torch.tensor([-0.0])
        terms = PolicyTerms(
            1, torch.zeros(1), torch.ones(1, dtype=torch.int64), reference=torch.tensor([towards]), beta=1.0
        )
        loss = losses_of(logp, torch.tensor([0, 1]), terms)
        assert loss.item() == pytest.approx(math.expm1(towards) - towards, rel=1e-3, abs=1e-12)

    @pytest.mark.parametrize("name", list(CASES))
    def test_weights_scale_losses_and_derivatives(self, name: str, kernels: pytest.MonkeyPatch):
        """None is ones, bit for bit; a power of two scales bit for bit; 0 is 0."""
        logp, offsets = draw(LENGTHS[1])
        terms, _ = terms_of(name, logp, offsets)
        num_samples = (len(offsets) - 1) // terms.rows_per_sample
        plain = loss_and_coefficient(logp, offsets, terms, None)
        ones = loss_and_coefficient(logp, offsets, terms, torch.ones(num_samples))
        assert all(torch.equal(a, b) for a, b in zip(plain, ones, strict=True))
        weights = 2.0 ** (torch.arange(num_samples) - 1)
        weights[-1] = 0
        loss, coefficient = loss_and_coefficient(logp, offsets, terms, weights)
        assert torch.equal(loss, weights * plain[0])
        of_token = Segments(logp, offsets).of_token(weights, terms.rows_per_sample)
        assert torch.equal(coefficient, of_token * plain[1])

    @pytest.mark.parametrize("name", list(CASES))
    def test_each_sample_has_its_own_upstream_gradient(self, name: str, kernels: pytest.MonkeyPatch):
        logp, offsets = draw(LENGTHS[2])
        terms, weights = terms_of(name, logp, offsets)
        logp.requires_grad_()
        upstream = torch.arange(len(weights)) - 1.5
        (got,) = torch.autograd.grad(losses_of(logp, offsets, terms), logp, upstream)
        wanted = loss_and_coefficient(logp, offsets, terms, upstream)[1]
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=0)

    @pytest.mark.parametrize("name", ["dpo", "orpo on the prompt", "grpo with kl"])
    def test_twenty_runs_on_one_or_two_threads_give_the_same_bits(self, name: str, kernels: pytest.MonkeyPatch):
        logp, offsets = draw([9000, 5000, 7000, 20_000] * 2)  # more tokens than one thread takes
        terms, weights = terms_of(name, logp, offsets)
        op, arguments = bare(logp, offsets, terms, weights)
        first = op(*arguments)
        try:
            for run in range(20):
                torch.set_num_threads(1 + run % 2)
                assert all(torch.equal(a, b) for a, b in zip(op(*arguments), first, strict=True))
        finally:
            torch.set_num_threads(1)

    @pytest.mark.parametrize("name", ["dpo", "kto", "orpo on the prompt", "sft", "grpo with kl", "grpo on policy"])
    def test_opcheck(self, name: str, kernels: pytest.MonkeyPatch):
        logp, offsets = draw(LENGTHS[1])
        op, arguments = bare(logp, offsets, *terms_of(name, logp, offsets))
        torch.library.opcheck(op.default, arguments)

    @pytest.mark.parametrize("name", ["dpo with likelihood", "orpo on the prompt", "grpo with kl"])
    def test_torch_compile_sees_one_graph_with_the_operator_in_it(self, name: str, kernels: pytest.MonkeyPatch):
        logp, offsets = draw(LENGTHS[1])
        terms, weights = terms_of(name, logp, offsets)
        graphs: list[str] = []
        torch.compiler.reset()  # the second float in one place would be taken for a variable, and traced twice

        def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
            graphs.append(graph.print_readable(print_output=False))
            return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

        wanted = loss_and_coefficient(logp, offsets, terms, weights)
        logp.requires_grad_()
        losses = torch.compile(losses_of, fullgraph=True, backend=backend)(logp, offsets, terms, weights)
        assert len(graphs) == 1
        assert "torch.ops.daj.segment_" in graphs[0]
        assert torch.equal(losses, wanted[0])
        assert torch.equal(torch.autograd.grad(losses.sum(), logp)[0], wanted[1])


class TestDerivatives:
    @pytest.mark.parametrize("name", list(CASES))
    def test_forward_mode_agrees_with_reverse_mode(self, name: str, kernels: pytest.MonkeyPatch):
        """By dual numbers and by torch.func.jvp, whose answers are never a silent zero."""
        logp, offsets = draw(LENGTHS[1])
        terms, weights = terms_of(name, logp, offsets)
        direction = torch.randn(len(logp), generator=torch.Generator().manual_seed(5))
        coefficient = loss_and_coefficient(logp, offsets, terms, weights)[1]
        by_row = Segments(logp, offsets).sums(coefficient * direction)
        wanted = by_row.view(-1, terms.rows_per_sample).sum(dim=1)
        with forward_ad.dual_level():
            dual = losses_of(forward_ad.make_dual(logp, direction), offsets, terms, weights)
            tangent = forward_ad.unpack_dual(dual).tangent
        torch.testing.assert_close(tangent, wanted, rtol=1e-4, atol=1e-6)
        _, tangent = torch.func.jvp(lambda x: losses_of(x, offsets, terms, weights), (logp,), (direction,))
        torch.testing.assert_close(tangent, wanted, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("name", ["dpo", "kto", "orpo", "grpo with unbiased kl"])
    def test_a_jvp_of_the_gradient_is_the_hessian_times_the_direction(self, name: str, kernels: pytest.MonkeyPatch):
        logp, offsets = draw((2, 3, 1, 2))
        terms, weights = terms_of(name, logp, offsets)
        weights += 0.5
        direction = torch.ones_like(logp)

        def slope(x: Tensor) -> Tensor:
            return torch.func.grad(lambda y: losses_of(y, offsets, terms, weights.to(x.dtype)).sum())(x)

        _, got = torch.func.jvp(slope, (logp,), (direction,))
        kernels.setenv("DAJ_KERNELS", "auto")
        truth = map_tensors(terms, in_float64)
        hessian = torch.autograd.functional.hessian(
            lambda x: losses_of(x, offsets, truth, weights.double()).sum(), logp.double()
        )
        assert hessian.abs().max() > 1e-3
        torch.testing.assert_close(got.double(), hessian @ direction.double(), rtol=1e-4, atol=1e-5)

    def test_a_second_derivative_in_reverse_mode_is_refused(self, kernels: pytest.MonkeyPatch):
        """Also where the first is taken of a plain sum, whose upstream gradient is a constant."""
        logp, offsets = draw((2, 3))
        logp.requires_grad_()
        terms, _ = terms_of("dpo", logp.detach(), offsets)
        losses = losses_of(logp, offsets, terms)
        with pytest.raises(NotImplementedError, match=r"no second derivative.*Set DAJ_KERNELS=torch"):
            torch.autograd.grad(losses.sum(), logp, create_graph=True)
        kernels.setenv("DAJ_KERNELS", "torch")
        (slope,) = torch.autograd.grad(losses_of(logp, offsets, terms).sum(), logp, create_graph=True)
        assert torch.autograd.grad(slope.sum(), logp)[0].shape == logp.shape

    @pytest.mark.parametrize("mode", ["torch", "auto"])
    @pytest.mark.parametrize(
        ("carried", "differentiate"),
        [
            ("requires grad", lambda losses, value: losses(value.clone().requires_grad_())),
            ("carries a forward-mode tangent", lambda losses, value: torch.func.jvp(losses, (value,), (value,))),
        ],
        ids=["gradient", "tangent"],
    )
    @pytest.mark.parametrize(
        ("name", "constant"),
        [("dpo", "reference"), ("kto", "kl"), ("grpo with kl", "old"), ("grpo", "advantages"), ("sft", "weights")],
    )
    def test_only_the_judge_is_differentiated(
        self, name: str, constant: str, carried: str, differentiate: Any, mode: str, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("DAJ_KERNELS", mode)
        logp, offsets = draw(LENGTHS[0])
        terms, weights = terms_of(name, logp, offsets)

        def losses(value: Tensor) -> Tensor:
            if constant == "weights":
                return losses_of(logp, offsets, terms, value)
            return losses_of(logp, offsets, replace(terms, **{constant: value}), weights)

        value = weights if constant == "weights" else getattr(terms, constant)
        with pytest.raises(NotImplementedError, match=rf"logp alone, and {constant} {carried}"):
            differentiate(losses, value)
        with torch.no_grad():
            assert losses(value.clone().requires_grad_()).shape == weights.shape

    @pytest.mark.parametrize("name", ["dpo", "grpo"])
    def test_the_bare_operator_refuses(self, name: str, kernels: pytest.MonkeyPatch):
        logp, offsets = draw(LENGTHS[0])
        op, arguments = bare(logp, offsets, *terms_of(name, logp, offsets))
        with pytest.raises(NotImplementedError, match="requires grad"):
            op(logp.clone().requires_grad_(), *arguments[1:])
        with pytest.raises(NotImplementedError, match="forward-mode tangent"):
            torch.func.jvp(lambda x: op(x, *arguments[1:])[0], (logp,), (logp,))


class TestMistakes:
    LOGP, OFFSETS = torch.zeros(5), torch.tensor([0, 2, 5])
    DPO = DPOTerms(torch.zeros(2), 0.1)
    MISTAKES = (
        ((torch.zeros(5, 1), OFFSETS, DPO), r"logp needs the shape \(N,?\).*got \(5, 1\)"),
        ((LOGP.half(), OFFSETS, DPO), r"logp needs .*float32.*got .*([Hh]alf|float16)"),
        (
            (LOGP, torch.tensor([0, 2, 3, 5]), DPO),
            r"offsets needs .*(2 of each sample; got 4 entries|2 rows for each.*3)",
        ),
        ((LOGP, OFFSETS.int(), DPO), r"offsets needs .*int64; got .*(int32|Int)"),
        ((LOGP, OFFSETS, DPOTerms(torch.zeros(3), 0.1)), r"reference needs the shape \(2,?\) for R rows; got \(3,?\)"),
        ((LOGP, OFFSETS, SFTTerms(), torch.ones(1)), r"weights needs the shape \(2,?\) for B samples; got \(1,?\)"),
        ((LOGP, OFFSETS, ORPOTerms(0.1, torch.ones(5))), r"counted needs .*bool; got .*(float32|Float)"),
        (
            (LOGP, OFFSETS, PolicyTerms(2, torch.zeros(2), torch.ones(2))),
            r"divisors needs .*int64; got .*(float32|Float)",
        ),
        (
            (LOGP, OFFSETS, PolicyTerms(2, torch.zeros(2), torch.ones(2).long(), old=torch.zeros(4))),
            r"old needs the shape \(5,?\) for N tokens; got \(4,?\)",
        ),
    )

    @pytest.mark.parametrize(("arguments", "message"), MISTAKES)
    def test_the_public_function_says_what_came_and_what_was_wanted(self, arguments: tuple[Any, ...], message: str):
        with pytest.raises(ValueError, match=message):
            losses_of(*arguments)

    @pytest.mark.parametrize(("arguments", "message"), MISTAKES)
    def test_so_does_the_bare_operator(self, arguments: tuple[Any, ...], message: str, kernels: pytest.MonkeyPatch):
        logp, offsets, terms, *weights = arguments
        op, given = bare(logp, offsets, terms, *(weights or [None]))
        with pytest.raises(RuntimeError, match=message):
            op(*given)

    @pytest.mark.parametrize("offsets", [[0, 2, 4], [1, 2, 5], [0, 6, 5]])
    def test_offsets_that_lead_outside_are_refused(self, offsets: list[int], kernels: pytest.MonkeyPatch):
        with pytest.raises(RuntimeError, match="rise from 0 to the 5 tokens of logp; got"):
            losses_of(self.LOGP, torch.tensor(offsets), self.DPO)

    def test_a_kl_needs_its_reference(self):
        with pytest.raises(ValueError, match=r"beta = 0\.1 needs reference"):
            PolicyTerms(1, torch.zeros(1), torch.ones(1).long(), beta=0.1)

    def test_a_loss_without_what_it_is_about_is_refused(self, kernels: pytest.MonkeyPatch):
        op, given = bare(self.LOGP, self.OFFSETS, SFTTerms(), None)
        for kind, message in ((0, "dpo and kto need reference"), (1, "need reference"), (7, "3 .sft.; got 7")):
            with pytest.raises(RuntimeError, match=message):
                op(*given[:2], kind, *given[3:])


OBJECTIVES: dict[str, tuple[Callable[[], Objective], int]] = {
    "dpo": (lambda: DPO(nll_weight=0.1), 2),
    "kto": (lambda: KTO(desirable_weight=1.3), 1),
    "orpo": (ORPO, 2),
    "orpo on the prompt": (lambda: ORPO(nll_on_prompt=True), 2),
    "sft": (SFT, 1),
    "grpo": (lambda: GRPO(beta=0.1, importance_cap=1.2), 4),
    "grpo in chunks": (lambda: GRPO(normalization="dapo", epsilon_high=0.3, rows_per_forward=3), 4),
}


@pytest.mark.usefixtures("ext")
class TestWholeObjectives:
    @pytest.mark.parametrize("name", list(OBJECTIVES))
    def test_a_tiny_judge_learns_the_same_from_either(
        self, name: str, tiny_config: Qwen3Config, monkeypatch: pytest.MonkeyPatch
    ):
        objective, n = OBJECTIVES[name][0](), OBJECTIVES[name][1]
        judge = make_judge(tiny_config)
        randomize_adapters(judge, scale=0.1)
        batch = objective.prepare(judge, self.batch(n))
        found = []
        for mode in ("torch", "ext"):
            monkeypatch.setenv("DAJ_KERNELS", mode)
            losses = objective(judge, batch)
            slopes = torch.autograd.grad(
                (losses * torch.linspace(0.5, 2, len(losses))).sum(), judge.trained_parameters()
            )
            found.append((losses.detach(), torch.cat([slope.flatten() for slope in slopes])))
        (plain, wanted), (fused, got) = found
        assert len(set(plain.tolist())) == 8 // n
        assert wanted.abs().max() > 1e-3
        torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))

    def batch(self, n: int) -> JudgeBatch:
        """Eight rows with responses of 2 to 5 tokens; of a group, one row is masked."""
        rows, generator = make_batch(4), torch.Generator().manual_seed(9)
        mask = torch.arange(12) >= 12 - torch.randint(2, 6, (8, 1), generator=generator)
        if n == 4:
            mask[3] = False
        near = [-4 + 0.3 * torch.randn(8, 12, generator=generator) for _ in range(3)]
        return replace(
            rows,
            sample_ids=torch.arange(8 // n),
            domains=torch.zeros(8 // n, dtype=torch.int64),
            response_mask=mask,
            rewards=torch.tensor([1.0, 0.5, 0.0, 1.0] * 2),
            old_logp=near[0],
            sampled_logp=near[1],
            reference_token_logp=near[2],
        )


@pytest.mark.gpu
@pytest.mark.usefixtures("cuda")
class TestOnAGpu:
    @pytest.mark.parametrize("lengths", [*LENGTHS, (5000, 3, 0, 2047) * 3], ids=lambda lengths: str(lengths[:8]))
    @pytest.mark.parametrize("name", list(CASES))
    def test_it_is_as_accurate_as_plain_torch(
        self, name: str, lengths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
    ):
        check_accuracy(monkeypatch, name, lengths, "cuda")

    @pytest.mark.parametrize("name", ["dpo", "orpo on the prompt", "grpo with kl"])
    def test_twenty_runs_give_the_same_bits(self, name: str):
        op, arguments = self.on_the_gpu(name)
        first = op(*arguments)
        for _ in range(20):
            assert all(torch.equal(a, b) for a, b in zip(op(*arguments), first, strict=True))

    @pytest.mark.parametrize("name", ["dpo", "grpo with kl"])
    def test_it_runs_in_the_current_stream_and_in_a_cuda_graph(self, name: str):
        op, (logp, *others) = self.on_the_gpu(name)
        wanted = op(logp, *others)
        logp_later = torch.zeros_like(logp)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):  # on a stream of its own; a launch on another one would end the capture
            got = op(logp_later, *others)
        logp_later.copy_(logp)
        graph.replay()
        assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))

    def test_the_host_waits_for_nothing(self):
        _, (logp, offsets, *_) = self.on_the_gpu("sft")
        logp.requires_grad_()
        torch.cuda.set_sync_debug_mode("error")
        try:
            losses_of(logp, offsets, SFTTerms()).sum().backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def on_the_gpu(self, name: str) -> tuple[Any, tuple[Any, ...]]:
        logp, offsets = draw([9000, 5000, 7000, 20_000] * 2)
        op, arguments = bare(logp, offsets, *terms_of(name, logp, offsets))
        return op, tuple(a.cuda() if isinstance(a, Tensor) else a for a in arguments)
