"""Derivatives of fused_linear_logprob: first ones right in both modes, second ones refused, none ever a silent zero."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from daj_lightning.kernels import (
    LinearLogprob,
    fused_linear_logprob,
    fused_linear_logprob_jvp,
    fused_linear_logprob_vjp,
)
from linear_logprob_cases import CHANGES, draw, relative, truth

HIDDEN = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
WEIGHT = torch.randn(11, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TANGENT = torch.randn(5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
TARGETS = torch.tensor([0, 10, -100, 4, 4])
OPTIONS: dict[str, Any] = {"softcap": 2.0, "temperature": 0.7, "logit_scale": 1.3, "ignore_index": -100}


def ours(hidden: Tensor, **more: Any) -> LinearLogprob:
    return fused_linear_logprob(hidden, WEIGHT, TARGETS, **OPTIONS, **more)


def by_logits(hidden: Tensor) -> tuple[Tensor, Tensor]:
    """logp and lse with every derivative that autograd has."""
    z = 2.0 * torch.tanh(1.3 * (hidden @ WEIGHT.T) / 2.0) / 0.7
    kept = TARGETS >= 0
    logp = z.log_softmax(1).gather(1, TARGETS.clamp(min=0)[:, None]).squeeze(1)
    return logp * kept, z.logsumexp(1) * kept


class TestFirst:
    @pytest.mark.parametrize("change", CHANGES)
    def test_gradcheck_in_both_modes(self, change: str):
        def both(hidden: Tensor) -> tuple[Tensor, Tensor]:
            return fused_linear_logprob(hidden, WEIGHT, TARGETS, ignore_index=-100, **CHANGES[change])[:2]

        assert torch.autograd.gradcheck(both, (HIDDEN.clone().requires_grad_(),), check_forward_ad=True)

    @pytest.mark.parametrize("output", [0, 1], ids=["logp", "lse"])
    def test_functorch_and_dual_numbers_agree_with_logits(self, output: int):
        def one(function: Callable[[Tensor], Any]) -> Callable[[Tensor], Tensor]:
            return lambda hidden: function(hidden)[output]

        gradient = torch.func.grad(lambda hidden: one(ours)(hidden).sin().sum())(HIDDEN)
        torch.testing.assert_close(gradient, torch.func.grad(lambda h: one(by_logits)(h).sin().sum())(HIDDEN))
        wanted = torch.func.jvp(one(by_logits), (HIDDEN,), (TANGENT,))
        torch.testing.assert_close(torch.func.jvp(one(ours), (HIDDEN,), (TANGENT,)), wanted)
        with torch.no_grad(), forward_ad.dual_level():  # as JvpEngine calls it
            dual = one(ours)(forward_ad.make_dual(HIDDEN, TANGENT))
            torch.testing.assert_close(tuple(forward_ad.unpack_dual(dual)), wanted)

    def test_coefficients_scale_rows(self):
        """One backward with c: u times c, row by row, under any loss on top."""
        hidden = HIDDEN.clone().requires_grad_()
        c = torch.tensor([1.0, -2.0, 3.0, 0.0, 0.5], dtype=torch.float64)
        (gradient,) = torch.autograd.grad(ours(hidden).logp, hidden, c)
        u = ours(HIDDEN, need_u=True).u
        torch.testing.assert_close(gradient, fused_linear_logprob_vjp(u, c))
        assert torch.equal(fused_linear_logprob_vjp(u, c), c[:, None] * u)

    def test_a_derivative_of_the_gradient_by_its_coefficients_is_right(self):
        """d <grad, v> / dc = <u, v>: a hypergradient by double backward needs this much."""
        hidden, c = HIDDEN.clone().requires_grad_(), torch.ones(5, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad((ours(hidden).logp * c).sum(), hidden, create_graph=True)
        (by_c,) = torch.autograd.grad((gradient * TANGENT).sum(), c)
        torch.testing.assert_close(by_c, torch.func.jvp(lambda h: by_logits(h)[0], (HIDDEN,), (TANGENT,))[1])

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_jvp_and_vjp_are_adjoint(self, dtype: torch.dtype):
        """<jvp(v), c> = <v, vjp(c)>, within 1e-5 of the sizes of both (bfloat16 rounds vjp itself)."""
        hidden, weight, targets, _ = draw(dtype=dtype)
        generator = torch.Generator().manual_seed(1)
        v, c = torch.randn(hidden.shape, generator=generator), torch.randn(hidden.size(0), generator=generator)
        u = fused_linear_logprob(hidden, weight, targets, need_u=True).u
        assert u is not None
        left = fused_linear_logprob_jvp(u, v).double() @ c.double()
        right = (v.double() * fused_linear_logprob_vjp(u, c).double()).sum()
        size = (u.double().norm(dim=1) * v.double().norm(dim=1)) @ c.double().abs()
        assert abs(left - right) <= {torch.float32: 1e-5, torch.bfloat16: 4e-3}[dtype] * size

    def test_the_directional_derivative_is_what_float64_says(self):
        hidden, weight, targets, _ = draw()
        v = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1))
        got = torch.func.jvp(lambda h: fused_linear_logprob(h, weight, targets).logp, (hidden,), (v,))[1]
        assert relative(got, (truth(hidden, weight, targets).u * v).sum(dim=1)) <= 1e-5

    def test_the_weight_gets_no_gradient(self):
        hidden, weight, targets, _ = draw(N=3)
        hidden.requires_grad_()
        fused_linear_logprob(hidden, weight, targets).logp.sum().backward()
        assert weight.grad is None

    def test_without_grad_mode_nothing_is_recorded(self):
        with torch.no_grad():
            assert not ours(HIDDEN.clone().requires_grad_()).logp.requires_grad


def loss(hidden: Tensor) -> Tensor:
    return ours(hidden).logp.square().sum()


def double_backward() -> None:
    hidden = HIDDEN.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(hidden), hidden, create_graph=True)
    torch.autograd.grad(gradient.sum(), hidden)


@contextmanager
def dual(hidden: Tensor) -> Iterator[Tensor]:
    with forward_ad.dual_level():
        yield forward_ad.make_dual(hidden, TANGENT)


def tangent_of_a_backward() -> None:
    with dual(HIDDEN.clone().requires_grad_()) as hidden:
        torch.autograd.grad(loss(hidden), hidden)


def tangent_of_functorch_grad() -> None:
    with dual(HIDDEN) as hidden:
        torch.func.grad(loss)(hidden)


def jvp(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda hidden: torch.func.jvp(function, (hidden,), (TANGENT,))[1]


def bare_op(hidden: Tensor, need_u: bool = True, need_entropy: bool = False) -> tuple[Tensor, ...]:
    return torch.ops.daj.fused_linear_logprob(hidden, WEIGHT, TARGETS, None, 1.0, None, 1.0, -100, need_u, need_entropy)


class TestRefused:
    SECOND: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("double backward", double_backward),
        ("tangent of a backward", tangent_of_a_backward),
        ("tangent of func.grad", tangent_of_functorch_grad),
        ("grad of grad", lambda: torch.func.grad(lambda h: torch.func.grad(loss)(h).sum())(HIDDEN)),
        ("jvp of grad", lambda: jvp(torch.func.grad(loss))(HIDDEN)),
        ("grad of jvp", lambda: torch.func.grad(jvp(loss))(HIDDEN)),
        ("jvp of jvp", lambda: jvp(jvp(loss))(HIDDEN)),
        ("hessian", lambda: torch.func.hessian(loss)(HIDDEN)),
    )

    @pytest.mark.parametrize("attempt", [a for _, a in SECOND], ids=[name for name, _ in SECOND])
    def test_second_derivatives(self, attempt: Callable[[], Any]):
        with pytest.raises(NotImplementedError, match="log_softmax of the logits"):
            attempt()

    @pytest.mark.parametrize("field", ["u", "entropy"])
    def test_a_backward_through_u_or_entropy(self, field: str):
        """Also where it hides beside that of logp."""
        hidden = HIDDEN.clone().requires_grad_()
        found = ours(hidden, need_u=True, need_entropy=True)
        with pytest.raises(NotImplementedError, match=f"goes through {field}"):
            (found.logp.sum() + getattr(found, field).sum()).backward()
        with pytest.raises(NotImplementedError, match=f"goes through {field}"):
            torch.func.grad(lambda h: getattr(ours(h, need_u=True, need_entropy=True), field).sum())(HIDDEN)

    @pytest.mark.parametrize("field", ["u", "entropy"])
    def test_a_tangent_of_u_or_entropy(self, field: str):
        for attempt in (
            lambda: torch.func.jvp(lambda h: ours(h, **{f"need_{field}": True}).logp, (HIDDEN,), (TANGENT,)),
            lambda: self.in_dual_level(field),
        ):
            with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
                attempt()

    @staticmethod
    def in_dual_level(field: str) -> None:
        with dual(HIDDEN) as hidden:
            ours(hidden, **{f"need_{field}": True})

    def test_vmap(self):
        with pytest.raises(RuntimeError, match="vmap"):
            torch.func.vmap(lambda h: ours(h).logp)(HIDDEN[None])

    @pytest.mark.parametrize("name", ["weight", "bias"])
    def test_a_head_that_trains(self, name: str):
        head = {"weight": WEIGHT, "bias": torch.zeros(11, dtype=torch.float64)}

        def score(**changed: Tensor) -> LinearLogprob:
            now = {**head, **changed}
            return fused_linear_logprob(HIDDEN, now["weight"], TARGETS, bias=now["bias"], ignore_index=-100)

        trained = head[name].clone().requires_grad_()
        with pytest.raises(NotImplementedError, match=rf"{name} \(11.*requires grad.*frozen here.*log_softmax"):
            score(**{name: trained})
        with torch.no_grad():  # scored, not trained
            assert torch.equal(score(**{name: trained}).logp, score().logp)
        with forward_ad.dual_level():
            moving = forward_ad.make_dual(head[name], torch.ones_like(head[name]))
            with pytest.raises(NotImplementedError, match=rf"{name}.*carries a tangent"):
                score(**{name: moving})

    def test_a_head_under_functorch(self):
        with pytest.raises(NotImplementedError, match=r"weight.*frozen here"):
            torch.func.grad(lambda w: fused_linear_logprob(HIDDEN[:1], w, TARGETS[:1]).logp.sum())(WEIGHT)

    def test_a_sharded_head(self, tmp_path: Any):
        from torch.distributed import destroy_process_group, init_process_group
        from torch.distributed.tensor import Replicate, distribute_tensor, init_device_mesh

        init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
        try:
            weight = distribute_tensor(WEIGHT, init_device_mesh("cpu", (1,)), [Replicate()])
            with pytest.raises(NotImplementedError, match=r"DTensor of shape \(11, 3\).*full_tensor"):
                fused_linear_logprob(HIDDEN, weight, TARGETS, ignore_index=-100)
        finally:
            destroy_process_group()


class TestTheOperator:
    """What torch.compile sees."""

    def test_opcheck(self):
        for need in (False, True):
            inputs = (HIDDEN, WEIGHT, TARGETS, None, 1.0, 3.0, 0.7, -100, need, need)
            torch.library.opcheck(torch.ops.daj.fused_linear_logprob.default, inputs)
        # With a gradient: all but the check that differentiates the sum of all outputs, of which u refuses.
        utilities = ("test_schema", "test_autograd_registration", "test_faketensor")
        recorded = (HIDDEN.clone().requires_grad_(), *inputs[1:])
        torch.library.opcheck(torch.ops.daj.fused_linear_logprob.default, recorded, test_utils=utilities)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_compiled_without_a_break_it_is_the_same(self, dtype: torch.dtype):
        hidden, weight, targets, _ = draw(N=7, V=200, dtype=dtype)

        def step(hidden: Tensor) -> Tensor:
            found = fused_linear_logprob(hidden * 1.5, weight, targets, temperature=0.7)
            return found.logp.square().sum() + found.lse.sum()

        gradients = []
        for function in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
            leaf = hidden.clone().requires_grad_()
            function(leaf).backward()
            gradients.append(leaf.grad)
        assert torch.equal(*gradients)
        compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(hidden), step(hidden))  # and without any gradient

    def test_a_layer_compiles_around_it(self):
        """Forward and backward through the operator and torch's own ops in one graph."""
        layer, (_, weight, targets, _) = nn.Linear(96, 96), draw(N=7, V=200)
        rows = torch.randn(7, 96, generator=torch.Generator().manual_seed(3))

        def step() -> Tensor:
            return fused_linear_logprob(layer(rows), weight, targets).logp.mean()

        (wanted,) = torch.autograd.grad(step(), layer.weight)
        (got,) = torch.autograd.grad(torch.compile(step, fullgraph=True, backend="aot_eager")(), layer.weight)
        torch.testing.assert_close(got, wanted)

    def test_tangents_are_refused(self):
        with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
            torch.func.jvp(lambda h: bare_op(h)[0], (HIDDEN,), (TANGENT,))
        with dual(HIDDEN) as hidden, pytest.raises(NotImplementedError, match="no forward-mode derivative"):
            bare_op(hidden)

    def test_a_compiled_tangent_is_refused(self):
        compiled = torch.compile(
            lambda h: torch.func.jvp(lambda x: ours(x).logp, (h,), (TANGENT,)), fullgraph=True, backend="aot_eager"
        )
        with pytest.raises(Exception, match="no forward-mode derivative"):
            compiled(HIDDEN)

    def test_a_gradient_needs_u(self):
        with pytest.raises(NotImplementedError, match="needs need_u=True where hidden requires grad"):
            bare_op(HIDDEN.clone().requires_grad_(), need_u=False)

    def test_entropy_is_no_silent_zero_in_a_compiled_loss(self):
        def step(hidden: Tensor) -> Tensor:
            found = ours(hidden, need_entropy=True)
            assert found.entropy is not None
            return found.logp.sum() + found.entropy.sum()

        with pytest.raises(Exception, match="goes through entropy"):
            torch.compile(step, fullgraph=True, backend="aot_eager")(HIDDEN.clone().requires_grad_()).backward()
