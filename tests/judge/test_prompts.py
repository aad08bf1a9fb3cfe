"""The template is filled in one pass, and mistakes in it are named."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from daj_lightning.judge import PromptTemplate
from daj_lightning.judge.prompts import before_candidates
from daj_lightning.records import Candidate, DajError, Problem, TestCase

PROBLEM = Problem(
    "p1", "Sum", "Print {n} and {title}.", "atcoder", "easy", date(2024, 1, 1), "", None, (TestCase("1 2", "3"),), ()
)
BRACES = Candidate("c1", "p1", "weak", "print('{statement} {candidates}', {'a': {}})")
OTHER = Candidate("c2", "p1", "weak", "print(f'{x}')")


@pytest.mark.parametrize("name", ["five_steps", "compact"])
def test_braces_in_statements_and_programs_stay_what_they_are(name: str) -> None:
    prompt = PromptTemplate(name).fill(PROBLEM, [BRACES, OTHER])
    assert prompt.count(BRACES.code) == 1
    assert prompt.count(OTHER.code) == 1
    assert prompt.count(PROBLEM.statement) == 1
    assert prompt.index(BRACES.code) < prompt.index(OTHER.code)


@pytest.mark.parametrize("name", ["five_steps", "compact", "bare"])
def test_before_the_candidates_stands_what_was_asked(name: str) -> None:
    """Whatever the template wraps programs in is gone; white space around a program is not in the prompt."""
    first = Candidate("c0", "p1", "weak", "\nprint(1)\n")
    told = before_candidates(PromptTemplate(name).fill(PROBLEM, [first, OTHER]), first.code)
    assert told.endswith("1 2\nOutput:\n3" if name == "five_steps" else PROBLEM.statement)
    assert before_candidates("a prompt of others", first.code) == ""


def test_the_five_steps_name_what_the_paper_names() -> None:
    prompt = PromptTemplate().fill(PROBLEM, [BRACES, OTHER])
    for k in range(1, 6):
        assert f"Step {k}," in prompt
    assert "hidden" in prompt
    assert "1 2\nOutput:\n3" in prompt
    assert prompt.rstrip().endswith("<selection>INDEX</selection>")
    assert "from 1 to 2" in prompt


def test_a_users_file_replaces_the_template(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("{statement} | {candidates}")
    assert PromptTemplate(str(path)).fill(PROBLEM, [BRACES, OTHER]).startswith("Print {n} and {title}. | ")


@pytest.mark.parametrize("text", ["{statement} {candidats}", "{statement}"])
def test_a_template_with_a_wrong_or_missing_placeholder_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_text(text)
    with pytest.raises(DajError, match="candidates"):
        PromptTemplate(str(path))


def test_a_candidate_without_code_is_named() -> None:
    with pytest.raises(DajError, match="'c9' of p1 has no code"):
        PromptTemplate().fill(PROBLEM, [BRACES, Candidate("c9", "p1", "weak", " \n")])


def test_a_template_that_does_not_exist_is_answered_with_the_shipped_names() -> None:
    with pytest.raises(DajError, match=r"compact.*five_steps"):
        PromptTemplate("six_steps")


REFERENCE = Candidate("c3", "p1", "weak", "print({reference}, '{candidates}')")


@pytest.mark.parametrize("name", ["five_steps", "compact"])
def test_a_reference_stands_before_the_submissions_and_leaves_no_trace_when_absent(name: str) -> None:
    template = PromptTemplate(name)
    bare, supported = template.fill(PROBLEM, [BRACES, OTHER]), template.fill(PROBLEM, [BRACES, OTHER], REFERENCE)
    start = supported.index("# Reference")
    end = start + supported[start:].index("```\n\n") + len("```\n\n")
    assert REFERENCE.code in supported[start:end]
    assert supported[:start] + supported[end:] == bare
    assert end <= supported.index("--- Solution 1 ---")
    assert "reference" not in bare.lower().replace(BRACES.code, "")


def test_a_template_without_a_place_shows_no_reference(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("{statement} {candidates}")
    template = PromptTemplate(str(path))
    assert not template.takes_reference
    assert PromptTemplate().takes_reference
    with pytest.raises(DajError, match=r"has no \{reference\}"):
        template.fill(PROBLEM, [BRACES, OTHER], REFERENCE)


def test_a_reference_without_code_is_named() -> None:
    with pytest.raises(DajError, match="'c9' of p1 has no code"):
        PromptTemplate().fill(PROBLEM, [BRACES, OTHER], Candidate("c9", "p1", "weak", ""))
