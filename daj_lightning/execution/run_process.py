"""How a candidate runs under the rules "process": as `python main.py`, or as one call of its method.

Part of worker.py's script, in the program's own process.
"""

import atexit
import gc
import os
import sys
from types import BuiltinFunctionType, FunctionType, ModuleType

# LiveCodeBench's functional problems rely on these (lcb_runner/evaluation/testing_util.py @ 28fef95).
MODULES = (
    "string re datetime collections heapq bisect copy math random statistics itertools functools operator io "
    "sys json builtins typing"
)
PRELUDE = "".join(f"from {name} import *\nimport {name}\n" for name in MODULES.split(" "))
PRELUDE += "sys.setrecursionlimit(50000)\nsys.set_int_max_str_digits(50000)\n"

LOADED_ONCE = frozenset([*MODULES.split(" "), "array", "cmath", "decimal", "fractions", "numpy", "queue", "threading"])
"""Modules that are loaded before the first test if the program names them: each test would pay for them again."""
WARM_UP = """
import sys
def f(x, *y, z=0):
    for i in range(2):
        if i < 1 and x or not z: x += [k for k in y][-1:]
        else: continue
    while False: pass
    return {1: x[0:1], **{}}, (lambda: f"{x}")
class A: pass
"""
"""Never run: compiling it makes the compiler's own data, which each fork would make again."""
EXIT_FLUSH_FAILED = 120  # as Python's own


def prepare(job: dict) -> dict:
    """Before the first test: the names that a method expects to be there, the modules that a program names."""
    names: dict = {}
    if job["name"]:
        exec(PRELUDE, names)
    compile(WARM_UP, "", "exec")
    for module in imported(job["code"].decode("utf-8", "replace")) & LOADED_ONCE:
        try:
            __import__(module)
        except ImportError:  # the program shall meet the same
            continue
    return names


def imported(code: str) -> "set[str]":
    """Modules of the lines that look like imports; a string may look like one as well."""
    found = set()
    for line in code.split("\n"):
        words = line.replace(",", " ").split()
        if words[:1] == ["import"]:
            found.update(words[1:])
        elif words[:1] == ["from"]:
            found.update(words[1:2])
    return {name.partition(".")[0] for name in found}


def run(job: dict, names: dict, program: ModuleType, test_input: bytes, returned: int) -> None:
    if job["name"]:
        program.__dict__.update(names, __name__="__main__")
        call_method(job, program.__dict__, test_input, returned)
    else:
        os.close(returned)
        run_program(job["code"], program)


def run_program(code: bytes, program: ModuleType) -> None:
    """All that happens to a main program, its end included; does not return."""
    status = 0
    try:
        exec(compile(code, "<candidate>", "exec", dont_inherit=True), program.__dict__)
    except SystemExit as error:
        status = exit_status(error.code)
    except BaseException as error:
        status = 1
        sys.excepthook(type(error), error, error.__traceback__)
    end(program, status)


def exit_status(code: object) -> int:
    """What sys.exit(code) makes of a process."""
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    print(code, file=sys.stderr)
    return 1


def end(program: ModuleType, status: int) -> None:
    """What the interpreter does at its end and a program can notice, without taking itself apart (5 ms a test).

    Threads are waited for, exit functions called, standard output written out, the program's objects deleted
    (files of its own are flushed by that): first its data, then what their last methods may need.
    """
    threading = sys.modules.get("threading")
    if threading is not None:
        threading._shutdown()
    atexit._run_exitfuncs()
    flushed = flush()
    names = program.__dict__
    for kept in ((ModuleType, type, FunctionType, BuiltinFunctionType), ModuleType):
        for name in [name for name, value in names.items() if not isinstance(value, kept) and name != "__builtins__"]:
            names[name] = None
        gc.collect()
    os._exit(status if flush() and flushed else EXIT_FLUSH_FAILED)


def flush() -> bool:
    """Write out what is buffered, also where the program put something in place of standard output."""
    fine = True
    for name in ("stdout", "stderr", "__stdout__", "__stderr__"):
        stream = getattr(sys, name, None)
        try:
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()
        except BaseException:
            fine = name.endswith("stderr") and fine  # as Python: only an output that is lost changes the status
    return fine


def call_method(job: dict, names: dict, test_input: bytes, returned: int) -> None:
    """Call `Solution().name`: a JSON value a line in, a JSON value out."""
    from json import dumps, loads

    args = [loads(line) for line in test_input.decode().split("\n")]
    exec(compile(job["code"], "<candidate>", "exec", dont_inherit=True), names)
    value = getattr(names["Solution"](), job["name"])(*args)
    answer(returned, dumps(value).encode())


def answer(returned: int, data: bytes) -> None:
    """Hand the answer over and end: a call has no interpreter shutdown of its own, and 2 ms are saved."""
    view = memoryview(data)
    while view:
        view = view[os.write(returned, view) :]
    os._exit(0)
