"""DAJ_KERNELS chooses the implementation, and the report says which one and why."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path

import pytest
import torch

import called
from daj_lightning.kernels import dispatch, grad_bank_combine, grad_bank_dot, kernel_report
from daj_lightning.kernels.dispatch import OPS
from daj_lightning.records import DajError

BANK, VECTOR, WEIGHTS = torch.ones(2, 3), torch.ones(3), torch.ones(2)


def ops_called(bank: torch.Tensor = BANK) -> set[str]:
    return called.ops_called(lambda: (grad_bank_dot(bank, VECTOR), grad_bank_combine(bank, WEIGHTS)))


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
    assert {use.op for use in on_cpu if use.implementation == "torch"} == {"fused_linear_logprob"}
    assert all("built with" in use.reason for use in on_cpu if use.implementation == "ext")


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


@pytest.fixture
def never_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process that has not looked for the extension yet, and will find none."""
    monkeypatch.setattr(dispatch, "__file__", str(tmp_path / "dispatch.py"))
    monkeypatch.setattr(dispatch, "extension", functools.cache(dispatch.extension.__wrapped__))


@pytest.mark.usefixtures("never_built")
def test_a_missing_extension_is_told_once_in_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DAJ_KERNELS", "auto")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert not {name for name in ops_called() | ops_called() if name.startswith("daj::")}
    (message,) = (str(warning.message) for warning in told)
    assert "plain torch runs in place of its kernels" in message
    assert "never built here. Build it: pip install -e ." in message
    assert "\n" not in message


@pytest.mark.usefixtures("never_built")
@pytest.mark.parametrize("mode", ["torch", "ext"])
def test_who_chose_an_implementation_is_not_warned(monkeypatch: pytest.MonkeyPatch, mode: str):
    monkeypatch.setenv("DAJ_KERNELS", mode)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if mode == "torch":
            ops_called()
        else:
            with pytest.raises(DajError, match="no extension: it was never built here"):
                ops_called()


@pytest.mark.usefixtures("ext")
def test_a_library_of_other_sources_is_named_and_not_used(monkeypatch: pytest.MonkeyPatch):
    """As after `git pull` without a build: it lacks an operator that the Python side knows."""
    monkeypatch.setenv("DAJ_KERNELS", "torch")  # no warning
    monkeypatch.setitem(OPS, "new_op", ("not_built_yet",))
    found = dispatch.extension.__wrapped__()
    assert found.library is None
    assert found.reason == "it was built from other sources, without not_built_yet. Build it again: pip install -e ."
