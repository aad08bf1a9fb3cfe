"""The build: what it leaves behind, also when it fails; CUDA compiles without a GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("pybind11", "ninja", "setuptools")),
    reason="building needs setuptools, ninja and pybind11: pip install -e .[dev]",
)
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on PATH")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what a build reads, with a library in it that an earlier build left."""
    return copy_tree(tmp_path)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with the extension built, its CUDA half too where there is an nvcc."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("no C++ compiler on PATH")
    tree = copy_tree(tmp_path_factory.mktemp("built"))
    done = build(tree, DAJ_CUDA="1" if shutil.which("nvcc") else "0", DAJ_REQUIRE_EXT="1")
    assert done.returncode == 0, done.stderr
    return tree


def copy_tree(to: Path) -> Path:
    for name in ("setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, to)
    (to / "README.md").touch()
    shutil.copytree(ROOT / "csrc", to / "csrc")
    ignore = shutil.ignore_patterns("*.so", "_build.json", "__pycache__", "bank")
    shutil.copytree(ROOT / "daj_lightning", to / "daj_lightning", ignore=ignore)
    (to / "daj_lightning" / "kernels" / "libdaj.so").write_text("stale")
    return to


def build(tree: Path, python: str = sys.executable, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("DAJ_")}
    return subprocess.run(
        [python, "setup.py", "build_ext", "--inplace"],
        cwd=tree,
        env={**clean, **env},
        capture_output=True,
        text=True,
        check=False,
    )


def record(tree: Path) -> dict[str, object]:
    return json.loads((tree / "daj_lightning" / "kernels" / "_build.json").read_text())


def libraries(tree: Path) -> list[str]:
    return sorted(path.name.split(".")[0] for path in (tree / "daj_lightning" / "kernels").glob("*.so"))


def test_a_failed_build_leaves_no_library_and_says_why(tree: Path):
    assert build(tree, CXX="false").returncode == 0
    assert libraries(tree) == []
    assert record(tree)["built"] is False
    assert "false -MMD" in str(record(tree)["reason"])


def test_without_the_extension_the_package_runs_and_reports_the_reason(tree: Path):
    build(tree, CXX="false")
    code = (
        "import torch; from daj_lightning.kernels import grad_bank_dot, kernel_report;"
        "print(grad_bank_dot(torch.ones(1, 3), torch.ones(3)).item(), *kernel_report(), sep='\\n')"
    )
    env = {**os.environ, "PYTHONPATH": str(tree), "DAJ_KERNELS": "auto"}
    shown = subprocess.run([sys.executable, "-c", code], cwd=tree, env=env, capture_output=True, text=True, check=True)
    first, report = shown.stdout.split("\n", 1)
    assert first == "3.0"
    assert "no extension: its build failed" in report


def test_an_environment_without_torch_installs_pure_python_and_says_what_is_missing(tree: Path, tmp_path: Path):
    """As pip's isolated build: its own tools are in reach, torch is not."""
    venv.create(tmp_path / "venv", with_pip=False)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("setuptools", "_distutils_hack", "pybind11", "ninja"):
        package = Path(str(importlib.util.find_spec(name).origin)).parent
        (tools / name).symlink_to(package)
    assert build(tree, str(tmp_path / "venv" / "bin" / "python"), PYTHONPATH=str(tools)).returncode == 0
    assert libraries(tree) == []
    assert "no torch in" in str(record(tree)["reason"])
    assert "Install torch there, then this package again." in str(record(tree)["reason"])


def test_a_required_extension_turns_a_failed_build_into_an_error(tree: Path):
    failed = build(tree, CXX="false", DAJ_REQUIRE_EXT="1")
    assert failed.returncode != 0
    assert "DAJ_REQUIRE_EXT=1, and the extension was not built" in failed.stderr


def test_the_extension_can_be_left_out(tree: Path):
    assert build(tree, DAJ_BUILD_EXT="0").returncode == 0
    assert libraries(tree) == []
    assert record(tree)["reason"] == "DAJ_BUILD_EXT=0 at installation."


def test_the_ops_library_depends_on_the_stable_abi_alone(built: Path):
    """No at:: or c10:: symbol ties it to one torch, no Py symbol to one Python."""
    assert libraries(built) == ["_C", "libdaj"]
    library = built / "daj_lightning" / "kernels" / "libdaj.so"
    nm = ["nm", "-DC", "--undefined-only", str(library)]
    lines = subprocess.run(nm, capture_output=True, text=True, check=True).stdout.splitlines()
    names = [line.split(maxsplit=1)[1] for line in lines]
    assert [name for name in names if name.startswith(("at::", "c10::", "torch::", "Py", "_Py"))] == []
    assert any(name.startswith("aoti_torch_") for name in names)


@needs_nvcc
def test_the_cuda_half_builds_and_loads_without_a_gpu(built: Path):
    assert record(built)["cuda_archs"] == "sm_80,sm_90"
    library = built / "daj_lightning" / "kernels" / "libdaj.so"
    code = (
        f"import torch; torch.ops.load_library({str(library)!r});"
        "print(torch._C._dispatch_has_kernel_for_dispatch_key('daj::grad_bank_dot', 'CUDA'))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "True"


@needs_nvcc
def test_no_cuda_kernel_spills_registers_or_keeps_a_stack_frame():
    gate = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "check_ptxas.py")], capture_output=True, text=True, check=False
    )
    assert gate.returncode == 0, gate.stdout + gate.stderr
