"""What the documents say exists, exists."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from daj_lightning import kernels

ROOT = Path(__file__).parents[1]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
README = (ROOT / "README.md").read_text()


def file_map() -> list[str]:
    block = ARCHITECTURE.split("## File map")[1].split("```")[1]
    return [line.split()[0] for line in block.strip().splitlines()]


def test_every_path_of_the_file_map_exists() -> None:
    assert [path for path in file_map() if not (ROOT / path).exists()] == []


def test_every_module_is_on_the_file_map_or_in_a_mapped_folder() -> None:
    mapped = file_map()
    modules = [
        p.relative_to(ROOT).as_posix() for p in (ROOT / "daj_lightning").rglob("*.py") if p.name != "__init__.py"
    ]
    assert [m for m in modules if not any(m == path or m.startswith(path + "/") for path in mapped)] == []


def test_every_tool_and_source_is_on_the_file_map() -> None:
    tools = [p.relative_to(ROOT).as_posix() for p in (ROOT / "tools").iterdir() if p.suffix in (".py", ".sh")]
    assert set(tools) <= set(file_map())


def test_every_link_and_path_in_the_readme_exists() -> None:
    linked = re.findall(r"\]\(([\w./-]+)\)", README) + re.findall(r"`((?:configs|docs|tools|csrc)/[\w./-]+)`", README)
    assert linked
    assert [path for path in linked if not (ROOT / path).exists()] == []


def test_every_command_in_the_readme_is_a_command() -> None:
    from daj_lightning.__main__ import COMMANDS, LIGHTNING

    named = set(re.findall(r"daj_lightning (\w+) ", README))
    assert named
    assert named <= {*COMMANDS, *LIGHTNING}


def test_make_targets_in_the_readme_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"quickstart", "test"} <= set(re.findall(r"make ([\w-]+)", README)) <= targets


def test_the_kernels_that_the_readme_shows_run_as_shown() -> None:
    (shown,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names = {name: getattr(kernels, name) for name in kernels.__all__} | {
        "hidden": torch.randn(6, 8),
        "lm_head": torch.nn.Linear(8, 11, bias=False).requires_grad_(False),
        "tokens": torch.arange(6),
        "offsets": torch.tensor([0, 2, 3, 5, 6]),
        "reference": torch.zeros(4),
    }
    exec(shown, names)
    assert names["logp"].shape == (6,)
    assert names["losses"].shape == (2,)
