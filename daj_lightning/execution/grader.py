"""From a program and a problem's tests to a verdict, for one candidate or for many."""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from daj_lightning.execution.compare import same_text, same_value
from daj_lightning.execution.sandbox import Run, Sandbox
from daj_lightning.records import Candidate, DajError, Outcome, Problem, TestCase, Verdict

GRADER = "process"
DETAIL_CHARS = 200


def grade(problem: Problem, candidate: Candidate, sandbox: Sandbox, *, stop: threading.Event | None = None) -> Verdict:
    """Run the public, then the hidden tests; stop at the first failure.

    Args:
        stop: once set, the run ends with sandbox.Stopped.
    Raises:
        DajError: empty code, no tests, or a candidate of another problem.
        SandboxError: the sandbox failed, which says nothing about the candidate.
    """
    tests = (*problem.public_tests, *problem.hidden_tests)
    check(problem, candidate, tests)
    outcome, detail, num_passed, cpu_s = Outcome.PASSED, "", 0, 0.0
    with sandbox.session(candidate.code, problem.function_name, stop) as session:
        for test in tests:
            run = session.run(test.input)
            cpu_s += run.cpu_s
            outcome, how = judge_run(run, test, functional=problem.function_name is not None)
            if outcome is not Outcome.PASSED:
                detail = f"test {num_passed + 1} of {len(tests)}: {how}"[:DETAIL_CHARS]
                break
            num_passed += 1
    return Verdict(
        candidate_id=candidate.candidate_id,
        outcome=outcome,
        num_passed=num_passed,
        num_tests=len(tests),
        detail=detail,
        cpu_s=cpu_s,
        grader=GRADER,
        sandbox=sandbox.mode,
        python=platform.python_version(),
        limits=str(sandbox.limits),
    )


def grade_all(jobs: Sequence[tuple[Problem, Candidate]], sandbox: Sandbox, num_workers: int) -> Iterator[Verdict]:
    """Grade candidates side by side and yield the verdicts in the order of `jobs`.

    More workers than idle cores make honest programs miss their wall limit. An interrupt, an
    error or a caller that stops early ends every process that is still running.

    Raises:
        DajError, SandboxError: as `grade`, in place of the job's verdict.
    """
    if num_workers < 1:
        raise DajError(f"num_workers is {num_workers}; wanted at least 1, at most the number of idle cores.")
    stop = threading.Event()
    executor = ThreadPoolExecutor(num_workers, thread_name_prefix="daj-grade")
    try:
        futures = [executor.submit(grade, *job, sandbox, stop=stop) for job in jobs]
        for future in futures:
            yield future.result()
    finally:
        stop.set()
        executor.shutdown(cancel_futures=True)


def check(problem: Problem, candidate: Candidate, tests: tuple[TestCase, ...]) -> None:
    name = candidate.candidate_id
    if candidate.problem_id != problem.problem_id:
        raise DajError(
            f"candidate {name} was written for problem {candidate.problem_id} but is graded on "
            f"{problem.problem_id}; pair them by problem_id."
        )
    if not tests:
        raise DajError(f"problem {problem.problem_id} has no tests, which nothing can pass; drop it first.")
    if not candidate.code.strip():
        raise DajError(f"candidate {name} is empty; drop responses without code before grading.")


def judge_run(run: Run, test: TestCase, *, functional: bool) -> tuple[Outcome, str]:
    """The outcome of one test and, unless it passed, how it failed."""
    if run.timed_out:
        return Outcome.TIMED_OUT, f"timed out after {run.cpu_s:.2f} s of CPU time"
    if run.output_too_long:
        return Outcome.OUTPUT_LIMIT, "wrote more than the output limit"
    if run.exit_code != 0:
        last_line = run.errors.strip().rpartition("\n")[2]
        if last_line.startswith("MemoryError"):
            return Outcome.OUT_OF_MEMORY, "MemoryError"
        how = f"exit status {run.exit_code}" if run.exit_code > 0 else f"killed by signal {-run.exit_code}"
        return Outcome.CRASHED, ascii(last_line)[1:-1] or how
    if (same_value if functional else same_text)(run.output, test.output):
        return Outcome.PASSED, ""
    shown = run.output if len(run.output) <= DETAIL_CHARS else run.output[:DETAIL_CHARS] + "..."
    return Outcome.WRONG_ANSWER, f"wrong answer {shown!a}"
