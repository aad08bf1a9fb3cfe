"""DAJ_KERNELS chooses the implementation, and the report says which one and why."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from daj_lightning.kernels import grad_bank_combine, grad_bank_dot, kernel_report
from daj_lightning.kernels.dispatch import OPS
from daj_lightning.records import DajError

BANK, VECTOR, WEIGHTS = torch.ones(2, 3), torch.ones(3), torch.ones(2)


class OpsCalled(TorchDispatchMode):
    """Names of the ops that reach torch's dispatcher, e.g. "aten::mv"."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


def ops_called(bank: torch.Tensor = BANK) -> set[str]:
    with OpsCalled() as called:
        grad_bank_dot(bank, VECTOR)
        grad_bank_combine(bank, WEIGHTS)
    return called.names


def test_torch_forces_the_reference(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DAJ_KERNELS", "torch")
    assert not {name for name in ops_called() if name.startswith("daj::")}
    assert {(use.implementation, use.reason) for use in kernel_report()} == {("torch", "DAJ_KERNELS=torch")}


@pytest.mark.usefixtures("ext")
@pytest.mark.parametrize("mode", ["auto", "ext"])
def test_the_extension_runs_where_it_was_built(monkeypatch: pytest.MonkeyPatch, mode: str):
    monkeypatch.setenv("DAJ_KERNELS", mode)
    assert ops_called() == {"daj::grad_bank_dot", "daj::grad_bank_combine"}
    on_cpu = [use for use in kernel_report() if use.device == "cpu"]
    assert [use.op for use in on_cpu] == list(OPS)
    on_cpu = [use for use in kernel_report() if use.device == "cpu" and use.op.startswith("grad_bank")]
    assert [use.op for use in on_cpu] == ["grad_bank_dot", "grad_bank_combine"]
    assert all(use.implementation == "ext" and "built with" in use.reason for use in on_cpu)


def test_float64_falls_to_the_reference(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DAJ_KERNELS", "auto")
    assert not {name for name in ops_called(BANK.double()) if name.startswith("daj::")}


def test_ext_refuses_what_it_cannot_serve(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DAJ_KERNELS", "ext")
    with pytest.raises(DajError, match="DAJ_KERNELS=ext cannot serve this call: float64 is computed by plain torch"):
        grad_bank_dot(BANK.double(), VECTOR)


def test_a_misspelt_mode_lists_the_modes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DAJ_KERNELS", "cuda")
    with pytest.raises(DajError, match=r"DAJ_KERNELS=cuda: unknown\. Set it to auto, torch or ext"):
        grad_bank_dot(BANK, VECTOR)
