"""The hybrid: programs that fail a public test are out before the judge is asked (R2E-Gym, Jain et al. 2025)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice, tee
from typing import Any, NamedTuple

from daj_lightning.execution import Limits, Sandbox, SandboxError, grade_all
from daj_lightning.records import Candidate, DajError, Problem, Verdict


class Screening(NamedTuple):
    """Which candidates of a problem the judge is asked about."""

    kept: tuple[int, ...]
    """Their places, in order."""
    out: tuple[Verdict, ...] = ()
    """Of those that failed a public test."""
    note: str = ""
    """What the tests said, in words; empty where no hybrid was asked for."""
    sandbox: str = ""
    """Isolation that the programs ran under; empty where none ran."""

    def row(self) -> dict[str, Any]:
        """For output: who is out and why."""
        out = [{"candidate_id": v.candidate_id, "outcome": str(v.outcome), "detail": v.detail} for v in self.out]
        return {"note": self.note, "out": out, "sandbox": self.sandbox}


UNTESTED = "no public tests: judged only"
NONE_PASSED = "no candidate passed the public tests: all judged"


def unscreened(candidates: Sequence[Candidate], note: str = "") -> Screening:
    """All candidates, nothing executed."""
    return Screening(tuple(range(len(candidates))), note=note)


class Screener:
    """Executes candidates on their problem's public tests.

    Args:
        num_workers: programs at once; at most the number of idle cores.
        limits: of one test; None for the defaults.
        unsafe_local: run without isolation, only if every program is trusted.
    Raises:
        DajError: nothing on this host can shut in untrusted programs.
    """

    def __init__(self, num_workers: int = 2, limits: Limits | None = None, unsafe_local: bool = False) -> None:
        if num_workers < 1:
            raise DajError(f"num_workers is {num_workers}; wanted at least 1, at most the number of idle cores.")
        self.num_workers = num_workers
        self.sandbox = Sandbox(limits, "unsafe-local" if unsafe_local else None)

    def screen(self, groups: Iterable[tuple[Problem, Sequence[Candidate]]]) -> Iterator[Screening]:
        """One for each problem, in order; programs of the next problems run ahead of whoever takes them.

        Raises:
            DajError: the sandbox failed, which says nothing about the program.
        """
        groups, ahead = tee(groups)
        jobs = (
            (replace(problem, hidden_tests=(), unit_tests=None), candidate)
            for problem, candidates in ahead
            if problem.public_tests
            for candidate in candidates
        )
        verdicts = grade_all(jobs, self.sandbox, self.num_workers)
        try:
            for problem, candidates in groups:
                if problem.public_tests:
                    yield self._screening(list(islice(verdicts, len(candidates))))
                else:
                    yield unscreened(candidates, UNTESTED)
        except SandboxError as error:
            raise DajError(
                f"the sandbox failed, which says nothing about the programs: {str(error).removesuffix('.')}. Try again."
            ) from error
        finally:
            verdicts.close()  # type: ignore[attr-defined]  # a generator; ends what still runs

    def _screening(self, verdicts: list[Verdict]) -> Screening:
        kept = tuple(place for place, verdict in enumerate(verdicts) if verdict.passed)
        out = tuple(verdict for verdict in verdicts if not verdict.passed)
        note = f"{len(kept)} of {len(verdicts)} passed the public tests" if kept else NONE_PASSED
        return Screening(kept or tuple(range(len(verdicts))), out, note, self.sandbox.description)


def screener_if(hybrid: bool, num_workers: int, limits: Limits | None, unsafe_local: bool) -> Screener | None:
    """As the command line's options say.

    Raises:
        DajError: options of an execution without one, or no isolation works here.
    """
    if hybrid:
        return Screener(num_workers, limits, unsafe_local)
    if unsafe_local or limits is not None:
        raise DajError("--unsafe_local and --limits are of no use without --hybrid true, which executes. Add that.")
    return None
