"""The judge's prompt: a template file, filled in one pass.

One pass matters: candidate programs are full of braces, so a second pass (or `str.format`) would
read placeholders into the code it has just inserted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from daj_lightning.records import Candidate, DajError, Problem, TestCase

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_REQUIRED = {"statement", "candidates"}
_KNOWN = _REQUIRED | {"title", "platform", "difficulty", "starter_code", "public_tests", "num_candidates"}
_NUM_PUBLIC_TESTS_SHOWN = 3


class PromptTemplate:
    """A judge prompt with placeholders such as `{statement}` (paper, Appendix D; own wording).

    Args:
        template: path of a text file, or the name of a shipped one: "five_steps" or "compact".
    Raises:
        DajError: no such file, an unknown placeholder, or a required one missing.
    """

    def __init__(self, template: str = "five_steps") -> None:
        self.text = _read(template)
        named = set(_PLACEHOLDER.findall(self.text))
        if named - _KNOWN or _REQUIRED - named:
            raise DajError(
                f"prompt template {template!r} names {sorted(named)}; it needs {sorted(_REQUIRED)} and may "
                f"use {sorted(_KNOWN - _REQUIRED)}. Rename the placeholder, or remove its braces."
            )

    def fill(self, problem: Problem, candidates: Sequence[Candidate]) -> str:
        """The chat message that asks which of `candidates` (two or more, in this order) passes."""
        if len(candidates) < 2:
            raise DajError(f"{problem.problem_id}: got {len(candidates)} candidate; a comparison needs two or more.")
        values = {
            "title": problem.title,
            "platform": problem.platform,
            "difficulty": problem.difficulty,
            "statement": problem.statement.strip(),
            "starter_code": problem.starter_code.strip(),
            "public_tests": "\n\n".join(map(_show_test, problem.public_tests[:_NUM_PUBLIC_TESTS_SHOWN])),
            "candidates": "\n".join(_show_candidate(k, c) for k, c in enumerate(candidates, start=1)),
            "num_candidates": str(len(candidates)),
        }
        return _PLACEHOLDER.sub(lambda match: values[match.group(1)], self.text)


def _read(template: str) -> str:
    path = Path(template)
    if path.is_file():
        return path.read_text(encoding="utf-8")
    shipped = resources.files("daj_lightning.judge") / "templates"
    names = sorted(entry.name.removesuffix(".txt") for entry in shipped.iterdir())
    if template not in names:
        raise DajError(f"prompt template {template!r} is neither a file nor one of the shipped {names}.")
    return (shipped / f"{template}.txt").read_text(encoding="utf-8")


def _show_test(test: TestCase) -> str:
    return f"Input:\n{test.input.strip()}\nOutput:\n{test.output.strip()}"


def _show_candidate(index: int, candidate: Candidate) -> str:
    if not candidate.code.strip():
        raise DajError(
            f"candidate {candidate.candidate_id!r} of {candidate.problem_id} has no code. "
            f"Remove it from the candidates file, or store the program under 'code'."
        )
    return f"--- Solution {index} ---\n```python\n{candidate.code.strip()}\n```"
