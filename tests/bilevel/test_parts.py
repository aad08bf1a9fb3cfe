"""A window whose samples lie in two processes: the parts of a credit add up, and are dealt out again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import Qwen3Config

import inner as by_hand
from daj_lightning.bilevel import (
    BankEngine,
    FiniteDifferenceEngine,
    HypergradientEngine,
    JvpEngine,
    TraceEngine,
    Window,
)
from daj_lightning.judge import Judge

D = 3
SHARES = (slice(0, 2), slice(2, 4))
ENGINES = {
    "bank": BankEngine,
    "identity": lambda: BankEngine("identity"),
    "unrolled": lambda: BankEngine(unroll_windows=2),
    "trace": TraceEngine,
    "jvp": JvpEngine,
    "differences": FiniteDifferenceEngine,
}
MAX_NORM = 1e-3
"""Clips."""


def share_of(window: Window, own: slice, engine: HypergradientEngine) -> Window:
    """As the process with these samples would have it."""
    rows = window.rows[own]
    if engine.credits_domains:
        rows = rows.new_zeros(D, rows.size(1)).index_add(0, window.batch.domains[own], rows)
    return replace(window, rows=rows, own=own)


def start(make: Callable[[], HypergradientEngine], judge: Judge, own: slice) -> HypergradientEngine:
    engine = make()
    engine.start(by_hand.setting(judge, num_domains=D)._replace(own=own))
    return engine


def two_windows(judge: Judge) -> list[Window]:
    adam = torch.optim.Adam(judge.trained_parameters(), lr=1e-3)
    by_hand.warm(judge, adam, 3, 1e-3)
    return [by_hand.take_inner_step(judge, adam, by_hand.batches(seed=s)[0], by_hand.ALPHA, MAX_NORM) for s in (3, 5)]


def derivatives(engine: HypergradientEngine, q: Tensor) -> Tensor:
    return torch.cat([credit.derivative for credit in engine(q)])


@pytest.mark.parametrize("name", ENGINES)
def test_the_parts_of_two_processes_add_up_to_the_credit_of_one(
    tiny_config: Qwen3Config, true_float64: None, name: str
) -> None:
    judge = by_hand.double_judge(tiny_config)
    windows, q = two_windows(judge), by_hand.meta_gradient(judge, by_hand.batches()[1])
    found = []
    for own in (slice(0, 4), *SHARES):
        engine = start(ENGINES[name], judge, own)
        for window in windows:
            engine.observe(share_of(window, own, engine))
        found.append(derivatives(engine, q))
    whole, first, second = found
    assert whole.abs().min() > 0
    assert not torch.equal(first, whole)
    torch.testing.assert_close(first + second, whole, rtol=1e-10, atol=1e-12 * float(whole.abs().max()))


@pytest.mark.parametrize("name", ["unrolled", "trace"])
@pytest.mark.parametrize("before", [1, 2])
def test_what_an_engine_remembers_goes_from_one_process_to_two_and_back(
    tiny_config: Qwen3Config, true_float64: None, name: str, before: int
) -> None:
    """After the first window it comes back in the other number of processes, and sees the second there."""
    judge = by_hand.double_judge(tiny_config)
    (early, late), q = two_windows(judge), by_hand.meta_gradient(judge, by_hand.batches()[1])
    together = {1: [slice(0, 4)], 2: list(SHARES)}
    olds = [start(ENGINES[name], judge, own) for own in together[before]]
    for old, own in zip(olds, together[before], strict=True):
        old.observe(share_of(early, own, old))
    parts = list(zip(*(old.parts() for old in olds), strict=True))
    total = torch.zeros(())
    for own in together[3 - before]:
        engine = start(ENGINES[name], judge, own)
        engine.load_state(olds[0].state(), engine.regroup(parts))
        engine.observe(share_of(late, own, engine))
        total = total + derivatives(engine, q)
    unbroken = start(ENGINES[name], judge, slice(0, 4))
    for window in (early, late):
        unbroken.observe(share_of(window, slice(0, 4), unbroken))
    wanted = derivatives(unbroken, q)
    torch.testing.assert_close(total, wanted, rtol=1e-10, atol=1e-12 * float(wanted.abs().max()))
