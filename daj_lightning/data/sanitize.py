"""From a response to the program that BigCodeBench grades: the longest block that parses, less what is out of reach.

Two steps, as bigcodebench/sanitize.py @ 47eff25 takes them before anything is executed:

1. of all runs of two or more lines that parse as Python, the one with the most lines that are not blank, the
   first of equals; if none parses, the first line. Prose and fences do not parse, so this finds the code.
2. of its top-level statements: all imports, and every definition and assignment that the entry point needs,
   and those that these need. Example calls, prints and unused helpers go.

`ast` and `symtable` suffice: step 1 has parsed the block already. They also know scopes, which the official
tree-sitter walk over identifiers does not, and that lets us keep what it loses although the program needs it:

    a decorated definition; `a, b = 1, 2`; `TABLE[0] = 1` on the program's own TABLE;
    a compound statement that binds a needed name (`try: import numpy` / `except ImportError: ...`);
    the later definition of two of one name, which is the one that Python calls (officially the first stays);
    `task_func = lambda x: x` and one-line functions at the end of the file, which it takes for example calls.

It keeps a top-level `result = ...` if a function has a local variable of that name; we do not. A block that does
not define the entry point stays whole: there is nothing to reduce it to. Officially its imports stay alone;
neither passes. A statement that changes someone else's module (`plt.rcParams["x"] = 1`) goes, as officially.

Candidates are untrusted text: nothing here runs them, and the search reads a bounded number of lines.
"""

from __future__ import annotations

import ast
import itertools
import symtable
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MAX_PARSED_LINES = 200_000
"""Lines that the search for the longest block gives to the parser before it takes the best block so far.

A response of 8,192 tokens has about 1,000 lines, of which nearly all of the prose is refused at its first.
"""

_UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
"""ValueError: null bytes, lone surrogates. MemoryError: the parser's own stack."""


def sanitize(text: str, entry_point: str) -> str:
    """The program in `text`, a response or a program, reduced to what `entry_point` needs.

    A response that only continues the task's prompt has to stand behind it: pass `complete_prompt + response`.
    Sanitizing twice is sanitizing once.
    """
    block = longest_block(text.strip().replace("\r\n", "\n").replace("\r", "\n"))
    try:
        units = list(_units(block))
    except _UNPARSABLE:
        return block.strip()
    if not any(entry_point in unit.binds for unit in units):
        return block.strip()
    needed = _needed(entry_point, units)
    return "\n".join(unit.text for unit in units if unit.is_import or not needed.isdisjoint(unit.binds)).strip()


def longest_block(text: str) -> str:
    """Of the runs of two or more lines that parse, the one with the most non-blank lines; else the first line."""
    lines = text.split("\n")
    filled = [0, *itertools.accumulate(bool(line.strip()) for line in lines)]
    best, most, parsed = (0, 1), 0, 0
    for start in range(len(lines) - 1):
        end = len(lines)
        while end - start > 1 and filled[end] - filled[start] > most and parsed < MAX_PARSED_LINES:
            wrong = _first_wrong_line(lines[start:end])
            parsed += wrong or end - start
            if wrong is None:
                best, most = (start, _without_blank_end(lines, start, end)), filled[end] - filled[start]
            else:
                # Whatever follows, a run that includes the wrong line is wrong.
                end = min(end - 1, start + wrong - 1)
    return "\n".join(lines[slice(*best)])


def _without_blank_end(lines: Sequence[str], start: int, end: int) -> int:
    trimmed = end
    while trimmed - start > 2 and not lines[trimmed - 1].strip():
        trimmed -= 1
    return trimmed if _first_wrong_line(lines[start:trimmed]) is None else end  # a backslash may need its blank line


def _parse(code: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "\d" in a candidate's string is no concern of ours
        return ast.parse(code)


def _first_wrong_line(lines: Sequence[str]) -> int | None:
    """Number of the line, from 1, that the parser stops at; None if the lines parse."""
    try:
        _parse("\n".join(lines))
    except SyntaxError as error:
        return error.lineno or _unreadable_line(lines)
    except ValueError:
        return _unreadable_line(lines)
    except (RecursionError, MemoryError):
        return len(lines)
    return None


def _unreadable_line(lines: Sequence[str]) -> int:
    for number, line in enumerate(lines, start=1):
        if "\0" in line or any("\ud800" <= char <= "\udfff" for char in line):
            return number
    return 1


@dataclass(frozen=True, slots=True)
class _Unit:
    """A top-level statement, or several that share a line."""

    text: str
    is_import: bool
    binds: frozenset[str]
    """Global names that it sets, or changes a part of."""
    uses: frozenset[str]
    """Global names that it, or a function defined in it, reads."""


def _units(block: str) -> Iterator[_Unit]:
    lines = block.split("\n")
    body = _parse(block).body
    imported = {name for node in body if isinstance(node, ast.Import | ast.ImportFrom) for name in _imported(node)}
    groups: list[list[ast.stmt]] = []
    for node in body:
        joined = groups and (_first_line(node) <= (groups[-1][-1].end_lineno or 0) or node.col_offset > 0)
        if joined:
            groups[-1].append(node)
        else:
            groups.append([node])
    for nodes in groups:
        text = "\n".join(lines[_first_line(nodes[0]) - 1 : nodes[-1].end_lineno])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            binds, uses = _names(symtable.symtable(text, "<candidate>", "exec"))
        changes = {name for node in nodes for name in _changed(node)} - imported
        is_import = any(isinstance(node, ast.Import | ast.ImportFrom) for node in nodes)
        yield _Unit(text, is_import, frozenset(binds | changes), frozenset(uses))


def _first_line(node: ast.stmt) -> int:
    return min(part.lineno for part in (node, *getattr(node, "decorator_list", ())))


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    for alias in node.names:
        yield alias.asname or alias.name.split(".")[0]


def _changed(node: ast.stmt) -> Iterator[str]:
    """Names of the objects whose item or attribute an assignment sets: `TABLE[0][1].x = 1` changes TABLE."""
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    else:
        return
    for target in targets:
        part: ast.AST | None = target
        while isinstance(part, ast.Attribute | ast.Subscript):
            part = part.value
        if isinstance(part, ast.Name):
            yield part.id


def _names(module: symtable.SymbolTable) -> tuple[set[str], set[str]]:
    """Global names that a module binds at its top level, and those that it or any of its functions reads."""
    binds = {s.get_name() for s in module.get_symbols() if s.is_assigned() or s.is_imported()}
    uses = {s.get_name() for s in module.get_symbols() if s.is_referenced()}
    todo = list(module.get_children())
    while todo:
        table = todo.pop()
        todo += table.get_children()
        uses |= {s.get_name() for s in table.get_symbols() if s.is_global()}
    return binds, uses


def _needed(entry_point: str, units: Sequence[_Unit]) -> set[str]:
    """Names within reach of the entry point; all units that bind a name count, not its last alone."""
    needed: set[str] = set()
    todo = {entry_point}
    while todo:
        needed |= todo
        todo = {name for unit in units if not todo.isdisjoint(unit.binds) for name in unit.uses} - needed
    return needed
