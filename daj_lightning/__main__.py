"""`python -m daj_lightning COMMAND`: one table of commands.

fit, validate and test are Lightning's; the others are functions below, whose arguments are their options.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable

from jsonargparse import ArgumentParser

from daj_lightning.records import DajError

LIGHTNING = ("fit", "validate", "test")


def prepare(config: list[str]) -> None:
    """Execute every candidate, and write labelled training, meta and test files.

    Args:
        config: configuration files, later ones on top.
    """
    from daj_lightning.cli import load
    from daj_lightning.data import prepare as run

    data = load(config).datamodule
    run(data.preparation, data.root)


def export(config: list[str], output: str, ckpt_path: str = "last") -> None:
    """Write a trained judge as a PEFT adapter, with its tokenizer and prompt template.

    Args:
        config: configuration files of the run.
        output: directory to write.
        ckpt_path: checkpoint file, or "last".
    """
    from daj_lightning.cli import load
    from daj_lightning.serving import export_judge

    cli = load(config)
    path = cli.resolve_checkpoint(ckpt_path)
    assert path is not None
    export_judge(cli.model, cli.datamodule, path, output)
    print(f"wrote the judge of {path} to {output}")


def select(judge: str, candidates: str, output: str, rounds: int = 8, seed: int = 0, batch_size: int = 16) -> None:
    """Pick one program among the candidates of each problem, by the paper's pairwise voting.

    Args:
        judge: directory written by `export`.
        candidates: JSON Lines of {problem_id, statement, candidates: [code, ...]}; title, platform,
            difficulty, starter_code and public_tests ([{input, output}, ...]) are optional.
        output: JSON Lines to write: {problem_id, selected, code, votes, num_invalid}.
        rounds: comparisons a problem (paper: 8).
        seed: of the draws and ties.
        batch_size: comparisons generated together.
    """
    from daj_lightning.serving import select_file

    number = select_file(judge, candidates, output, rounds, seed, batch_size)
    print(f"selected one program for each of {number} problems; wrote {output}")


def kernels() -> None:
    """Print which implementation each kernel uses here, and why."""
    from daj_lightning.kernels import kernel_report

    for line in kernel_report():
        print(line)


COMMANDS: dict[str, Callable[..., None]] = {
    "prepare": prepare,
    "select": select,
    "export": export,
    "kernels": kernels,
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; a user's mistake is one line on stderr and exit status 2."""
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
        return 2
    return 0


def call(function: Callable[..., None], args: list[str]) -> None:
    """Run a command's function with its arguments from the command line; --config may be repeated."""
    parser = ArgumentParser(prog=f"daj_lightning {args[0]}", description=function.__doc__)
    if "config" in inspect.signature(function).parameters:
        parser.add_argument("--config", action="append", required=True, help="configuration file, repeatable")
    parser.add_function_arguments(function, skip={"config"}, as_positional=False)
    function(**parser.parse_args(args[1:]).as_dict())


if __name__ == "__main__":
    sys.exit(main())
