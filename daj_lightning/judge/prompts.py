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
_REQUIRED = {"statement"}
_EITHER = {"candidates", "programs"}
_REFERENCE = "reference"
_KNOWN = _REQUIRED | _EITHER | {
    "title", "platform", "difficulty", "starter_code", "public_tests", "num_candidates", _REFERENCE
}  # fmt: skip
_NUM_PUBLIC_TESTS_SHOWN = 3
_FENCE = "```python"
"""Opens a program's block."""
NO_PLACE = (
    "the prompt template has no {reference}, so that a reference cannot be shown. Put {reference} where the "
    "program should stand (before {candidates}, say), or set data.reference_support to 0."
)


class PromptTemplate:
    """A judge prompt with placeholders such as `{statement}` (paper, Appendix D; own wording).

    `{candidates}` shows each under a heading and in a fenced block; `{programs}` as "1: code", for programs of a line.
    `{reference}` is where a program that is known to pass may be shown (JudgeLM's reference support). It
    brings its own heading and blank line, so that a prompt without one has no trace of the placeholder.

    Args:
        template: path of a text file, or the name of a shipped one: "five_steps", "compact" or "bare".
    Raises:
        DajError: no such file, an unknown placeholder, or a required one missing.
    """

    def __init__(self, template: str = "five_steps") -> None:
        self.text = _read(template)
        named = set(_PLACEHOLDER.findall(self.text))
        if named - _KNOWN or _REQUIRED - named or len(_EITHER & named) != 1:
            raise DajError(
                f"prompt template {template!r} names {sorted(named)}; it needs statement and either candidates or "
                f"programs, and may use {sorted(_KNOWN - _REQUIRED - _EITHER)}. Rename the placeholder, or remove its "
                f"braces."
            )

    @property
    def takes_reference(self) -> bool:
        return f"{{{_REFERENCE}}}" in self.text

    def fill(self, problem: Problem, candidates: Sequence[Candidate], reference: Candidate | None = None) -> str:
        """The chat message that asks which of `candidates` (two or more, in this order) passes.

        Args:
            reference: a program that passes every test, shown beside the question; None mostly.
        Raises:
            DajError: fewer than two candidates, one without code, or a reference for which the template has no place.
        """
        if len(candidates) < 2:
            raise DajError(f"{problem.problem_id}: got {len(candidates)} candidate; a comparison needs two or more.")
        if reference is not None and not self.takes_reference:
            raise DajError(NO_PLACE)
        values = {
            "title": problem.title,
            "platform": problem.platform,
            "difficulty": problem.difficulty,
            "statement": problem.statement.strip(),
            "starter_code": problem.starter_code.strip(),
            "public_tests": "\n\n".join(map(_show_test, problem.public_tests[:_NUM_PUBLIC_TESTS_SHOWN])),
            "candidates": "\n".join(_show_candidate(k, c) for k, c in enumerate(candidates, start=1)),
            "programs": "\n".join(f"{k}: {_code(c)}" for k, c in enumerate(candidates, start=1)),
            "num_candidates": str(len(candidates)),
            _REFERENCE: "" if reference is None else _show_reference(reference),
        }
        return _PLACEHOLDER.sub(lambda match: values[match.group(1)], self.text)


def before_candidates(prompt: str, first: str) -> str:
    """What a prompt says before its candidates, without a heading over them; empty where it shows no such program.

    Args:
        first: code of the candidate shown first.
    """
    code = first.strip()
    places = [prompt.find(shown + code) for shown in (f"{_heading(1)}\n{_FENCE}\n", "1: ")]
    start = next((place for place in places if place >= 0), 0)
    return re.sub(r"\n#[^\n]*\s*\Z", "", prompt[:start]).strip()


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


def _show_reference(reference: Candidate) -> str:
    return (
        "# Reference\nThis program passes every hidden test. It is none of the submissions, and a right submission "
        f"may do without its method.\n```python\n{_code(reference)}\n```\n\n"
    )


def _show_candidate(index: int, candidate: Candidate) -> str:
    return f"{_heading(index)}\n{_FENCE}\n{_code(candidate)}\n```"


def _heading(index: int) -> str:
    return f"--- Solution {index} ---"


def _code(candidate: Candidate) -> str:
    if not candidate.code.strip():
        raise DajError(
            f"candidate {candidate.candidate_id!r} of {candidate.problem_id} has no code. "
            f"Remove it from the candidates file, or store the program under 'code'."
        )
    return candidate.code.strip()
