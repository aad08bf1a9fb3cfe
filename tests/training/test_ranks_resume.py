"""A checkpoint of one process goes on in two, under another strategy, and back; on as many, to the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import Prepared
from daj_lightning.serving.export import export_judge
from daj_lightning.training import Level, is_whole
from ranks import distance, left, start
from tiny import toy_data, toy_module

CASES = ("unrolled", "trace")
"""Engines that remember: rows of two windows, tangents of the whole run."""
WINDOWS = 12
"""Of 16 that an epoch has."""


def runs(name: str, **more: Any) -> list[dict[str, Any]]:
    return [
        {"name": f"{name} {case}", "case": case, "windows": WINDOWS, "every": 3}
        | {key: str(value).format(case=case) for key, value in more.items()}
        for case in CASES
    ]


@pytest.fixture(scope="module")
def chain(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unbroken in one process and in two; 1 -> 2 after window 3, -> fsdp2 after 6, -> 1 after 9; 2 -> 2 after 6."""
    out = tmp_path_factory.mktemp("chain")
    at = "window-{:06d}.ckpt"
    start(prepared, "single", runs("one"), out)
    two = runs("to two", ckpt=out / "one {case}" / at.format(3))
    two += runs("two") + runs("two again", ckpt=out / "two {case}" / at.format(6))
    start(prepared, "ddp", two, out)
    start(prepared, "fsdp2", runs("to fsdp2", ckpt=out / "to two {case}" / at.format(6)), out)
    return start(prepared, "single", runs("to one", ckpt=out / "to fsdp2 {case}" / at.format(9)), out)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("name", "first"), [("to two", 3), ("to fsdp2", 6), ("to one", 9)])
def test_on_other_processes_a_run_goes_on_as_if_unbroken(chain: Path, case: str, name: str, first: int) -> None:
    whole, rest = left(chain, f"one {case}"), left(chain, f"{name} {case}")
    assert rest["ids"] == whole["ids"][first:], "the same samples in the same order"
    for part in ("losses", "weights"):
        assert distance(rest[part], whole[part][first:]) <= 1e-12, part
    for part in ("adapters", "alphas"):
        assert distance(rest[part], whole[part]) <= 1e-12, part


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_on_as_many_processes_a_run_goes_on_to_the_same_bits(chain: Path, case: str) -> None:
    whole, rest = left(chain, f"two {case}"), left(chain, f"two again {case}")
    assert torch.equal(rest["losses"], whole["losses"][6:])
    for part in ("adapters", "alphas"):
        assert torch.equal(rest[part], whole[part]), part


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_checkpoint_is_one_whole_file_with_the_same_tensors_whoever_wrote_it(chain: Path, case: str) -> None:
    """But for what an engine holds in parts: as many as there were processes."""
    paths = [chain / f"{name} {case}" / "window-000012.ckpt" for name in ("one", "to two", "to fsdp2", "to one")]
    assert all(is_whole(path) for path in paths)
    written = [torch.load(path, weights_only=True) for path in paths]
    assert [{len(parts) for parts in w["daj"].pop("engine_parts")} for w in written] == [{1}, {2}, {2}, {1}]
    first, *others = (dict(shapes_in({k: w[k] for k in ("state_dict", "optimizer_states", "daj")})) for w in written)
    assert len(first) > 50
    assert all(other == first for other in others)


def shapes_in(tree: Any, path: str = "") -> list[tuple[str, Any]]:
    """Of every tensor, by its place."""
    if isinstance(tree, torch.Tensor):
        return [(path, (tree.dtype, tuple(tree.shape)))]
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, (list, tuple)) else ()
    return [found for key, value in items for found in shapes_in(value, f"{path}/{key}")]


@pytest.mark.slow
def test_export_of_an_fsdp2_run_is_the_judge_that_one_process_exports(
    prepared: Prepared, chain: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    data = toy_data(prepared.root, prepared.base)
    for name in ("one", "to fsdp2"):
        module = toy_module(prepared.base, inner=Level(lr=1e-3))
        export_judge(module, data, str(chain / f"{name} trace" / "window-000012.ckpt"), tmp_path / name)
    whole, sharded = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "to fsdp2"))
    assert whole.keys() == sharded.keys()
    for name, value in whole.items():
        torch.testing.assert_close(sharded[name], value, rtol=1e-6, atol=1e-9)
