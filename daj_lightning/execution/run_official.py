"""How a candidate runs under the rules "official@28fef95": as LiveCodeBench's own grader calls it.

Part of worker.py's script, in the program's own process. The official grader wraps a stdin program in a
function and calls it under a stand-in for standard input, inside its own process. Right programs fail there
that run as `python main.py`: a second read() gives the whole input again, standard input cannot be
iterated, what a thread prints after the main program ended is lost. Published labels have these marks, so
whoever compares with them needs the same (lcb_runner/evaluation/testing_util.py @ 28fef95, read and
written anew). One thing is left out: state that one test leaves for the next, for every test has a process.
"""

import ast
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from types import ModuleType
from unittest import mock

from run_process import answer, prepare as customary_names

NO_LONGER_THERE = {
    os: "kill system putenv remove removedirs rmdir fchdir setuid fork forkpty killpg rename renames truncate replace "
    "unlink fchmod fchown chmod chown chroot lchown getcwd chdir",
    shutil: "rmtree move chown",
    subprocess: "Popen",
}
NOT_TO_IMPORT = ("ipdb", "joblib", "resource", "psutil", "tkinter")


def prepare(job: dict) -> dict:
    return customary_names({**job, "name": "any"})


def run(job: dict, names: dict, program: ModuleType, test_input: bytes, returned: int) -> None:
    solution = ModuleType("tmp_sol")
    solution.__dict__.update(names, __name__="tmp_sol")
    code, text = job["code"].decode("utf-8", "surrogatepass"), test_input.decode()
    disable_what_the_grader_disables()
    result = call_method(code, job["name"], solution, text) if job["name"] else call_program(code, solution, text)
    answer(returned, result.encode("utf-8", "surrogatepass"))


def disable_what_the_grader_disables() -> None:
    for module, taken in NO_LONGER_THERE.items():
        for name in taken.split():
            setattr(module, name, None)
    for name in NOT_TO_IMPORT:
        sys.modules[name] = None  # type: ignore[assignment]  # an import of it fails


def call_method(code: str, name: str, solution: ModuleType, text: str) -> str:
    arguments = [json.loads(line) for line in text.split("\n")]
    tree = ast.parse(code)
    refuse_future_imports(tree)
    exec(compile(tree, "<candidate>", "exec", dont_inherit=True), solution.__dict__)
    owner = solution.Solution() if "class Solution" in code else solution
    value = getattr(owner, name)(*arguments)
    if isinstance(value, tuple):
        value = list(value)
    if hasattr(value, "tolist"):  # a number of numpy's
        value = value.tolist()
    return json.dumps(value) if has_no_tuple(value) else "a tuple inside equals no list"


def has_no_tuple(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and has_no_tuple(part) for key, part in value.items())
    return not isinstance(value, tuple) and (not isinstance(value, list) or all(map(has_no_tuple, value)))


def call_program(code: str, solution: ModuleType, text: str) -> str:
    """What the program prints until its main part ends; a SystemExit is an ordinary end."""
    exec(compile(wrapped(code), "<candidate>", "exec", dont_inherit=True), solution.__dict__)
    lines = iter(text.split("\n"))
    stdin = Stdin(text)
    stdin.readline = lambda *_: next(lines)  # type: ignore[method-assign]
    sys.stdin, printed = stdin, io.StringIO()
    sys.stdout = printed
    with mock.patch("builtins.open", mock.mock_open(read_data=text)), contextlib.suppress(SystemExit):
        solution.wrapped_function()
    return printed.getvalue()


class Stdin:
    """The official stand-in: read() never ends, and there is no iteration."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.text_io = io.StringIO(text)
        self.buffer = Buffer(text.encode())

    def read(self, *_: int) -> str:
        return self.text

    def readlines(self, *_: int) -> "list[str]":
        return self.text.split("\n")

    def readline(self, *_: int) -> str:
        raise NotImplementedError

    def __getattr__(self, name: str) -> object:
        return getattr(self.text_io, name)


class Buffer:
    """Its readline() gives the first line for ever."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, *_: int) -> bytes:
        return self.data

    def readline(self, *_: int) -> bytes:
        return self.data.split(b"\n")[0] + b"\n"


def wrapped(code: str) -> ast.Module:
    """The imports, then one function with everything else; a last `if __name__ == '__main__'` is opened."""
    tree = ast.parse(code)
    refuse_future_imports(tree)
    body = tree.body
    if body and isinstance(body[-1], ast.If) and ast.unparse(body[-1].test).strip() == "__name__ == '__main__'":
        body = body[:-1] + body[-1].body
    imports = [line for line in body if isinstance(line, (ast.Import, ast.ImportFrom))]
    rest = [line for line in body if not isinstance(line, (ast.Import, ast.ImportFrom))]
    function = ast.parse("def wrapped_function():\n    pass").body[0]
    assert isinstance(function, ast.FunctionDef)
    if not rest:
        raise SyntaxError("the official grader makes an empty function of this program")
    function.body = rest
    return ast.fix_missing_locations(ast.Module([*imports, function], []))


def refuse_future_imports(tree: ast.Module) -> None:
    if any(isinstance(line, ast.ImportFrom) and line.module == "__future__" for line in tree.body):
        raise SyntaxError("the official grader puts its imports before this one, and only the first line may have it")
