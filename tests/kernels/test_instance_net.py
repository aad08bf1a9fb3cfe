"""The weighting net's op computes what autograd does in float64, and the reweighter's gradients come from it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn
from torch.autograd import forward_ad

from called import ops_called
from daj_lightning.bilevel import (
    DomainWeights,
    HierarchicalWeights,
    InstanceNet,
    InstanceTable,
    Reweighter,
    TrainingSet,
)
from daj_lightning.kernels import instance_net_hypergrad, squareplus
from daj_lightning.records import DajError
from tiny import make_batch

BATCHES = [0, 1, 16, 17, 100]  # none, one, the GPU's tile, one more, several tiles
NETS = [(1, 10), (1, 1), (4, 10), (3, 64), (8, 64)]  # (F, H); the paper's, the smallest, and the largest
OP = "daj::instance_net_hypergrad"


@dataclass
class Inputs:
    features: Tensor
    """(B, F)."""
    parameters: Tensor
    """(N,) as nn.Linear draws them."""
    derivative: Tensor
    """(B,)."""
    hidden: int

    def all(self) -> tuple[Tensor, Tensor, Tensor, int]:
        return self.features, self.parameters, self.derivative, self.hidden

    def to(self, *args: object) -> Inputs:
        return Inputs(*(t.to(*args) for t in self.all()[:3]), self.hidden)


def net_of(F: int, H: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(F, H), nn.Tanh(), nn.Linear(H, H), nn.Tanh(), nn.Linear(H, 1))


def draw(B: int, F: int, H: int) -> Inputs:
    torch.manual_seed(B * 10_000 + F * 100 + H)
    parameters = torch.cat([p.detach().flatten() for p in net_of(F, H).parameters()])
    return Inputs(torch.randn(B, F), parameters, torch.randn(B), H)


def truth(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Autograd through nn.Sequential in float64."""
    inputs = inputs.to("cpu", torch.float64)
    net = net_of(inputs.features.size(1), inputs.hidden).double()
    nn.utils.vector_to_parameters(inputs.parameters, net.parameters())
    weights = squareplus(net(inputs.features)).squeeze(1)
    gradient = torch.autograd.grad(weights, list(net.parameters()), inputs.derivative)
    return weights.detach(), torch.cat([g.flatten() for g in gradient])


def check_accuracy(inputs: Inputs) -> None:
    weights, gradient = torch.ops.daj.instance_net_hypergrad(*inputs.all())
    assert weights.dtype == gradient.dtype == torch.float32
    for got, wanted in zip((weights, gradient), truth(inputs), strict=True):
        assert got.shape == wanted.shape
        assert float((got.cpu().double() - wanted).norm()) <= 1e-5 * float(wanted.norm())


class TestThePublicFunction:
    def test_plain_torch_in_float64_is_autograd(self):
        inputs = draw(16, 3, 10).to(torch.float64)
        for got, wanted in zip(instance_net_hypergrad(*inputs.all()), truth(inputs), strict=True):
            assert not got.requires_grad
            torch.testing.assert_close(got, wanted, rtol=1e-13, atol=1e-15)

    def test_one_unit_by_hand(self):
        """All weights 1, all biases 0, x = 1/2: alpha = squareplus(tanh(tanh(1/2))); b3's gradient is its slope."""
        inputs = Inputs(torch.tensor([[0.5]]), torch.tensor([1.0, 0, 1, 0, 1, 0]), torch.ones(1), 1)
        weights, gradient = instance_net_hypergrad(*inputs.all())
        raw = torch.tensor(0.5).tanh().tanh()
        torch.testing.assert_close(weights, squareplus(raw)[None])
        torch.testing.assert_close(gradient[-1], (1 + raw / (raw * raw + 4).sqrt()) / 2)
        torch.testing.assert_close(gradient[-2], gradient[-1] * raw)

    @pytest.mark.usefixtures("ext")
    @pytest.mark.parametrize("mode", ["torch", "auto"])
    def test_nets_too_large_for_the_kernels_run_in_plain_torch(self, monkeypatch: pytest.MonkeyPatch, mode: str):
        monkeypatch.setenv("DAJ_KERNELS", mode)
        for F, H in ((1, 65), (9, 2)):
            inputs = draw(4, F, H)
            assert OP not in ops_called(lambda inputs=inputs: instance_net_hypergrad(*inputs.all()))
            for got, wanted in zip(instance_net_hypergrad(*inputs.all()), truth(inputs), strict=True):
                torch.testing.assert_close(got, wanted.float())
        assert (OP in ops_called(lambda: instance_net_hypergrad(*draw(4, 8, 64).all()))) == (mode == "auto")

    def test_ext_refuses_a_net_too_large(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("DAJ_KERNELS", "ext")
        with pytest.raises(DajError, match="at most 8 features and 64 hidden units"):
            instance_net_hypergrad(*draw(4, 1, 65).all())

    def test_operands_that_do_not_fit_are_named(self):
        inputs = draw(4, 2, 3)
        for wrong, message in (
            (replace(inputs, parameters=torch.zeros(24)), r"parameters needs the shape \(25,\).* 3 hidden units; got"),
            (replace(inputs, derivative=torch.zeros(5)), r"derivative needs the shape \(4,\).*got \(5,\)"),
            (replace(inputs, derivative=torch.zeros(4).double()), r"derivative needs the features' dtype"),
            (replace(inputs, features=torch.zeros(4)), r"features needs the shape \(B, F\).*got \(4,\)"),
            (replace(inputs, features=torch.zeros(4, 4)[:, :2]), r"features \(4, 2\) needs contiguous memory"),
            (replace(inputs, hidden=0), r"hidden at least 1; got \(4, 2\) and 0"),
        ):
            with pytest.raises(ValueError, match=message):
                instance_net_hypergrad(*wrong.all())

    @pytest.mark.parametrize("mode", ["torch", "auto"])
    def test_derivatives_are_refused(self, monkeypatch: pytest.MonkeyPatch, mode: str):
        monkeypatch.setenv("DAJ_KERNELS", mode)
        inputs = draw(4, 2, 3)
        for name in ("features", "parameters", "derivative"):
            value = getattr(inputs, name)
            with pytest.raises(NotImplementedError, match=r"instance_net_hypergrad has no derivative.*requires grad"):
                instance_net_hypergrad(*replace(inputs, **{name: value.clone().requires_grad_()}).all())
            with forward_ad.dual_level():
                dual = forward_ad.make_dual(value, torch.ones_like(value))
                with pytest.raises(NotImplementedError, match="forward-mode tangent"):
                    instance_net_hypergrad(*replace(inputs, **{name: dual}).all())


@pytest.mark.usefixtures("ext")
class TestTheExtension:
    @pytest.mark.parametrize("net", NETS, ids=str)
    @pytest.mark.parametrize("B", BATCHES)
    def test_it_is_autograd_in_float64(self, B: int, net: tuple[int, int]):
        check_accuracy(draw(B, *net))

    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(B=st.integers(0, 60), F=st.integers(1, 8), H=st.integers(1, 64))
    def test_any_shape(self, B: int, F: int, H: int):
        check_accuracy(draw(B, F, H))

    def test_far_below_zero_no_digits_cancel(self):
        """raw = b3 = -1000: alpha is about 1/1000 and its slope 1/1000^2; (x + root) / 2 is 0 in float32."""
        inputs = Inputs(torch.zeros(1, 1), torch.tensor([0.0, 0, 0, 0, 0, -1000]), torch.ones(1), 1)
        weights, gradient = torch.ops.daj.instance_net_hypergrad(*inputs.all())
        torch.testing.assert_close(weights, torch.tensor([1e-3]), rtol=1e-5, atol=0)
        torch.testing.assert_close(gradient[-1], torch.tensor(1e-6), rtol=1e-5, atol=0)

    def test_without_samples_the_gradient_is_zero(self):
        weights, gradient = torch.ops.daj.instance_net_hypergrad(*draw(0, 2, 10).all())
        assert weights.shape == (0,)
        assert not gradient.any()

    def test_twenty_runs_on_one_or_two_threads_give_the_same_bits(self):
        inputs = draw(100, 4, 10)
        first = torch.ops.daj.instance_net_hypergrad(*inputs.all())
        try:
            for run in range(20):
                torch.set_num_threads(1 + run % 2)
                again = torch.ops.daj.instance_net_hypergrad(*inputs.all())
                assert all(torch.equal(a, b) for a, b in zip(again, first, strict=True))
        finally:
            torch.set_num_threads(1)

    def test_opcheck_and_compile(self):
        inputs = draw(5, 2, 10)
        torch.library.opcheck(torch.ops.daj.instance_net_hypergrad.default, inputs.all())

        def total(*tensors: Tensor) -> Tensor:
            weights, gradient = torch.ops.daj.instance_net_hypergrad(*tensors, 10)
            return weights.sum() + gradient.sum()

        tensors = inputs.all()[:3]
        assert torch.equal(torch.compile(total, fullgraph=True, backend="aot_eager")(*tensors), total(*tensors))

    def test_the_bare_op_refuses_too(self):
        inputs = draw(4, 2, 3)
        bare = torch.ops.daj.instance_net_hypergrad
        with pytest.raises(NotImplementedError, match="requires grad"):
            bare(*replace(inputs, parameters=inputs.parameters.clone().requires_grad_()).all())
        for wrong, message in (
            (replace(inputs, parameters=torch.zeros(24)), r"parameters needs the shape \(25\) for 2 features and 3"),
            (replace(inputs, derivative=torch.zeros(5)), r"derivative needs the shape \(4\)"),
            (replace(inputs, features=torch.zeros(4)), r"features needs the shape \(B, F\)"),
            (draw(4, 9, 3), "1 to 8 features and 1 to 64 hidden units; got 9 and 3"),
            (replace(inputs, hidden=0), "got 2 and 0"),
        ):
            with pytest.raises(RuntimeError, match=message):
                bare(*wrong.all())


REWEIGHTERS = {
    "domains": DomainWeights,
    "table": InstanceTable,
    "hierarchical": HierarchicalWeights,
    "net": InstanceNet,
    "net of four features": lambda: InstanceNet(64, ["loss", "reward_mean", "reward_spread", "response_length"]),
}


@pytest.mark.parametrize("mode", ["torch", "auto"])
@pytest.mark.parametrize("name", REWEIGHTERS)
def test_accumulate_equals_the_backward_of_the_weights(monkeypatch: pytest.MonkeyPatch, name: str, mode: str):
    """Twice, as over the credits of an outer step: the second adds to the first."""
    monkeypatch.setenv("DAJ_KERNELS", mode)
    torch.manual_seed(0)
    reweighter: Reweighter = REWEIGHTERS[name]()
    reweighter.build(TrainingSet(("easy", "medium", "hard"), 8))
    for gradients in _gradients_of_both(reweighter):
        for got, wanted in zip(*gradients, strict=True):
            torch.testing.assert_close(got.to_dense(), wanted.to_dense())


@pytest.mark.usefixtures("ext")
def test_the_net_accumulates_through_the_extension_without_moving_its_parameters(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DAJ_KERNELS", "auto")
    net = InstanceNet()
    before = [p.detach().clone() for p in net.parameters()]
    assert OP in ops_called(lambda: net.accumulate(make_batch(6), torch.rand(6), torch.randn(6)))
    assert all(torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True))
    assert all(p.requires_grad and p.grad is not None for p in net.parameters())


def _gradients_of_both(reweighter: Reweighter, device: str = "cpu") -> list[tuple[list[Tensor], list[Tensor]]]:
    """After one and after two batches: `.grad` by `accumulate`, and by backward of the weights."""
    found: dict[str, list[list[Tensor]]] = {"accumulate": [], "backward": []}
    for way, after in found.items():
        reweighter.zero_grad()
        generator = torch.Generator().manual_seed(1)
        for seed in (1, 2):
            batch = make_batch(6, seed=seed)
            object.__setattr__(batch, "rewards", torch.rand(12, generator=generator))
            losses, derivative = torch.rand(2, 6, generator=generator)
            batch, losses, derivative = batch.to(device), losses.to(device), derivative.to(device)
            if way == "accumulate":
                reweighter.accumulate(batch, losses, derivative)
            else:
                reweighter(batch, losses).backward(gradient=derivative)
            after.append([p.grad.clone() for p in reweighter.parameters() if p.grad is not None])
            assert len(after[-1]) == len(list(reweighter.parameters()))
    return list(zip(*found.values(), strict=True))


@pytest.mark.gpu
@pytest.mark.usefixtures("cuda")
class TestOnAGpu:
    @pytest.mark.parametrize("net", NETS, ids=str)
    @pytest.mark.parametrize("B", BATCHES)
    def test_it_is_autograd_in_float64(self, B: int, net: tuple[int, int]):
        check_accuracy(draw(B, *net).to("cuda"))

    def test_twenty_runs_give_the_same_bits(self):
        inputs = draw(100, 4, 10).to("cuda")
        first = torch.ops.daj.instance_net_hypergrad(*inputs.all())
        for _ in range(20):
            again = torch.ops.daj.instance_net_hypergrad(*inputs.all())
            assert all(torch.equal(a, b) for a, b in zip(again, first, strict=True))

    def test_it_runs_in_a_cuda_graph(self):
        inputs = draw(20, 2, 10).to("cuda")
        _, wanted = torch.ops.daj.instance_net_hypergrad(*inputs.all())
        later = torch.zeros_like(inputs.derivative)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            _, got = torch.ops.daj.instance_net_hypergrad(inputs.features, inputs.parameters, later, 10)
        later.copy_(inputs.derivative)
        graph.replay()
        assert torch.equal(got, wanted)

    def test_the_net_accumulates_there(self):
        for gradients in _gradients_of_both(InstanceNet().to("cuda"), "cuda"):
            for got, wanted in zip(*gradients, strict=True):
                torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("x", [-1e30, -1e4, 0.0, 1e4, 1e30])
def test_squareplus_has_a_derivative_everywhere(x: float):
    raw = torch.tensor(x, requires_grad=True)
    (slope,) = torch.autograd.grad(squareplus(raw), raw)
    assert 0 <= slope <= 1
