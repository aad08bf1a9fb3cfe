"""Runs programs of the bank against their tests in this process: start it as a process of its own.

Reads a JSON list of [code, function name or null, [[input, output], ...]] from stdin and prints a JSON
list: whether each program passed. Good enough for mutants of our own programs, and no sandbox.
"""

import contextlib
import io
import json
import signal
import sys

TEST_LIMIT_S = 0.2


class Late(BaseException):
    """A program ran past its limit; nothing that a program catches."""


def give_up(signum, frame):
    raise Late


def answer(code, function_name, text):
    scope = {"__name__": "__main__"}
    if function_name is None:
        sys.stdin, printed = io.StringIO(text), io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, scope)
        return printed.getvalue().split()
    exec(code, scope)
    value = getattr(scope["Solution"](), function_name)(*map(json.loads, text.split("\n")))
    return json.loads(json.dumps(value))


def passes(source, function_name, tests):
    try:
        code = compile(source, "candidate", "exec")
        for text, expected in tests:
            signal.setitimer(signal.ITIMER_REAL, TEST_LIMIT_S)
            wanted = expected.split() if function_name is None else json.loads(expected)
            if answer(code, function_name, text) != wanted:
                return False
    except (Exception, Late):  # whatever a mutant raises, it failed
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return True


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, give_up)
    print(json.dumps([passes(*job) for job in json.load(sys.stdin)]))
