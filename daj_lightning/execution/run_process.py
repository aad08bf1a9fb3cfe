"""How a candidate runs under the rules "process": as `python main.py`, or as one call of its method.

Part of worker.py's script, in the program's own process.
"""

import os
from types import ModuleType

# LiveCodeBench's functional problems rely on these (lcb_runner/evaluation/testing_util.py @ 28fef95).
MODULES = (
    "string re datetime collections heapq bisect copy math random statistics itertools functools operator io "
    "sys json builtins typing"
)
PRELUDE = "".join(f"from {name} import *\nimport {name}\n" for name in MODULES.split(" "))
PRELUDE += "sys.setrecursionlimit(50000)\nsys.set_int_max_str_digits(50000)\n"


def prepare(job: dict) -> dict:
    """Before the first test: the names that a method expects to be there."""
    names: dict = {}
    if job["name"]:
        exec(PRELUDE, names)
    return names


def run(job: dict, names: dict, program: ModuleType, test_input: bytes, returned: int) -> None:
    if job["name"]:
        program.__dict__.update(names, __name__="__main__")
        call_method(job, program.__dict__, test_input, returned)
    else:
        os.close(returned)
        exec(compile(job["code"], "<candidate>", "exec", dont_inherit=True), program.__dict__)


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
