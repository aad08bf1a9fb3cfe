"""Small problems, programs to run on them, and what is left of them."""

import datetime
from pathlib import Path

import pytest

from daj_lightning.execution import Limits, Program, Sandbox, SandboxError, grade
from daj_lightning.records import Candidate, Problem, TestCase, Verdict


def start(mode: str, **limits: float) -> Sandbox:
    try:
        return Sandbox(Limits(**limits), mode=mode)
    except SandboxError as error:
        if mode == "unsafe-local":
            raise
        pytest.skip(f"not on this host: {mode}: {error}")


def survivors(word: str) -> list[str]:
    """Processes with this word in their command line; zombies have none."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:  # it has ended meanwhile
            continue
    return found


def problem(*tests: tuple[str, str], function_name: str | None = None) -> Problem:
    return Problem(
        problem_id="p",
        title="",
        statement="",
        platform="leetcode" if function_name else "atcoder",
        difficulty="easy",
        release_date=datetime.date(2025, 2, 1),
        starter_code="",
        function_name=function_name,
        public_tests=tuple(TestCase(*test) for test in tests[:1]),
        hidden_tests=tuple(TestCase(*test) for test in tests[1:]),
    )


def candidate(code: str, name: str = "c") -> Candidate:
    return Candidate(candidate_id=name, problem_id="p", policy="", code=code)


ADD = problem(("1 2\n", "3\n"), ("10 5\n", "15\n"), ("2 2\n", "4\n"))


def graded(sandbox: Sandbox, code: str, of: Problem = ADD) -> Verdict:
    return grade(of, candidate(code), sandbox)


def output_of(sandbox: Sandbox, code: str, test_input: str = "") -> str:
    """What a stdin program prints, for claims about what it can see."""
    with sandbox.session(Program(code)) as session:
        run = session.run(test_input)
    assert run.exit_code == 0, run.errors
    return run.output
