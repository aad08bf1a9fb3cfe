"""Is this output right? The rules of LiveCodeBench, on the host, as pure functions.

Source: lcb_runner/evaluation/testing_util.py @ 28fef95. Expected outputs are trusted, actual ones are
hostile text: nothing here takes more than linear time in them.
"""

from __future__ import annotations

import json
from decimal import Decimal

MAX_DIGITS = 4000
"""Below the 4,300 at which Python refuses (sys.get_int_max_str_digits)."""


def same_text(actual: str, expected: str) -> bool:
    """Standard output: as many lines, each equal after strip() or equal as a list of decimal numbers."""
    actual_lines = actual.strip().split("\n")
    expected_lines = expected.strip().split("\n")
    return len(actual_lines) == len(expected_lines) and all(map(same_line, actual_lines, expected_lines))


def same_line(actual: str, expected: str) -> bool:
    if actual.strip() == expected.strip():
        return True
    expected_words, actual_words = expected.split(), actual.split()
    if len(actual_words) != len(expected_words):
        return False
    try:
        # Decimal parses in linear time, and compares 1E+999999 with 1 without writing it out.
        return [Decimal(word) for word in actual_words] == [Decimal(word) for word in expected_words]
    except ArithmeticError:  # not a number, or a comparison with a signalling NaN
        return False


def same_value(actual: str, expected: str) -> bool:
    """Return values as JSON, compared with Python's ==: 1, 1.0 and true are equal, as officially."""
    try:
        return bool(read_value(actual) == read_value(expected))
    except (ValueError, RecursionError):  # no JSON; brackets nested too deep
        return False


def read_value(text: str) -> object:
    """JSON; an int of more digits than Python converts in linear time stays text, marked as one."""
    try:
        return json.loads(text)
    except ValueError:
        return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) <= MAX_DIGITS else ("int", digits))
