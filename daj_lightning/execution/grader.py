"""From a program and a problem's tests to a verdict, for one candidate or for many.

Three graders, named in every verdict: "process" runs a real `python main.py` or calls the method;
"official@28fef95" runs a program as LiveCodeBench's own grader does, with its known faults, so that labels can be
compared with published ones; "unittest@47eff25" is BigCodeBench's, in one process with the program, and its
verdicts are marked as forgeable.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from daj_lightning.execution.bigcodebench import calibrated, count_tests
from daj_lightning.execution.compare import same_text, same_value
from daj_lightning.execution.sandbox import Program, Run, Sandbox
from daj_lightning.records import Candidate, DajError, Outcome, Problem, TestCase, UnitTests, Verdict

Rules = Literal["process", "official"]
GRADERS = {"process": "process", "official": "official@28fef95"}
UNITTEST = "unittest@47eff25"
DETAIL_CHARS = 200
JOBS_AHEAD = 32
"""Jobs taken for each worker before the first of them is yielded: one slow program shall not idle the others."""


@dataclass(frozen=True, slots=True)
class Score:
    """What the tests of one candidate came to."""

    outcome: Outcome
    detail: str
    num_passed: int
    num_tests: int
    cpu_s: float


def grade(
    problem: Problem,
    candidate: Candidate,
    sandbox: Sandbox,
    *,
    rules: Rules = "process",
    stop: threading.Event | None = None,
) -> Verdict:
    """Run the public, then the hidden tests and stop at the first failure; or run the unit tests.

    Args:
        rules: of a problem with tests of inputs and outputs; unit tests have one way.
        stop: once set, the run ends with sandbox.Stopped.
    Raises:
        DajError: empty code, no tests, or a candidate of another problem.
        SandboxError: the sandbox failed, which says nothing about the candidate.
    """
    check(problem, candidate)
    if problem.unit_tests is not None:
        score = run_unit_tests(problem, problem.unit_tests, candidate, sandbox, stop)
    else:
        score = run_tests(problem, candidate, sandbox, rules, stop)
    return Verdict(
        candidate_id=candidate.candidate_id,
        outcome=score.outcome,
        num_passed=score.num_passed,
        num_tests=score.num_tests,
        detail=score.detail[:DETAIL_CHARS],
        cpu_s=score.cpu_s,
        grader=UNITTEST if problem.unit_tests else GRADERS[rules],
        sandbox=sandbox.description,
        python=sandbox.python,
        limits=str(sandbox.limits),
        forgeable=problem.unit_tests is not None,
    )


def grade_all(
    jobs: Iterable[tuple[Problem, Candidate]], sandbox: Sandbox, num_workers: int, rules: Rules = "process"
) -> Iterator[Verdict]:
    """Grade candidates side by side and yield the verdicts in the order of `jobs`, which is read as it is needed.

    More workers than idle cores make honest programs miss their wall limit. An interrupt, an
    error or a caller that stops early ends every process that is still running.

    Raises:
        DajError, SandboxError: as `grade`, in place of the job's verdict.
    """
    if num_workers < 1:
        raise DajError(f"num_workers is {num_workers}; wanted at least 1, at most the number of idle cores.")
    stop = threading.Event()
    executor = ThreadPoolExecutor(num_workers, thread_name_prefix="daj-grade")
    waiting: deque[Future[Verdict]] = deque()
    rest = iter(jobs)
    try:
        while True:
            for problem, candidate in itertools.islice(rest, num_workers * JOBS_AHEAD - len(waiting)):
                waiting.append(executor.submit(grade, problem, candidate, sandbox, rules=rules, stop=stop))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        stop.set()
        executor.shutdown(cancel_futures=True)


def check(problem: Problem, candidate: Candidate) -> None:
    name = candidate.candidate_id
    if candidate.problem_id != problem.problem_id:
        raise DajError(
            f"candidate {name} was written for problem {candidate.problem_id} but is graded on "
            f"{problem.problem_id}; pair them by problem_id."
        )
    if not candidate.code.strip():
        raise DajError(f"candidate {name} is empty; drop responses without code before grading.")


def run_tests(
    problem: Problem, candidate: Candidate, sandbox: Sandbox, rules: Rules, stop: threading.Event | None
) -> Score:
    num_tests = len(problem.public_tests) + len(problem.hidden_tests)
    if not num_tests:
        raise DajError(f"problem {problem.problem_id} has no tests, which nothing can pass; drop it first.")
    program = Program(
        candidate.code, problem.function_name or "", "run_official" if rules == "official" else "run_process"
    )
    cpu_s = 0.0
    with sandbox.session(program, stop) as session:
        # Hidden tests come from disk one by one; a problem may have hundreds of megabytes of them.
        for number, test in enumerate(itertools.chain(problem.public_tests, problem.hidden_tests), start=1):
            run = session.run(test.input)
            cpu_s += run.cpu_s
            outcome, how = judge_run(run, test, functional=problem.function_name is not None)
            if outcome is not Outcome.PASSED:
                return Score(outcome, f"test {number} of {num_tests}: {how}", number - 1, num_tests, cpu_s)
    return Score(Outcome.PASSED, "", num_tests, num_tests, cpu_s)


def judge_run(run: Run, test: TestCase, *, functional: bool) -> tuple[Outcome, str]:
    """The outcome of one test and, unless it passed, how it failed."""
    ended = judge_end(run)
    if ended is not None:
        return ended
    if (same_value if functional else same_text)(run.output, test.output):
        return Outcome.PASSED, ""
    shown = run.output if len(run.output) <= DETAIL_CHARS else run.output[:DETAIL_CHARS] + "..."
    return Outcome.WRONG_ANSWER, f"wrong answer {shown!a}"


def judge_end(run: Run) -> tuple[Outcome, str] | None:
    """How a run went wrong before its answer could be looked at; None if it did not."""
    if run.timed_out:
        return Outcome.TIMED_OUT, f"timed out after {run.cpu_s:.2f} s of CPU time"
    if run.output_too_long:
        return Outcome.OUTPUT_LIMIT, "wrote more than the output limit"
    if run.out_of_memory:
        return Outcome.OUT_OF_MEMORY, "all its processes together had more than the memory limit"
    if run.exit_code != 0:
        last_line = run.errors.strip().rpartition("\n")[2]
        if last_line.startswith("MemoryError"):
            return Outcome.OUT_OF_MEMORY, "MemoryError"
        how = f"exit status {run.exit_code}" if run.exit_code > 0 else f"killed by signal {-run.exit_code}"
        return Outcome.CRASHED, ascii(last_line)[1:-1] or how
    return None


def run_unit_tests(
    problem: Problem, tests: UnitTests, candidate: Candidate, sandbox: Sandbox, stop: threading.Event | None
) -> Score:
    """BigCodeBench's way: every test is run, in the candidate's process; nothing skipped by the candidate counts."""
    expected = count_tests(tests.source)
    if not expected:
        raise DajError(f"task {problem.problem_id} has no test method in its class TestCases; drop it first.")
    program = Program(calibrated(tests, candidate.code), tests.entry_point, "run_unittest")
    with sandbox.session(program, stop) as session:
        run = session.run(tests.source)
    ended = judge_end(run)
    if ended is not None:
        return Score(ended[0], ended[1], 0, expected, run.cpu_s)
    outcome, detail, num_passed = judge_report(run.output, expected)
    return Score(outcome, detail, num_passed, expected, run.cpu_s)


def judge_report(text: str, expected: int) -> tuple[Outcome, str, int]:
    """What run_unittest.py says, which a hostile program could have written: shape first, then content."""
    try:
        report = json.loads(text)
        failed, skipped = dict(report["failed"]), set(report["skipped"]) - set(report["planned_skips"])
        ran = int(report["run"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return Outcome.CRASHED, "the unit tests ended without a report", 0
    num_passed = max(0, min(ran, expected) - len(failed) - len(skipped))
    if failed:
        name, why = next(iter(failed.items()))
        shown = ascii(f"{name}: {why}")[1:-1]
        return Outcome.WRONG_ANSWER, f"{len(failed)} of {expected} tests failed: {shown}", num_passed
    if skipped or ran < expected:
        return Outcome.WRONG_ANSWER, f"{ran} of {expected} tests ran, {len(skipped)} skipped themselves", num_passed
    return Outcome.PASSED, "", expected
