"""Majority by output (AlphaCode, Li et al. 2022): programs that print the same belong together, most are right.

Programs run on the public tests' inputs, or on given ones, in the sandbox of the grader; nobody looks at an expected
output. The first program of the biggest group is taken, the first group of several such. A program that crashes, runs
out of time or of memory on an input has no output and is in no group; where none has one, the first program is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from daj_lightning.data.progress import Meter
from daj_lightning.evaluation.field import Field
from daj_lightning.execution import Program, Sandbox
from daj_lightning.execution.compare import read_value
from daj_lightning.execution.grader import judge_end
from daj_lightning.records import Candidate, Problem

Outputs = tuple[str, ...]
"""What a program answers to each input, in one spelling."""


def cluster_picks(
    field: Field, sandbox: Sandbox, num_workers: int, inputs: Mapping[str, Sequence[str]] | None = None
) -> dict[str, int]:
    """problem id -> the candidate taken, for every problem with inputs.

    Args:
        inputs: problem id -> inputs; None: those of the public tests.
    Raises:
        SandboxError: the sandbox failed, which says nothing about a candidate.
    """
    if inputs is None:
        inputs = {name: public_inputs(problem) for name, problem in field.problems.items()}
    asked = {name: list(own) for name, own in inputs.items() if own and name in field.graded and name in field.problems}
    jobs = [(name, i) for name in asked for i in field.with_code(name)]
    found: dict[str, dict[int, Outputs | None]] = {name: {} for name in asked}
    with (
        ThreadPoolExecutor(num_workers, thread_name_prefix="daj-cluster") as workers,
        Meter("clustering by output", len(jobs), "programs") as meter,
    ):

        def run(job: tuple[str, int]) -> Outputs | None:
            name, i = job
            return outputs_of(field.problems[name], field.graded[name][i][0], asked[name], sandbox)

        for (name, i), outputs in zip(jobs, workers.map(run, jobs), strict=True):
            found[name][i] = outputs
            meter.advance()
    return {name: biggest(own) for name, own in found.items()}


def public_inputs(problem: Problem) -> list[str]:
    """Of tests of inputs and outputs; unit tests have none."""
    return [] if problem.unit_tests is not None else [test.input for test in problem.public_tests]


def outputs_of(problem: Problem, candidate: Candidate, inputs: Sequence[str], sandbox: Sandbox) -> Outputs | None:
    """What a program answers; None if it fails to answer one of the inputs."""
    outputs = []
    with sandbox.session(Program(candidate.code, problem.function_name or "")) as session:
        for text in inputs:
            run = session.run(text)
            if judge_end(run) is not None:
                return None
            outputs.append(spelling(run.output, functional=problem.function_name is not None))
    return tuple(outputs)


def spelling(output: str, *, functional: bool) -> str:
    """One for outputs that differ in white space alone, or in how JSON writes the same value."""
    if functional:
        try:
            return repr(read_value(output))
        except (ValueError, RecursionError):  # no JSON: a text as good as any other
            return output
    return "\n".join(" ".join(line.split()) for line in output.strip().split("\n"))


def biggest(outputs: Mapping[int, Outputs | None]) -> int:
    """The first program of the biggest group; 0 where there is no program at all."""
    groups: dict[Outputs, list[int]] = {}
    for i in sorted(outputs):
        own = outputs[i]
        if own is not None:
            groups.setdefault(own, []).append(i)
    if not groups:
        return min(outputs, default=0)
    return max(groups.values(), key=len)[0]
