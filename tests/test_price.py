"""What the hypergradient costs in memory: the bank, and at most 5 % besides."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

TOOL = Path(__file__).parents[1] / "tools" / "bench_step.py"


def bench_step() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_step", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_step"] = module
    spec.loader.exec_module(module)
    return module


def test_a_bilevel_step_needs_the_bank_and_five_percent_at_most() -> None:
    """Peak bytes of live tensors, against a step with the same passes but without bank and hypergradient."""
    bench = bench_step()
    judge = bench.make_judge("tiny", "cpu", 8)
    inner, meta = bench.make_batch(8, 128, 4096, "cpu"), bench.make_batch(4, 128, 4096, "cpu")
    step = bench.Step(judge, inner, meta, "float32")
    step.run("bi-level")  # Adam's moments exist from here on
    without, with_it = (bench.peak_bytes(lambda v=v: step.run(v), "cpu") for v in ("inner+meta", "bi-level"))
    bank = 8 * step.flat.size * 4
    resident = sum(p.numel() * p.element_size() for p in judge.parameters())
    assert with_it > without + bank // 2, "the bank is seen"
    assert with_it <= 1.05 * (without + resident) - resident + bank
