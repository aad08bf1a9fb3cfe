"""BigCodeBench's calibration, and the number of tests that a task has."""

from __future__ import annotations

import unittest
from typing import Any

import pytest

from daj_lightning.execution.bigcodebench import calibrated, count_tests
from daj_lightning.records import DajError, UnitTests

TASK = UnitTests(source="", entry_point="task_func", code_prompt="import math\ndef task_func(x):")


@pytest.mark.parametrize(
    "candidate",
    [
        "def task_func(x):\n    return math.floor(x)",  # without the imports that the task gives
        "import math\ndef task_func(x):\n    return math.floor(x)",
        "    return math.floor(x)",  # goes on with the body
    ],
)
def test_a_calibrated_candidate_has_the_tasks_imports_and_signature(candidate: str) -> None:
    names: dict[str, Any] = {}
    exec(calibrated(TASK, candidate), names)
    assert names["task_func"](2.5) == 2


def test_calibration_is_the_official_text() -> None:
    assert calibrated(TASK, "x = 1") == "import math\ndef task_func(x):\n    pass\nx = 1"


TESTS = """\
import unittest
class Shared(unittest.TestCase):
    def test_shared(self): ...
    def test_again(self): ...
class Other(unittest.TestCase):
    def test_other(self): ...
class TestCases(Shared):
    def setUp(self): ...
    def helper_test(self): ...
    def test_again(self): ...
    def test_own(self): ...
    def test_own(self): ...
"""


def test_tests_are_counted_as_the_loader_finds_them() -> None:
    names: dict[str, Any] = {}
    exec(TESTS, names)
    assert count_tests(TESTS) == unittest.TestLoader().loadTestsFromTestCase(names["TestCases"]).countTestCases() == 3


def test_a_module_without_the_class_has_no_tests() -> None:
    assert count_tests("class Tests:\n    def test_a(self): ...") == 0


def test_tests_that_do_not_parse_are_an_error() -> None:
    for source in ("class TestCases(", "\0"):
        with pytest.raises(DajError, match="do not parse"):
            count_tests(source)
