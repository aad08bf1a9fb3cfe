"""How a candidate of BigCodeBench runs: with its unit tests, in one process.

Part of worker.py's script, in the program's own process. Rules: bigcodebench/eval/__init__.py @ 47eff25
(one module of candidate and tests, its TestCases loaded and run, standard input unreadable, output
swallowed). Tests that share a process with what they test can be deceived, and no verdict of them is
proof; two cheap ways are closed: what the candidate changed in unittest while it was imported is put
back, and a test that the candidate skips has not passed.
"""

import builtins
import io
import json
import os
import sys
import time
import unittest
from types import ModuleType

from isolation import raise_loopback
from run_process import answer

GUARDED = (
    unittest,
    unittest.case,
    builtins,
    unittest.TestCase,
    unittest.TestResult,
    unittest.TestLoader,
    unittest.TestSuite,
    unittest.suite.BaseTestSuite,
)
REASON_CHARS = 300
Pristine = dict[type | ModuleType, dict[str, object]]


def prepare(job: dict) -> Pristine:
    if job["mode"] == "namespaces":
        raise_loopback()
    os.environ["TZ"] = "UTC"
    time.tzset()
    builtins.exit = builtins.quit = None  # type: ignore[assignment]
    return {kind: dict(vars(kind)) for kind in GUARDED}


def run(job: dict, pristine: Pristine, program: ModuleType, test_input: bytes, returned: int) -> None:
    """The tests are the input, so that the worker knows them no sooner than the candidate's process."""
    module = ModuleType("__test__")
    module.__dict__.update(__file__="__test__.py", __builtins__=builtins, sys=sys, os=os, environ=os.environ)
    sys.modules["__test__"] = module
    stdout, stderr = sys.stdout, sys.stderr
    sys.stdout, sys.stderr, sys.stdin = Swallow(), Swallow(), Swallow()
    try:
        exec(compile(job["code"], "__test__.py", "exec", dont_inherit=True), module.__dict__)
        restore(pristine)
        exec(compile(test_input, "__test__.py", "exec", dont_inherit=True), module.__dict__)
        report = run_tests(module.TestCases)
    finally:
        sys.stdout, sys.stderr = stdout, stderr
    answer(returned, json.dumps(report).encode())


def run_tests(cases: type) -> dict:
    """Names of the tests by what became of them; for failures the last line of the trace."""
    suite = unittest.TestLoader().loadTestsFromTestCase(cases)  # type: ignore[type-var]
    names = [name_of(test) for test in suite]
    result = unittest.TestResult()
    suite.run(result)
    failed = {name_of(test): trace.strip().rpartition("\n")[2][:REASON_CHARS] for test, trace in result.failures}
    failed |= {name_of(test): trace.strip().rpartition("\n")[2][:REASON_CHARS] for test, trace in result.errors}
    skipped = [name_of(test) for test, _ in result.skipped]
    planned = [
        name
        for name in skipped
        if getattr(cases, "__unittest_skip__", False) or getattr(getattr(cases, name, None), "__unittest_skip__", False)
    ]
    return {"tests": names, "run": result.testsRun, "failed": failed, "skipped": skipped, "planned_skips": planned}


def name_of(test: object) -> str:
    method = getattr(test, "test_case", test)  # a failing part of a test is the test's failure
    return method.id().split(".")[-1]  # type: ignore[attr-defined]


def restore(pristine: Pristine) -> None:
    for kind, attributes in pristine.items():
        if isinstance(kind, type):  # a module gains honest names: unittest.mock, once it is imported
            for name in set(vars(kind)) - set(attributes):
                delattr(kind, name)
        for name, value in attributes.items():
            if vars(kind).get(name) is not value:
                setattr(kind, name, value)


class Swallow(io.StringIO):
    """Takes what is printed; reading it is an error, as officially."""

    def read(self, *_: object) -> str:
        raise OSError("no standard input")

    readline = readlines = read  # type: ignore[assignment]
