"""The import ladder of docs/architecture.md: each room imports only rooms above it."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import daj_lightning

ROOT = Path(daj_lightning.__file__).parent
LADDER = (
    "records",
    "kernels",
    "execution",
    "rollout",
    "judge",
    "data",
    "objectives",
    "bilevel",
    "training",
    "planning",
    "evaluation",
    "selftrain",
    "serving",
    "audit",
    "cli",
    "commands",
    "__main__",
)


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [name.split(".") for name in names if name.split(".")[0] == "daj_lightning"]
    return {part[1] for part in parts if len(part) > 1}


FILES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


def test_every_file_stands_in_a_room_of_the_ladder() -> None:
    assert {room(path) for path in FILES} == set(LADDER)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_rooms_above_it(path: Path) -> None:
    allowed = set(LADDER[: LADDER.index(room(path)) + 1])
    assert imported_rooms(path) <= allowed


NOT_IMPORTED = {"daj_lightning.__main__", "daj_lightning.kernels.libdaj"} | {
    f"daj_lightning.execution.{script}" for script in ("worker", "run_official", "run_unittest")
}
"""Scripts, and a library without an init function."""


def test_every_module_can_be_imported() -> None:
    for module in pkgutil.walk_packages([str(ROOT)], "daj_lightning."):
        if module.name not in NOT_IMPORTED:
            importlib.import_module(module.name)
