"""`python -m daj_lightning COMMAND`: one table of commands.

fit, validate and test are Lightning's; the others are functions of daj_lightning/commands/.
"""

from __future__ import annotations

import errno
import re
import signal
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import get_type_hints

from jsonargparse import ArgumentParser

from daj_lightning.commands.data import import_graded, label, pairs, prepare, sample
from daj_lightning.commands.judge import export, select, serve
from daj_lightning.commands.measure import audit, evaluate, kernels, plan, score
from daj_lightning.records import DajError, Stopped

LIGHTNING = ("fit", "validate", "test")


COMMANDS: dict[str, Callable[..., None]] = {
    "prepare": prepare,
    "sample": sample,
    "label": label,
    "import": import_graded,
    "pairs": pairs,
    "select": select,
    "score": score,
    "evaluate": evaluate,
    "serve": serve,
    "export": export,
    "audit": audit,
    "plan": plan,
    "kernels": kernels,
}


def main(argv: list[str] | None = None) -> int:
    """Run one command. A user's mistake is one line on stderr and exit status 2; a signal, 128 + its number."""
    args = sys.argv[1:] if argv is None else argv
    try:
        if args[:1] in (["-h"], ["--help"]):
            print(
                __doc__,
                *(f"{name}: {(function.__doc__ or '').splitlines()[0]}" for name, function in COMMANDS.items()),
                sep="\n",
            )
            return 0
        if not args or args[0] not in (*LIGHTNING, *COMMANDS):
            names = ", ".join([*LIGHTNING, *COMMANDS])
            raise DajError(f"no command {args[0]!r}; there are {names}." if args else f"give a command: {names}.")
        if args[0] in LIGHTNING:
            from daj_lightning.cli import Cli

            Cli(argv)
        else:
            call(COMMANDS[args[0]], args)
    except DajError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.status
    except Stopped as stopped:
        if stopped.told:
            print(stopped.told, file=sys.stderr)
        return int(stopped.code or 0)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"error: the disk is full: {error}. Free some of it and give the command again.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def call(function: Callable[..., None], args: list[str]) -> None:
    """Run a command's function with its arguments from the command line.

    --config may be repeated; other lists take several values: --problems a.jsonl b.jsonl.
    """
    parser = ArgumentParser(prog=f"daj_lightning {args[0]}", description=(function.__doc__ or "").partition("\n\n")[0])
    hints = get_type_hints(function)
    lists: set[str | int] = {name for name, hint in hints.items() if hint in (list[str], list[str] | None)}
    for name in sorted(map(str, lists)):
        required = hints[name] == list[str]
        if name == "config":
            parser.add_argument("--config", action="append", required=required, help="configuration file, repeatable")
        else:
            parser.add_argument(f"--{name}", nargs="+", type=str, required=required, help=told(function, name))
    parser.add_function_arguments(function, skip=lists, as_positional=False)
    flags = {f"--{name}" for name, hint in hints.items() if hint is bool}
    function(**parser.instantiate(parser.parse_args(as_options(args[1:], flags))).as_dict())


def told(function: Callable[..., None], name: str) -> str:
    """What a function's docstring says of an argument that may be given several times."""
    found = re.search(rf"^ +{name}: (.*(?:\n {{12,}}.*)*)", function.__doc__ or "", re.MULTILINE)
    assert found, f"{function.__name__} says nothing of {name}"
    return f"{' '.join(found[1].split())} (one or several)"


def as_options(args: list[str], flags: set[str]) -> list[str]:
    """--unsafe-local is --unsafe_local, and a flag without a value is true."""
    options = []
    for word, following in pairwise([*args, "--"]):
        name, equals, value = word.partition("=")
        name = name.replace("-", "_").replace("__", "--", 1) if name.startswith("--") else name
        options.append(name + equals + value)
        if name in flags and not equals and following.startswith("--"):
            options.append("true")
    return options


if __name__ == "__main__":
    sys.exit(main())
