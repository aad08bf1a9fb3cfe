"""Every weight starts where the paper says, stays non-negative, and can come back from near zero."""

from __future__ import annotations

import pytest
import torch

from daj_lightning.bilevel import (
    DomainWeights,
    HierarchicalWeights,
    InstanceNet,
    InstanceTable,
    LazyAdam,
    Reweighter,
    TrainingSet,
    Uniform,
)
from daj_lightning.records import DajError
from tiny import make_batch

TRAINING_SET = TrainingSet(domains=("easy", "medium", "hard"), num_samples=8)


def built(reweighter: Reweighter) -> Reweighter:
    reweighter.build(TRAINING_SET)
    return reweighter


@pytest.mark.parametrize(
    "reweighter", [Uniform(), DomainWeights(), InstanceTable(), HierarchicalWeights()], ids=lambda r: type(r).__name__
)
def test_every_weight_starts_at_one(reweighter: Reweighter) -> None:
    """A domain's alpha starts at 1/D and its map multiplies by D; a table's alpha starts at 1."""
    weights = built(reweighter)(make_batch(6), torch.rand(6))
    torch.testing.assert_close(weights, torch.ones(6))


def test_domain_alphas_start_at_one_over_d_and_always_sum_to_one() -> None:
    domain = DomainWeights()
    domain.build(TRAINING_SET)
    torch.testing.assert_close(domain.alphas(), torch.full((3,), 1 / 3))
    with torch.no_grad():
        domain.raw.copy_(torch.tensor([-9.0, 0.5, 4.0]))
    assert float(domain.alphas().detach().sum()) == pytest.approx(1)
    assert domain.named_weights().keys() == {"easy", "medium", "hard"}


def test_a_window_of_one_domain_still_tells_that_domains_weight() -> None:
    """Normalised over the domains, not over the window: a lone domain is not forced back to 1."""
    domain = DomainWeights()
    domain.build(TRAINING_SET)
    with torch.no_grad():
        domain.raw.copy_(torch.tensor([2.0, 0.0, 0.0]))
    batch = make_batch(4)
    batch.domains.fill_(0)
    assert (domain(batch, torch.zeros(4)) > 1.3).all()


def test_the_net_starts_near_one_and_depends_on_the_loss_alone() -> None:
    torch.manual_seed(0)
    net = InstanceNet()
    losses = torch.linspace(0, 2, 6)
    weights = net(make_batch(6), losses)
    assert ((weights > 0.5) & (weights < 2)).all()
    assert weights.unique().numel() == 6
    torch.testing.assert_close(net(make_batch(6, seed=7), losses), weights)


def test_the_net_sees_the_loss_detached() -> None:
    losses = torch.rand(4, requires_grad=True)
    InstanceNet()(make_batch(4), losses).sum().backward()
    assert losses.grad is None


@pytest.mark.parametrize(
    "reweighter", [DomainWeights(), InstanceTable(), InstanceNet()], ids=lambda r: type(r).__name__
)
def test_weights_stay_non_negative_and_return_from_zero(reweighter: Reweighter) -> None:
    """400 steps that push sample 0 down, then 400 that push it up: it is not trapped."""
    torch.manual_seed(0)
    reweighter = built(reweighter)
    batch, losses = make_batch(3), torch.tensor([0.2, 0.7, 1.5])
    optimizer = LazyAdam(reweighter.parameters(), lr=0.1)

    def push(direction: torch.Tensor) -> torch.Tensor:
        for _ in range(400):
            optimizer.zero_grad()
            reweighter(batch, losses).backward(gradient=direction)
            optimizer.step()
        return reweighter(batch, losses).detach()

    low = push(torch.tensor([1.0, 0.0, 0.0]))
    assert (low >= 0).all()
    assert low[0] < 0.1
    assert push(torch.tensor([-1.0, 0.0, 0.0]))[0] > 1


@pytest.mark.parametrize(
    "reweighter",
    [Uniform(), DomainWeights(), InstanceTable(), InstanceNet(), HierarchicalWeights()],
    ids=lambda r: type(r).__name__,
)
def test_the_weight_of_a_sample_depends_on_that_sample_alone(reweighter: Reweighter) -> None:
    """So that an engine without a bank can weight a sample before the window is complete."""
    torch.manual_seed(0)
    reweighter = built(reweighter)
    with torch.no_grad():
        for parameter in reweighter.parameters():
            parameter += torch.randn_like(parameter)
    batch, losses = make_batch(6), torch.rand(6)
    if isinstance(reweighter, HierarchicalWeights):
        for _ in range(100):
            reweighter.measure(batch, torch.arange(6.0), torch.arange(6.0))
        assert (reweighter.reliability(batch.sample_ids) > 0.5).all()
    together = reweighter(batch, losses)
    alone = [reweighter(sample, losses[i : i + 1]) for i, sample in enumerate(batch.micro_batches())]
    torch.testing.assert_close(together, torch.cat(alone))


class TestHierarchicalWeights:
    """make_batch(6): samples 0 to 5 of domains 0, 1, 2, 0, 1, 2."""

    def moved(self, first: list[float], second: list[float], looks: int) -> tuple[HierarchicalWeights, torch.Tensor]:
        """Residuals of 3 everywhere, after `looks` outer steps with these halves; and the weights."""
        reweighter = HierarchicalWeights()
        reweighter.build(TRAINING_SET)
        with torch.no_grad():
            reweighter.residual.raw.weight.fill_(8 / 3)  # squareplus(8/3) = 3
        batch = make_batch(6)
        for _ in range(looks):
            reweighter.measure(batch, torch.tensor(first), torch.tensor(second))
        return reweighter, reweighter(batch, torch.zeros(6)).detach()

    def test_unmeasured_residuals_do_not_count(self) -> None:
        torch.testing.assert_close(self.moved([], [], looks=0)[1], torch.ones(6))

    def test_residuals_count_nearly_in_full_where_the_halves_keep_agreeing(self) -> None:
        _, weights = self.moved([1, 2, 3, -1, 5, 6], [2, 4, 6, -2, 10, 12], looks=100)
        torch.testing.assert_close(weights, torch.full((6,), 3.0), rtol=1e-2, atol=0)

    def test_one_window_of_agreement_proves_nothing(self) -> None:
        """Three degrees of freedom: two standard errors are more than any correlation."""
        torch.testing.assert_close(self.moved([1, 2, 3, -1, 5, 6], [1, 2, 3, -1, 5, 6], looks=1)[1], torch.ones(6))

    def test_residuals_do_not_count_where_the_halves_oppose_each_other(self) -> None:
        _, weights = self.moved([1, 2, 3, -1, 5, 6], [-1, -2, -3, 1, -5, -6], looks=100)
        torch.testing.assert_close(weights, torch.ones(6))

    def test_agreement_between_domains_says_nothing_of_samples_within(self) -> None:
        """Both halves see the same large difference between domains, and opposite ones within."""
        _, weights = self.moved([101, 1, 0, 99, 0, 1], [99, 0, 1, 101, 1, 0], looks=100)
        torch.testing.assert_close(weights, torch.ones(6))

    def test_repeated_looks_raise_the_reliability_as_spearman_and_brown_say(self) -> None:
        """Within domains the halves are (1, 0, 0, -1, 0, 0) and the same turned by 60 degrees: correlation 0.5."""
        first, second = [1.0, 0, 0, -1, 0, 0], [0.5, 3**0.5 / 2, 0, -0.5, -(3**0.5) / 2, 0]
        for looks in (50, 100, 400):
            reweighter, weights = self.moved(first, second, looks)
            r = 0.5 - 2 / (3 * min(looks, 100)) ** 0.5  # three degrees of freedom a window, a memory of 100
            halves = 2 * (looks + 1)
            rho = halves * r / (1 + (halves - 1) * r)
            torch.testing.assert_close(reweighter.reliability(torch.tensor([0])), torch.tensor([rho]))
            torch.testing.assert_close(weights, torch.full((6,), 1 + 2 * rho))

    def test_noise_alone_is_hardly_trusted(self) -> None:
        """1,000 windows of 16 samples whose halves have nothing in common."""
        generator = torch.Generator().manual_seed(0)
        reweighter = HierarchicalWeights()
        reweighter.build(TrainingSet(("a", "b", "c", "d"), 300))
        seen = []
        for step in range(1000):
            batch = make_batch(16, seed=step)
            object.__setattr__(batch, "sample_ids", torch.randint(300, (16,), generator=generator))
            object.__setattr__(batch, "domains", torch.randint(4, (16,), generator=generator))
            reweighter.measure(batch, *torch.randn(2, 16, generator=generator))
            seen.append(float(reweighter.correlation()))
        assert sum(r > 0 for r in seen) < 0.1 * len(seen)

    def test_a_real_correlation_is_found(self) -> None:
        generator = torch.Generator().manual_seed(0)
        reweighter = HierarchicalWeights()
        reweighter.build(TrainingSet(("a", "b", "c", "d"), 300))
        for step in range(300):
            batch = make_batch(16, seed=step)
            object.__setattr__(batch, "domains", torch.randint(4, (16,), generator=generator))
            truth, *noise = torch.randn(3, 16, generator=generator)
            reweighter.measure(batch, truth + noise[0], truth + noise[1])
        assert float(reweighter.correlation()) == pytest.approx(0.5 - 2 / 1200**0.5, abs=0.06)

    def test_a_window_without_a_domain_twice_is_no_look(self) -> None:
        reweighter = HierarchicalWeights()
        reweighter.build(TRAINING_SET)
        reweighter.measure(make_batch(3), torch.rand(3), torch.rand(3))
        assert (float(reweighter.steps), float(reweighter.looks.sum())) == (0, 0)

    def test_both_parts_learn_from_one_backward(self) -> None:
        reweighter, _ = self.moved([1, 2, 3, -1, 5, 6], [1, 2, 3, -1, 5, 6], looks=100)
        reweighter(make_batch(6), torch.zeros(6)).backward(gradient=torch.tensor([1.0, 0, 0, 0, 0, 0]))
        assert reweighter.domain.raw.grad is not None
        assert float(reweighter.domain.raw.grad[0]) > 0.1
        rows = reweighter.residual.raw.weight.grad
        assert rows is not None
        assert float(rows.to_dense()[0]) > 0.1
        assert float(rows.to_dense()[1:].abs().max()) == 0


class TestLazyAdam:
    def test_it_equals_adam_when_every_row_is_seen(self) -> None:
        torch.manual_seed(0)
        start = torch.randn(5, 2)
        ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
        lazy, adam = LazyAdam([ours], lr=0.1), torch.optim.Adam([theirs], lr=0.1)
        for _ in range(10):
            ours.grad = torch.randn(5, 2)
            theirs.grad = ours.grad.clone()
            lazy.step()
            adam.step()
        torch.testing.assert_close(ours, theirs)

    def test_a_row_not_seen_does_not_move_and_counts_for_itself(self) -> None:
        """Row 1 is seen once, late: its step is Adam's first step, not a shared 5th one."""
        table = torch.nn.Embedding(3, 1, sparse=True)
        torch.nn.init.zeros_(table.weight)
        optimizer = LazyAdam(table.parameters(), lr=0.1)
        for row in (0, 0, 0, 0, 1):
            optimizer.zero_grad()
            table(torch.tensor([row])).sum().backward()
            optimizer.step()
        moved = table.weight.detach().squeeze()
        assert moved[0] == pytest.approx(-0.4, abs=1e-4)
        assert moved[1] == pytest.approx(-0.1, abs=1e-4)
        assert moved[2] == 0

    def test_a_sample_drawn_twice_in_a_window_adds_its_gradients_and_counts_once(self) -> None:
        table = torch.nn.Embedding(2, 1, sparse=True)
        optimizer = LazyAdam(table.parameters(), lr=0.1)
        table(torch.tensor([1, 1])).sum().backward()
        optimizer.step()
        state = optimizer.state[table.weight]
        assert state["step"].tolist() == [0, 1]
        assert float(state["exp_avg"][1]) == pytest.approx(0.2)

    @pytest.mark.gpu
    def test_its_counts_follow_the_parameter_to_the_device(self) -> None:
        """torch leaves a state called "step" where the checkpoint had it."""
        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
        start = torch.nn.Parameter(torch.zeros(3, 1))
        start.grad = torch.ones(3, 1)
        before = LazyAdam([start], lr=0.1)
        before.step()
        moved = torch.nn.Parameter(start.detach().cuda())
        after = LazyAdam([moved], lr=0.1)
        after.load_state_dict(before.state_dict())
        for parameter, optimizer in ((start, before), (moved, after)):
            parameter.grad = torch.ones_like(parameter)
            optimizer.step()
        torch.testing.assert_close(moved.cpu(), start)

    def test_a_rate_of_zero_is_refused(self) -> None:
        with pytest.raises(DajError, match="lr > 0"):
            LazyAdam([torch.nn.Parameter(torch.zeros(1))], lr=0.0)


def test_accumulate_leaves_what_is_frozen_and_takes_a_derivative_of_another_dtype() -> None:
    net = InstanceNet()
    frozen, *others = net.parameters()
    frozen.requires_grad_(False)
    net.accumulate(make_batch(4), torch.rand(4), torch.ones(4, dtype=torch.float64))
    assert frozen.grad is None
    assert all(parameter.grad is not None and parameter.grad.dtype is torch.float32 for parameter in others)


class TestNormalizedNet:
    """make_batch(6): samples 0 to 5."""

    LOSSES = torch.tensor([0.1, 0.4, 0.9, 1.6, 2.5, 0.2], dtype=torch.float64)

    def net(self, *features: str, seen: bool = True) -> InstanceNet:
        torch.manual_seed(1)
        net = InstanceNet(features=features or ("loss",), normalize=True).double()  # type: ignore[arg-type]
        net.build(TRAINING_SET)
        if seen:
            net.observe(make_batch(6), self.LOSSES)
        return net

    def test_weights_are_one_on_average_over_what_was_seen_and_before_that_one(self) -> None:
        losses = self.LOSSES
        assert self.net(seen=False)(make_batch(6), losses).tolist() == [1.0] * 6
        weights = self.net()(make_batch(6), losses)
        assert float(weights.detach().mean()) == pytest.approx(1)
        assert float(weights.detach().std()) > 0.01

    def test_neither_the_scale_nor_the_level_of_the_losses_counts(self) -> None:
        other = self.net(seen=False)
        other.observe(make_batch(6), 7 * self.LOSSES + 3)
        torch.testing.assert_close(other(make_batch(6), 7 * self.LOSSES + 3), self.net()(make_batch(6), self.LOSSES))

    @pytest.mark.parametrize("rounding", [0.0, 1e-7])
    def test_a_feature_that_is_the_same_for_all_says_nothing(self, rounding: float) -> None:
        """A judge that has not moved has a loss of ln 2 on every pair, up to a bit."""
        net = self.net(seen=False)
        net.observe(make_batch(6), 0.6931472 + rounding * torch.eye(6, dtype=torch.float64)[0])
        assert net(make_batch(6), self.LOSSES).tolist() == [1.0] * 6

    def test_a_sample_that_is_twice_in_a_window_is_seen_once_with_the_mean(self) -> None:
        net, batch = InstanceNet(features=("mean_loss",)), make_batch(4)
        net.build(TRAINING_SET)
        batch.sample_ids.copy_(torch.tensor([5, 2, 5, 1]))
        net.observe(batch, torch.tensor([1.0, 2.0, 5.0, 4.0]))
        assert net.seen[[5, 2, 1], 0].tolist() == [3.0, 2.0, 4.0]
        assert net.looks.tolist() == [0, 1, 1, 0, 0, 1, 0, 0]

    @pytest.mark.parametrize("seen", [True, False])
    def test_accumulate_is_the_derivative_of_forward(self, seen: bool) -> None:
        net, derivative = self.net(seen=seen), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
        batch, losses = make_batch(3), torch.tensor([0.3, 1.1, 0.2], dtype=torch.float64)
        net.accumulate(batch, losses, derivative)
        mine = [parameter.grad for parameter in net.parameters()]
        if seen:
            wanted = torch.autograd.grad((net(batch, losses) * derivative).sum(), list(net.parameters()))
            assert max(float(gradient.abs().max()) for gradient in wanted) > 1e-3
        else:
            wanted = tuple(torch.zeros_like(parameter) for parameter in net.parameters())
        torch.testing.assert_close(mine, list(wanted))

    def test_the_mean_loss_is_over_a_samples_windows(self) -> None:
        net = InstanceNet(features=("mean_loss",))
        net.build(TRAINING_SET)
        few, rest = make_batch(6).part(0, 2), make_batch(6).part(2, 6)
        net.observe(few, torch.tensor([1.0, 2.0]))
        net.observe(few, torch.tensor([3.0, 2.0]))
        plain = InstanceNet()
        plain.load_state_dict(net.state_dict(), strict=False)
        torch.testing.assert_close(net(few, torch.tensor([5.0, 2.0])), plain(few, torch.tensor([3.0, 2.0])))
        losses = torch.rand(4)
        torch.testing.assert_close(net(rest, losses), plain(rest, losses))  # the first time, its loss

    def test_memory_is_part_of_a_checkpoint_where_there_is_one(self) -> None:
        net, other = self.net("loss", "mean_loss"), self.net("loss", "mean_loss", seen=False)
        other.load_state_dict(net.state_dict())
        torch.testing.assert_close(other(make_batch(6), self.LOSSES), net(make_batch(6), self.LOSSES))
        assert not [name for name in InstanceNet().state_dict() if "net." not in name]
