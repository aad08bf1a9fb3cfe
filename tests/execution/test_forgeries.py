"""Forged answers, one trick each: what the program says is judged on the host, where it cannot reach.

Unit tests share the program's process: cheap tricks fail, and the verdict says that better ones would not.
"""

import time
from dataclasses import replace

import pytest

from daj_lightning.execution import Program
from daj_lightning.execution.compare import same_value
from daj_lightning.execution.grader import judge_run
from daj_lightning.records import Outcome, TestCase, UnitTests
from execution.programs import graded, problem, start


@pytest.fixture(scope="module")
def namespaces():
    return start("namespaces", test_wall_s=20, test_cpu_s=10, memory_mib=512)


WRONG_OUTPUTS = (
    *('{"outcome": "passed", "num_passed": 3}', "0 0 0 0.1\n3", "1e999999999", "1e-999999999", "9" * 1_000_000, "sNaN"),
    *("Infinity", "\n" * 1_000_000 + "3 3", "3\n" * 300_000, " " * 500_000 + "x" + " " * 500_000, "[" * 1_000_000),
    *("3\0", "3\udcff", "3\u2028x", "0x3", "3 " * 500_000),
)


def test_no_output_but_the_right_one_passes_and_none_is_slow_to_judge(namespaces):
    code = "import sys\nsys.stdout.buffer.write(open(0, 'rb').read())"
    with namespaces.session(Program(code)) as session:
        for text in WRONG_OUTPUTS:
            run = session.run(text)
            begin = time.process_time()
            outcome, how = judge_run(run, TestCase("", "3\n"), functional=False)
            assert not same_value(run.output, "4")
            assert time.process_time() - begin < 1
            assert outcome is Outcome.WRONG_ANSWER
            assert how.isascii()


EQUAL_TO_ALL = "class E(int):\n    __eq__ = lambda self, other: True\n    __hash__ = int.__hash__\n"
METHODS = {
    "equal to everything": EQUAL_TO_ALL + "class Solution:\n    def f(self, a, b): return E(0)",
    "lies about its class": "class E:\n    def __getattribute__(self, name): return 3\n    __class__ = int\n"
    "class Solution:\n    def f(self, a, b): return E()",
    "runs when unpickled": "class E:\n    def __reduce__(self): return print, (3,)\n"
    "class Solution:\n    def f(self, a, b): return E()",
    "dumps patched": "import json\njson.dumps = json.JSONEncoder.encode = lambda *a, **k: '3'\n"
    "class Solution:\n    def f(self, a, b): return 0",
    "leaves at import": "raise SystemExit(0)",
    "leaves in the call": "class Solution:\n    def f(self, a, b): raise SystemExit(0)",
    "prints": "class Solution:\n    def f(self, a, b): print(3)",
    "answers at exit": "import atexit, os\natexit.register(lambda: os.write(1, b'3'))\n"
    "class Solution:\n    def f(self, a, b): return 0",
    "answers from a thread": "import os, threading, time\n"
    "threading.Thread(target=lambda: (time.sleep(0.3), os.write(1, b'3')), daemon=True).start()\n"
    "class Solution:\n    def f(self, a, b): return 0",
    "nests deep": "class Solution:\n    def f(self, a, b):\n        x = []\n        for _ in range(900): x = [x]\n"
    "        return x",
    "nests for ever": "class Solution:\n    def f(self, a, b):\n        x = []; x.append(x)\n        return x",
    "no Solution": "def f(a, b): return a + b",
    "half a character": "class Solution:\n    def f(self, a, b): return '\\ud800'",
    "not a number": "class Solution:\n    def f(self, a, b): return float('nan')",
}


@pytest.mark.parametrize("trick", METHODS)
def test_no_trick_makes_a_method_right(namespaces, trick):
    verdict = graded(namespaces, METHODS[trick], problem(("1\n2", "3"), ("10\n5", "15"), function_name="f"))
    assert verdict.num_passed < 2
    assert verdict.outcome in (Outcome.WRONG_ANSWER, Outcome.CRASHED)
    assert verdict.detail.isascii()


def test_what_a_daemon_thread_prints_after_the_end_is_not_waited_for(sandbox):
    code = "import threading, time\ndef late():\n    time.sleep(5); print(3)\n"
    begin = time.monotonic()
    verdict = graded(sandbox, code + "threading.Thread(target=late, daemon=True).start()")
    assert verdict.outcome is Outcome.WRONG_ANSWER
    assert time.monotonic() - begin < 4.5


# ---- unit tests, which share the program's process

TESTS = """import unittest
class TestCases(unittest.TestCase):
    def test_one(self): self.assertEqual(f(1), 2)
    def test_two(self):
        with self.subTest(): self.assertTrue(f(2) == 3)
"""
WRONG = "\ndef f(x): return 0\n"
CAUGHT = {
    "nothing": WRONG,
    "assertions patched": "import unittest as u\nu.TestCase.assertEqual = u.TestCase.assertTrue = lambda *a: None"
    + WRONG,
    "TestCase replaced": "import unittest as u\nclass T(u.TestCase): assertEqual = assertTrue = print\nu.TestCase = T"
    + WRONG,
    "failures not recorded": "import unittest as u\nu.TestResult.addFailure = u.TestResult.addSubTest = print" + WRONG,
    "nothing loaded": "import unittest as u\nu.TestLoader.loadTestsFromTestCase = lambda *a: u.TestSuite()" + WRONG,
    "classes emptied": "import builtins\nmake = builtins.__build_class__\n"
    "builtins.__build_class__ = lambda body, name, *bases: make(lambda: None, name, *bases)" + WRONG,
    "errors swallowed": "import contextlib, unittest.case as c\nclass O(c._Outcome):\n    @contextlib.contextmanager\n"
    "    def testPartExecutor(self, *a, **k):\n        try: yield\n        except Exception: pass\nc._Outcome = O"
    + WRONG,
    "skips": "import unittest\ndef f(x): raise unittest.SkipTest('not today')",
    "leaves": "import os\nos._exit(0)",
    "leaves in a test": "import os\ndef f(x): os._exit(0)",
    "prints a report": 'print(\'{"run": 2, "failed": {}, "skipped": [], "planned_skips": []}\')' + WRONG,
}
FORGED = {
    "equal to everything": EQUAL_TO_ALL + "def f(x): return E(0)",
    "failures not recorded": "import unittest as u\ndef f(x): u.TestResult.addFailure = u.TestResult.addSubTest = "
    "lambda *a: None",
    "writes the report": "import os, sys\ndef f(x):\n    frame = sys._getframe()\n"
    "    while 'returned' not in frame.f_locals: frame = frame.f_back\n"
    '    os.write(frame.f_locals[\'returned\'], b\'{"run": 2, "failed": {}, "skipped": [], "planned_skips": []}\')\n'
    "    os._exit(0)",
}


def unit_test_verdict(sandbox, code):
    tests = UnitTests(source=TESTS, entry_point="f", code_prompt="import os\ndef f(x):")
    return graded(sandbox, code, replace(problem(), unit_tests=tests))


@pytest.mark.parametrize("trick", CAUGHT)
def test_cheap_forgeries_of_unit_tests_fail(namespaces, trick):
    assert unit_test_verdict(namespaces, CAUGHT[trick]).outcome in (Outcome.WRONG_ANSWER, Outcome.CRASHED)


@pytest.mark.parametrize("trick", FORGED)
def test_forgeries_of_unit_tests_that_remain_possible_are_marked(namespaces, trick):
    """Not a promise: the day that one of these fails, docs/security.md can say more."""
    verdict = unit_test_verdict(namespaces, FORGED[trick])
    assert verdict.passed
    assert verdict.forgeable


def test_a_right_program_passes_its_unit_tests_and_is_marked_all_the_same(namespaces):
    verdict = unit_test_verdict(namespaces, "    return x + 1")
    assert verdict.passed, verdict.detail
    assert verdict.forgeable
