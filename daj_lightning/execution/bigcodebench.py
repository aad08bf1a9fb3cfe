"""What BigCodeBench's rules make of a program and of a test file: text in, text or a number out.

Nothing here runs anything. Rules: bigcodebench/evaluate.py and eval/__init__.py @ 47eff25.
"""

from __future__ import annotations

import ast
import warnings

from daj_lightning.records import DajError, UnitTests

TEST_CLASS = "TestCases"
"""The one class whose tests are loaded."""


def calibrated(tests: UnitTests, code: str) -> str:
    """The program that is executed: the task's imports and signature with an empty body, then the candidate.

    So a candidate which leaves out the imports that the task gives still has them, and one which only goes on
    with the body, indented, continues the function. A full program replaces the function.
    """
    return f"{tests.code_prompt}\n    pass\n{code}"


def count_tests(source: str) -> int:
    """Test methods of the module's class TestCases, by name: own ones and those of base classes in the module.

    What a loader would find, as far as the text says: methods that the module makes while it runs are not
    counted. 0 where there is no such class.

    Raises:
        DajError: the module does not parse.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in a string is no concern of ours
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # MemoryError: the parser's own stack
        raise DajError(f"the unit tests do not parse ({error}); restore them from the data set.") from error
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    names: set[str] = set()
    seen: set[str] = set()
    todo = [TEST_CLASS]
    while todo:
        name = todo.pop()
        if name in seen or name not in classes:
            continue
        seen.add(name)
        todo += [base.id for base in classes[name].bases if isinstance(base, ast.Name)]
        names |= {
            node.name
            for node in classes[name].body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test")
        }
    return len(names)
