"""One family, two platforms: statements, encodings and whole programs for atcoder and leetcode.

An atcoder program reads text and prints; a leetcode program is a method. Both hold the same core, the
function `solve` of a family's template. Every program leaves through `ast.unparse`, so that its
formatting says nothing about who wrote it or whether it is right.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

from daj_lightning.data.bank.family import Args, Family, Params, fill

PLATFORMS = ("atcoder", "leetcode")

_SEQUENCES = ("ints", "grid", "pairs")
_READ = {
    "int": "{0} = int(input())",
    "str": "{0} = input()",
    "ints": "{0} = list(map(int, input().split()))",
    "grid": "{0} = [input() for _ in range(n)]",
    "pairs": "{0} = [list(map(int, input().split())) for _ in range(n)]",
}
_LINES = {
    "str": "a line with {0}",
    "ints": "a line with the n values of {0}",
    "grid": "n lines, the rows of {0}",
    "pairs": "n lines with the two numbers of each entry of {0}",
}
_PRINT = {
    "int": "print({0})",
    "str": "print({0})",
    "ints": "print(*{0})",
    "bool": "print('Yes' if {0} else 'No')",
}
_PRINTED = {
    "int": "one integer",
    "str": "one line of text",
    "ints": "the integers on one line, separated by spaces",
    "bool": "Yes or No",
}
_TYPES = {
    "int": "int",
    "str": "str",
    "ints": "list[int]",
    "grid": "list[str]",
    "pairs": "list[list[int]]",
    "bool": "bool",
}
_RETURNED = {"int": "an integer", "str": "a string", "ints": "a list of integers", "bool": "true or false"}


def statement(family: Family, params: Params, platform: str) -> str:
    """The complete statement: task, formats and limits."""
    limits = fill(family.limits, params)
    if platform == "atcoder":
        formats = f"Input: {_input_format(family.arguments)}.\nOutput: {_PRINTED[family.returns]}."
    else:
        signature = ", ".join(f"{name}: {_TYPES[kind]}" for name, kind in family.arguments.items())
        formats = f"Complete {family.method}({signature}). It returns {_RETURNED[family.returns]}."
        sequences = [name for name, kind in family.arguments.items() if kind in _SEQUENCES]
        limits += "".join(f", where n is the length of {name}" for name in sequences)
    return f"{fill(family.task, params)}\n\n{formats}\nLimits: {limits}."


def starter_code(family: Family, platform: str) -> str:
    """Empty on atcoder; the method's signature on leetcode."""
    if platform == "atcoder":
        return ""
    signature = ", ".join(f"{name}: {_TYPES[kind]}" for name, kind in family.arguments.items())
    return f"class Solution:\n    def {family.method}(self, {signature}) -> {_TYPES[family.returns]}:\n        "


def encode_input(family: Family, args: Args, platform: str) -> str:
    """One input as LiveCodeBench stores it: stdin text, or one JSON value a line."""
    if platform == "leetcode":
        return "\n".join(json.dumps(value) for value in args)
    named = list(zip(family.arguments.values(), args, strict=True))
    first = [len(value) for kind, value in named if kind in _SEQUENCES]
    first += [value for kind, value in named if kind == "int"]
    lines = [" ".join(map(str, first))] if first else []
    for kind, value in named:
        lines += _text_lines(kind, value)
    return "\n".join(lines) + "\n"


def encode_output(family: Family, answer: Any, platform: str) -> str:
    """One answer as LiveCodeBench stores it: printed text, or JSON."""
    if platform == "leetcode":
        return json.dumps(answer)
    if family.returns == "bool":
        return "Yes\n" if answer else "No\n"
    return (" ".join(map(str, answer)) if family.returns == "ints" else str(answer)) + "\n"


def program(core: ast.Module, family: Family, platform: str, *, inline: bool) -> str:
    """The whole program around a core.

    Args:
        core: imports, then one function `solve`; used up.
        inline: atcoder only: no function where `solve` returns at its end and nowhere else.
    """
    *imports, solve = core.body
    assert isinstance(solve, ast.FunctionDef), f"{family.name}: a core ends with its function"
    if platform == "leetcode":
        solve.name = family.method
        solve.args.args.insert(0, ast.arg("self"))
        wrapper = ast.ClassDef("Solution", bases=[], keywords=[], body=[solve], decorator_list=[])
        return _unparse([*imports, wrapper])
    return _unparse([*imports, *_script(solve, family, inline)])


def returns_once(core: ast.Module) -> bool:
    """Whether `solve` ends with its only return, so that a script can do without the function."""
    solve = core.body[-1]
    assert isinstance(solve, ast.FunctionDef)
    own = [node for node in solve.body if isinstance(node, ast.FunctionDef)]
    inner = sum(isinstance(node, ast.Return) for nested in own for node in ast.walk(nested))
    returns = sum(isinstance(node, ast.Return) for node in ast.walk(solve)) - inner
    return returns == 1 and isinstance(solve.body[-1], ast.Return)


def _script(solve: ast.FunctionDef, family: Family, inline: bool) -> list[ast.stmt]:
    reading = ast.parse("\n".join(_reading_lines(family.arguments))).body
    last = solve.body[-1]
    if inline and isinstance(last, ast.Return):
        assert last.value is not None
        return [*reading, *solve.body[:-1], _printing(family, ast.unparse(last.value))]
    return [solve, *reading, _printing(family, f"solve({', '.join(family.arguments)})")]


def _printing(family: Family, expression: str) -> ast.stmt:
    return ast.parse(_PRINT[family.returns].format(f"({expression})")).body[0]


def _reading_lines(arguments: Mapping[str, str]) -> list[str]:
    first = ["n"] if any(kind in _SEQUENCES for kind in arguments.values()) else []
    first += [name for name, kind in arguments.items() if kind == "int"]
    lines = [f"{', '.join(first)} = map(int, input().split())"] if len(first) > 1 else []
    lines += [_READ["int"].format(name) for name in first if len(first) == 1]
    return lines + [_READ[kind].format(name) for name, kind in arguments.items() if kind != "int"]


def _input_format(arguments: Mapping[str, str]) -> str:
    first = ["n"] if any(kind in _SEQUENCES for kind in arguments.values()) else []
    first += [name for name, kind in arguments.items() if kind == "int"]
    parts = ["a line with " + " and ".join(first)] if first else []
    return ", then ".join(parts + [_LINES[kind].format(name) for name, kind in arguments.items() if kind != "int"])


def _text_lines(kind: str, value: Any) -> list[str]:
    if kind == "int":
        return []
    if kind == "str":
        return [value]
    if kind == "ints":
        return [" ".join(map(str, value))]
    return [" ".join(map(str, row)) for row in value] if kind == "pairs" else list(value)


def _unparse(body: list[ast.stmt]) -> str:
    tree = ast.fix_missing_locations(ast.Module(body=body, type_ignores=[]))
    # Twice: what the first spells, the second leaves alone (an expression built by hand may nest otherwise).
    return ast.unparse(ast.parse(ast.unparse(tree)))
