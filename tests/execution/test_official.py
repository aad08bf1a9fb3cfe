"""Where LiveCodeBench's own grader and a real process disagree, both are kept: rules "official" and "process"."""

import pytest

from daj_lightning.execution import grade
from daj_lightning.records import Outcome
from execution.programs import ADD, candidate, problem, start

SUM = "print(sum(map(int, input().split())))"
LOST_TO_A_THREAD = (
    "import threading, time\ndef work():\n    time.sleep(0.2)\n    " + SUM + "\nthreading.Thread(target=work).start()\n"
)


@pytest.fixture(scope="module")
def sandbox():
    return start("unsafe-local", test_wall_s=20)


def outcomes(sandbox, code, of=ADD):
    return tuple(grade(of, candidate(code), sandbox, rules=rules).outcome for rules in ("official", "process"))


def test_the_verdict_names_the_grader_and_its_commit(sandbox):
    assert grade(ADD, candidate(SUM), sandbox, rules="official").grader == "official@28fef95"
    assert grade(ADD, candidate(SUM), sandbox, rules="process").grader == "process"


@pytest.mark.parametrize(
    "code",
    [
        SUM,
        "import sys\nprint(sum(map(int, sys.stdin.read().split())))",
        "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))",
        "import sys\ninput = sys.stdin.readline\n" + SUM,
        SUM + "\nimport sys\nsys.exit(0)",
        f"def main():\n    {SUM}\nif __name__ == '__main__':\n    main()",
        f"import sys\nsys.setrecursionlimit(10**6)\ndef main():\n    {SUM}\nmain()",
        "from collections import *\nx = Counter(input().split())\nprint(sum(int(k) * n for k, n in x.items()))",
    ],
)
def test_ordinary_programs_pass_under_both(sandbox, code):
    assert outcomes(sandbox, code) == (Outcome.PASSED, Outcome.PASSED)


@pytest.mark.parametrize(
    ("code", "official"),
    [
        (LOST_TO_A_THREAD, Outcome.WRONG_ANSWER),
        (
            "import sys\nx = sys.stdin.readline()\nprint(sum(map(int, (x + sys.stdin.read()).split())))",
            Outcome.WRONG_ANSWER,
        ),
        ("import sys\nfor line in sys.stdin: print(sum(map(int, line.split())))", Outcome.CRASHED),
        ("import sys\nx = sum(map(int, input().split()))\nsys.stdout.buffer.write(b'%d' % x)", Outcome.CRASHED),
        ("import os\nos.write(1, b'%d' % sum(map(int, input().split())))", Outcome.WRONG_ANSWER),
        ("import atexit\natexit.register(lambda: " + SUM + ")", Outcome.WRONG_ANSWER),
        # its prelude's `from builtins import *` comes before it puts a stand-in in place of open
        ("print(sum(map(int, open(0).read().split())))", Outcome.WRONG_ANSWER),
        ("import resource\n" + SUM, Outcome.CRASHED),
        ("from __future__ import annotations\n" + SUM, Outcome.CRASHED),
        (f"if __name__ == '__main__':\n    {SUM}\nx = 1", Outcome.WRONG_ANSWER),
        ("x = 3\ndef f():\n    global x\n    x += 1\nf()\n" + SUM, Outcome.CRASHED),
    ],
)
def test_right_programs_that_only_a_real_process_passes(sandbox, code, official):
    assert outcomes(sandbox, code) == (official, Outcome.PASSED)


@pytest.mark.parametrize(
    ("body", "wanted", "official"),
    [
        ("a + b", "3", Outcome.PASSED),
        ("float(a + b)", "3", Outcome.PASSED),
        ("(a, b)", "[1, 2]", Outcome.PASSED),
        ("[(a, b)]", "[[1, 2]]", Outcome.WRONG_ANSWER),
        ("{a: b}", '{"1": 2}', Outcome.WRONG_ANSWER),
    ],
)
def test_a_value_counts_officially_if_python_calls_it_equal_to_the_expected_one(sandbox, body, wanted, official):
    of = problem(("1\n2", wanted), function_name="f")
    assert outcomes(sandbox, f"class Solution:\n    def f(self, a, b): return {body}", of) == (official, Outcome.PASSED)


def test_officially_a_method_may_stand_without_its_class(sandbox):
    of = problem(("1\n2", "3"), function_name="f")
    assert outcomes(sandbox, "def f(a, b): return a + b", of) == (Outcome.PASSED, Outcome.CRASHED)
