"""LiveCodeBench's comparison rules (lcb_runner/evaluation/testing_util.py @ 28fef95)."""

import time

import pytest

from daj_lightning.execution.compare import same_text, same_value


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        ("3\n", "3"),
        ("  1 2 \n 3\r\n\n", "1 2\n3"),
        ("1.0 2", "1 2.00"),  # equal as decimal numbers
        ("1e3", "1000"),
        ("", "\n"),
    ],
)
def test_text_passes_when_each_line_is_equal_as_text_or_as_decimals(actual, expected):
    assert same_text(actual, expected)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        ("3", "4"),
        ("1\n2", "1 2"),  # as many lines
        ("1 2 2", "1 2"),
        ("yes", "YES"),
        ("1 x", "1.0 x"),  # one word that is no number: the whole line counts as text
        ("a  b", "a b"),
        ("NaN", "nan"),
        ("sNaN", "1"),
        ("0.30000000000000004", "0.3"),
        ("", "0"),
        ("\udcff", "1"),
    ],
)
def test_text_fails_otherwise(actual, expected):
    assert not same_text(actual, expected)


def test_a_value_as_long_as_a_program_may_print_equals_itself():
    assert same_value("1" * 5000, "1" * 5000)
    assert not same_value("1" * 5000, "1" * 4999 + "2")


def test_hostile_numbers_are_compared_in_linear_time():
    start = time.perf_counter()
    assert not same_text("9" * (1 << 20), "1")
    assert not same_text("1e999999999999", "1")
    assert not same_text("1e-999999 " * (1 << 15), "1 " * (1 << 15))
    assert not same_value("9" * (1 << 20), "1")
    assert not same_value("[" * (1 << 20), "[]")
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("actual", "expected"),
    [("[1, 2]", "[1,2]"), ("1", "1.0"), ("1", "true"), ("Infinity", "Infinity"), ('"é"', '"\\u00e9"')],
)
def test_values_pass_when_python_calls_them_equal(actual, expected):
    assert same_value(actual, expected)


@pytest.mark.parametrize(
    ("actual", "expected"), [("[1,2]", "[2,1]"), ("", "0"), ('"1"', "1"), ("nope", "0"), ("NaN", "NaN")]
)
def test_values_fail_otherwise(actual, expected):
    assert not same_value(actual, expected)
