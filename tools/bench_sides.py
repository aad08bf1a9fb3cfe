"""An outer step of ours and one of Betty's, of one judge on the same samples: what tools/bench_bilevel.py compares.

Letters: K samples in a window, M meta samples, P adapter parameters.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

import daj_lightning.bilevel as bilevel
from daj_lightning.bilevel import BankEngine, FiniteDifferenceEngine, FlatView, HypergradientEngine, JvpEngine
from daj_lightning.records import JudgeBatch
from measure import FLOAT32, OBJECTIVE, K, Precision, Problem, Table

INSTALL_BETTY = "pip install --ignore-requires-python --no-deps betty-ml==0.2.1"
try:
    from betty.configs import Config, EngineConfig
    from betty.engine import Engine
    from betty.logging import get_logger
    from betty.problems import ImplicitProblem

    get_logger().setLevel(logging.WARNING)
    HAS_BETTY = True
except ImportError:
    HAS_BETTY, ImplicitProblem = False, object


class Ours:
    """An outer step as training/module.py takes it: all that this tool knows of our engines.

    Args:
        engine: None for the inner and meta passes alone.
        windows, metas: a meta batch after every window; default: one of each.
        size: samples in a micro-batch.
        packing: its rows laid end to end.
    """

    derivative: Tensor
    """d L_meta / d alpha of the last outer step."""

    def __init__(
        self,
        problem: Problem,
        engine: HypergradientEngine | None,
        precision: Precision = FLOAT32,
        windows: Sequence[JudgeBatch] = (),
        metas: Sequence[JudgeBatch] = (),
        size: int = 1,
        packing: bool = False,
    ) -> None:
        self.size = size
        self.windows, self.metas = windows or problem.windows[:1], metas or [problem.meta]
        self.judge, self.engine, self.table = problem.judge(precision), engine, Table(K * len(self.windows))
        self.flat = FlatView(self.judge.trained_parameters())
        self.inner, self.outer = problem.optimizer(self.flat.parameters), Adam(self.table.parameters(), lr=1e-4)
        if packing:
            self.judge.pack_rows()
        self.splitter = bilevel.PerSampleGradients(self.judge)
        loss_at = bilevel.RecomputedLoss(self.judge, OBJECTIVE).at
        setting = bilevel.Setting(self.flat, K, 1, loss_at, splitter=self.splitter)
        self.store = engine.start(setting) if engine else bilevel.GradientSum(self.flat)

    def run(self) -> None:
        self.outer.zero_grad()
        for window, meta in zip(self.windows, self.metas, strict=True):
            self.inner_step(window)
            q = self.meta_gradient(meta)
            for credit in self.engine(q) if self.engine else ():
                self.table(credit.batch).backward(gradient=credit.derivative / len(self.windows))
        if self.table.alpha.grad is not None:
            self.derivative = self.table.alpha.grad.clone()
            self.outer.step()

    def inner_step(self, batch: JudgeBatch) -> None:
        weights, losses, i = self.table(batch).detach(), [], 0
        for samples in batch.micro_batches(self.size):
            own = weights[i : i + len(samples)]
            self.store.open(i, samples)
            loss = OBJECTIVE(self.judge, samples)
            self.store.total(loss, own).backward()
            self.store.close(i, own)
            losses.append(loss.detach())
            i += len(samples)
        gradient = self.store.combine(batch, weights)
        if self.engine:
            phi = self.flat.gather(self.flat.parameters) if self.engine.goes_back else None
            update = bilevel.snapshot(self.inner, self.flat)
            self.engine.observe(bilevel.Window(batch, torch.cat(losses), self.store.rows, gradient, None, update, phi))
        self.flat.point_gradients_at(gradient)
        self.inner.step()

    def meta_gradient(self, batch: JudgeBatch) -> Tensor:
        q = self.flat.new_zeros()
        for samples in batch.micro_batches(self.size):
            if len(samples) == 1:
                self.flat.point_gradients_at(q)
            else:
                self.splitter.open(q[None], [0] * len(samples))
            (OBJECTIVE(self.judge, samples) / len(batch)).sum().backward()
            if len(samples) > 1:
                self.splitter.close()
        self.flat.release_gradients()
        return q


class Lower(ImplicitProblem):  # type: ignore[misc, valid-type]
    """Betty's lower level."""

    autocast: Any = nullcontext()  # Config(precision="bf16") is CUDA's autocast, which does nothing on a CPU

    def trainable_parameters(self) -> list[nn.Parameter]:
        return self.module.trained_parameters()  # Betty's default, all, fails on a frozen base

    def training_step(self, batch: tuple[JudgeBatch]) -> Tensor:
        with self.autocast:
            return (self.upper(batch[0]) * OBJECTIVE(self.module, batch[0])).mean()


class Upper(ImplicitProblem):  # type: ignore[misc, valid-type]
    """Betty's upper level."""

    def training_step(self, batch: tuple[JudgeBatch]) -> Tensor:
        with self.lower.autocast:
            return OBJECTIVE(self.lower.module, batch[0]).mean()

    def grad_callback(self) -> None:
        self.derivative = self.module.alpha.grad.clone()


class Betty:
    """An outer step of Betty with `type="darts"`, which the paper's group uses.

    Args:
        inner, metas: micro-batches of the outer step; an inner update takes `accumulation` of the inner ones, and
            one meta micro-batch follows it.
        radius: of the finite difference; Betty's default.
        packing: our judge's, which Betty does not know of.
    """

    derivative: Tensor

    def __init__(
        self,
        problem: Problem,
        inner: Sequence[JudgeBatch],
        metas: Sequence[JudgeBatch],
        accumulation: int,
        precision: Precision = FLOAT32,
        radius: float = 1e-2,
        packing: bool = False,
    ) -> None:
        self.judge, table = problem.judge(precision), Table(sum(len(batch) for batch in inner))
        if packing:
            self.judge.pack_rows()
        parameters = self.judge.trained_parameters()
        config = Config(type="darts", gradient_accumulation=accumulation, darts_alpha=radius)
        loader, meta_loader = ([(batch,) for batch in batches] for batches in (inner, metas))
        lower = Lower("lower", config, self.judge, problem.optimizer(parameters), train_data_loader=loader)
        if precision.autocast:
            lower.autocast = torch.autocast("cpu", torch.bfloat16)
        config, outer = Config(gradient_accumulation=len(metas)), Adam(table.parameters(), lr=1e-4)
        self.upper = Upper("upper", config, table, outer, train_data_loader=meta_loader)
        edges = {"u2l": {self.upper: [lower]}, "l2u": {lower: [self.upper]}}
        options = EngineConfig(train_iters=len(inner), strategy="cpu")
        self.engine = Engine([self.upper, lower], options, dependencies=edges)
        # The engine has made an optimizer of its own.
        lower.optimizer.load_state_dict(problem.optimizer(parameters).state_dict())

    def run(self) -> None:
        self.engine.run()
        self.derivative = self.upper.derivative


def betty_shipped(problem: Problem, precision: Precision) -> Betty:
    """Micro-batches of one sample, as in the paper; the finite difference sees the last one."""
    return Betty(problem, list(problem.windows[0].micro_batches()), [problem.meta], K, precision)


def betty_batched(problem: Problem, precision: Precision, radius: float = 1e-2, packing: bool = False) -> Betty:
    """One batch of K: the only way in which all its samples count."""
    return Betty(problem, problem.windows[:1], [problem.meta], 1, precision, radius, packing)


Method = Ours | Betty


def together(size: int, packing: bool = False) -> Callable[[Problem, Precision], Method]:
    return lambda problem, precision: Ours(problem, BankEngine(), precision, size=size, packing=packing)


METHODS: dict[str, Callable[[Problem, Precision], Method]] = {
    "ours, bank": lambda problem, precision: Ours(problem, BankEngine(), precision),
    "ours, jvp": lambda problem, precision: Ours(problem, JvpEngine(), precision),
    "ours, finite difference": lambda problem, precision: Ours(problem, FiniteDifferenceEngine(), precision),
}
SIZES = (2, 4, 16)
"""Samples in a micro-batch: between the bank's smallest memory and Betty's one batch."""
if HAS_BETTY:
    METHODS |= {"Betty as shipped": betty_shipped, "Betty batched": betty_batched}
