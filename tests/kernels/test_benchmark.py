"""tools/bench_kernels.py: what it times is right, what is wrong it names, and what it writes can be read."""

from __future__ import annotations

import csv
import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return importlib.import_module("bench_kernels")


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_small_preset_times_every_op_and_writes_csv_and_plots(bench: ModuleType, tmp_path: Path):
    assert bench.main(["--rounds", "1", "--csv", str(tmp_path / "k.csv"), "--plots", str(tmp_path)]) == 0
    lines = read(tmp_path / "k.csv")
    # Liger's columns: its scripts read them
    assert list(lines[0]) == [
        "kernel_name", "kernel_provider", "kernel_operation_mode", "metric_name", "metric_unit", "x_name", "x_label",
        "x_value", "y_value_50", "y_value_20", "y_value_80", "extra_benchmark_config_str", "gpu_name", "timestamp",
        "version",
    ]  # fmt: skip
    ours = {
        (line["kernel_name"], line["kernel_operation_mode"])
        for line in lines
        if line["kernel_provider"].startswith("ours, torch") and float(line["y_value_50"]) > 0
    }
    assert ours == {(op, mode) for op, family in bench.OPS.items() for mode in family.MODES}
    assert {path.stem for path in tmp_path.glob("*.png")} == set(bench.OPS)


def test_an_op_of_ours_that_is_wrong_is_not_timed_and_fails_the_run(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import kernel_bank

    right = kernel_bank.grad_bank_dot
    monkeypatch.setattr(kernel_bank, "grad_bank_dot", lambda bank, vector: right(bank, vector) * 1.001)
    assert bench.main(["--ops", "grad_bank", "--rounds", "1", "--csv", str(tmp_path / "k.csv")]) == 1
    dots = {line["kernel_provider"] for line in read(tmp_path / "k.csv") if line["kernel_operation_mode"] == "dot"}
    assert dots == {"loop over tensors", "flat mv, float32", "flat mv, bfloat16"}
    assert (
        "| ours, torch | P 10,000 K 4, float32 | dot | not timed: wrong, result over 1e-05" in capsys.readouterr().out
    )


@pytest.mark.parametrize("mistake", ["wrong", "crash"])
def test_a_peer_that_is_wrong_or_crashes_is_named_and_does_not_fail_the_run(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mistake: str
):
    import kernel_losses

    def eager(*args: object) -> tuple[Tensor, Tensor]:
        if mistake == "crash":
            raise RuntimeError("no such kernel")
        loss, gradient = right(*args)
        return loss, 2 * gradient if len(args) == 2 else gradient  # right where the truth comes from

    right = kernel_losses.Problem._eager
    monkeypatch.setattr(kernel_losses.Problem, "_eager", eager)
    if mistake == "crash":
        monkeypatch.setattr(kernel_losses.Problem, "_errors", lambda *_: {})
    assert bench.main(["--ops", "segment_loss", "--rounds", "1"]) == 0
    reason = "raises RuntimeError: no such kernel" if mistake == "crash" else "wrong, gradient over 0.0001"
    assert f"| eager | R 8 T 16, float32 | dpo | not timed: {reason}" in capsys.readouterr().out


def test_memory_is_what_a_call_takes_beyond_its_inputs(bench: ModuleType):
    """A bfloat16 bank of 2 x 2**27 turned into float32: 1 GiB. The vector turned into bfloat16: 256 MiB.

    A first call also touches 4 to 22 MiB of code, on CPUs with bfloat16 products.
    """
    peaks = bench.peaks_elsewhere(bench.Group("grad_bank", {"P": 1 << 27, "K": 2}, "bfloat16", ("dot",)))
    assert peaks.of("dot", "flat mv, float32") == pytest.approx(1024, rel=0.0625)
    assert peaks.of("dot", "flat mv, bfloat16") == pytest.approx(256, rel=0.125)


def test_float64_agrees_with_autograd_through_all_logits(bench: ModuleType):
    """The truth leaves the target out of its sums; autograd does not."""
    import kernel_logprob

    problem = kernel_logprob.Problem.draw(
        bench.Spec("fused_linear_logprob", "", (("N", 9), ("H", 8), ("V", 11)), "float32", "cpu", False)
    )
    hidden = problem.hidden.double().requires_grad_()
    logp = (hidden @ problem.weight.double().T).log_softmax(dim=1)[torch.arange(9), problem.targets]
    (u,) = torch.autograd.grad(logp.sum(), hidden)
    for got, wanted in zip(problem.truth, (logp.detach(), u), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)


def test_each_vocabulary_has_its_own_figure(bench: ModuleType):
    from kernel_report import Row, cpu_verdict
    from kernel_timing import Timing

    def row(provider: str, V: int, ms: float) -> Row:
        spec = bench.Spec("fused_linear_logprob", "full", (("N", 8), ("H", 4), ("V", V)), "bfloat16", "cpu", False)
        return Row(spec, provider, {}, 1.0, 1.0, timing=Timing(ms, ms, ms))

    rows = [row("eager", 10, 4), row("ours, torch", 10, 1), row("eager", 1000, 4), row("ours, torch", 1000, 2)]
    figures = [line for line in cpu_verdict(rows) if "bfloat16, V" in line]
    assert figures == [
        "PASS forward and backward, bfloat16, V 10, over eager: 0.25x, wanted <= 0.35x",
        "FAIL forward and backward, bfloat16, V 1,000, over eager: 0.5x, wanted <= 0.35x",
    ]


def test_figures_pass_fail_or_are_owed(bench: ModuleType):
    from kernel_report import Row, cpu_verdict
    from kernel_timing import Timing

    def row(provider: str, ms: float) -> Row:
        spec = bench.Spec("grad_bank", "dot", (("P", 8), ("K", 2)), "bfloat16", "cpu", False)
        return Row(spec, provider, {}, 1.0, 1.0, timing=Timing(ms, ms, ms))

    rows = [row("loop over tensors", 10), row("flat mv, bfloat16", 2), row("ours, torch", 5), row("ours, ext", 1)]
    *owed, loop, flat = cpu_verdict(rows)
    assert loop == "PASS grad_bank_dot, bfloat16, over loop over tensors: 0.1x, wanted <= 0.2x"
    assert flat == "FAIL grad_bank_dot, bfloat16, over flat mv, bfloat16: 0.5x, wanted <= 0.4x"
    assert all(line.startswith("OWED") for line in owed)
