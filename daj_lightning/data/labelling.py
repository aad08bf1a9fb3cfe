"""From candidates to labels: each is executed once, whatever kills the run in between.

Candidates come one at a time, hidden tests from disk, and few jobs are under way at once, so that memory
holds the ids of the candidates and no more.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import platform
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from daj_lightning.data.candidates import NO_CODE, fingerprint, has_code, read_candidates
from daj_lightning.data.journal import Journal
from daj_lightning.data.labels import (
    FIRST_BEGINS,
    FIRST_KEYS,
    IMPORTED,
    Label,
    Making,
    differences,
    read_labels,
    read_made,
    resume,
)
from daj_lightning.data.progress import Meter
from daj_lightning.data.sanitize import sanitize
from daj_lightning.execution import Limits, Mode, Rules, Sandbox, SandboxError, grade_all
from daj_lightning.execution.grader import GRADERS, UNITTEST
from daj_lightning.records import Candidate, DajError, Outcome, Problem, Verdict

if TYPE_CHECKING:
    from daj_lightning.data.preparation import Preparation

UNEXECUTED = "none"
"""In place of a sandbox, where there was nothing to run."""
MAX_FAILURES = 3
"""Sandboxes that may fail one after another, each for its candidate, before a run gives up."""


def label_candidates(
    problems: Mapping[str, Problem],
    candidates: Callable[[], Iterable[Candidate]],
    journal: Journal,
    making: Making,
    sandbox: Sandbox | None,
    *,
    num_workers: int,
    rules: Rules = "process",
    console: Console | None = None,
) -> Counter[Outcome]:
    """Append the verdicts that `journal` lacks; returns the outcomes of all of its rows.

    Args:
        problems: by id; every candidate's is there.
        candidates: gives them anew with each call; read twice, to check them and to execute them.
        making: what the first row of the file says.
        sandbox: None if no candidate without a verdict has code.
    Raises:
        DajError: the file was made differently or holds another program of some id, an id occurs twice, or sandboxes
            failed. What was written stays, and the same call goes on from there.
    """
    done, outcomes = resume(journal, making)
    left = num_left(candidates(), done, journal.path)
    if not left:
        return outcomes
    rest = (candidate for candidate in candidates() if candidate.candidate_id not in done)
    failures: list[str] = []
    with Meter("labelling", left, "candidates", console) as meter:

        def write(candidate: Candidate, verdict: Verdict) -> None:
            journal.append(Label(verdict, candidate.problem_id, fingerprint(candidate)).row())
            outcomes[verdict.outcome] += 1
            meter.advance()

        again: list[Candidate] = []
        in_a_row = 0
        while in_a_row < MAX_FAILURES:
            pending: deque[Candidate] = deque()  # under way, in the order of their verdicts
            jobs = _jobs(problems, itertools.chain(again, rest), pending, write, making, rules)
            try:
                for verdict in grade_all(jobs, sandbox, num_workers, rules) if sandbox else _none_of(jobs):
                    write(pending.popleft(), verdict)
                    in_a_row = 0
                break
            except SandboxError as error:
                failures.append(f"{pending.popleft().candidate_id}: {error}")
                again = list(pending)
                in_a_row += 1
    if failures:
        raise DajError(
            f"the sandbox failed on {len(failures)} candidates, which says nothing about them; first "
            f"{failures[0]}. {outcomes.total()} verdicts stand in {str(journal.path)!r}; the same command "
            f"labels the rest."
        )
    return outcomes


def _jobs(
    problems: Mapping[str, Problem],
    candidates: Iterable[Candidate],
    pending: deque[Candidate],
    write: Callable[[Candidate, Verdict], None],
    making: Making,
    rules: Rules,
) -> Iterator[tuple[Problem, Candidate]]:
    """What has to be executed; a candidate without code gets its verdict at once."""
    for candidate in candidates:
        problem = problems[candidate.problem_id]
        if has_code(candidate):
            pending.append(candidate)
            yield problem, candidate
        else:
            write(candidate, without_code(problem, candidate, making, rules))


def _none_of(jobs: Iterator[tuple[Problem, Candidate]]) -> Iterator[Verdict]:
    job = next(jobs, None)
    assert job is None, f"candidate {job} has code, and there is no sandbox"
    return iter(())


def without_code(problem: Problem, candidate: Candidate, making: Making, rules: Rules) -> Verdict:
    """The verdict on a response in which no code was found; its grader is the one of the problem's other candidates."""
    return Verdict(
        candidate_id=candidate.candidate_id,
        outcome=Outcome.CRASHED,
        num_passed=0,
        num_tests=0,
        detail=NO_CODE,
        cpu_s=0.0,
        grader=UNITTEST if problem.unit_tests else GRADERS[rules],
        sandbox=UNEXECUTED,
        python=making.python,
        limits=making.limits,
        forgeable=problem.unit_tests is not None,
    )


def num_left(candidates: Iterable[Candidate], done: Mapping[str, str], path: Path) -> int:
    """How many are without a verdict; checks all of them before any is executed."""
    seen: set[str] = set()
    left = 0
    for candidate in candidates:
        name = candidate.candidate_id
        if name in seen:
            raise DajError(f"candidate id {name!r} occurs twice: give each candidate its own.")
        seen.add(name)
        if name not in done:
            left += 1
        elif done[name] != fingerprint(candidate):
            raise DajError(
                f"candidate {name!r} has a verdict in {str(path)!r} which is of another program. Give the new program "
                f"an id of its own, or name another output."
            )
    return left


def label_file(
    problems: Mapping[str, Problem],
    problems_digest: str,
    candidates: str | Path,
    output: str | Path,
    *,
    rules: Rules = "process",
    num_workers: int = 2,
    shard: str = "0/1",
    sanitized: bool = True,
    mode: Mode | None = None,
    python: str | None = None,
    limits: Limits | None = None,
    console: Console | None = None,
) -> Counter[Outcome]:
    """Label a file of candidates; prints what became of them.

    Args:
        problems: by id. Candidates of other problems are left out, and counted.
        problems_digest: of the files that the problems come from.
        candidates: JSON Lines of {problem_id, policy, code}.
        output: file of labels, new or to be continued.
        shard: "i/n": only problems of shard i of n, which counts from 0.
        sanitized: reduce BigCodeBench's programs to what the entry point needs, as officially before grading.
        mode: of the sandbox; None for an isolation that works here.
        python: binary that candidates run under; None for this one.
    Raises:
        DajError: as `label_candidates`; no candidate belongs to a problem; no isolation works here.
    """
    console = console or Console()
    mine = shard_of(shard)
    known = unknown = 0
    for candidate in read_candidates(candidates):
        known += candidate.problem_id in problems
        unknown += candidate.problem_id not in problems
    if not known:
        raise DajError(
            f"none of the {unknown} candidates in {str(candidates)!r} belongs to one of the {len(problems)} problems: "
            f"compare problem_id with question_id (LiveCodeBench) or task_id (BigCodeBench)."
        )

    def own() -> Iterator[Candidate]:
        for candidate in read_candidates(candidates):
            if candidate.problem_id in problems and mine(candidate.problem_id):
                tests = problems[candidate.problem_id].unit_tests
                if tests and sanitized and has_code(candidate):
                    candidate = replace(candidate, code=sanitize(candidate.code, tests.entry_point))
                yield candidate

    with Journal(output, "labels", FIRST_KEYS, FIRST_BEGINS) as journal:
        sandbox = Sandbox(limits, mode, python)
        making = Making(
            problems=problems_digest,
            rules=rules,
            limits=str(sandbox.limits),
            sandbox=sandbox.description,
            python=sandbox.python,
            shard=shard,
        )
        outcomes = label_candidates(
            problems, own, journal, making, sandbox, num_workers=num_workers, rules=rules, console=console
        )
    console.print(summary(outcomes, output, unknown), highlight=False, soft_wrap=True)
    return outcomes


def summary(outcomes: Counter[Outcome], output: str | Path, unknown: int) -> str:
    counts = ", ".join(f"{outcome.value} {outcomes[outcome]}" for outcome in Outcome if outcomes[outcome])
    left_out = f"; {unknown} candidates of unknown problems left out" if unknown else ""
    return f"{outcomes.total()} verdicts in {output}: {counts or 'no candidate in this shard'}{left_out}"


def shard_of(text: str) -> Callable[[str], bool]:
    """Whether a problem id belongs to shard "i/n", by a hash that is the same everywhere."""
    index, slash, number = text.partition("/")
    if not (slash and index.isdecimal() and number.isdecimal() and int(index) < int(number)):
        raise DajError(f"shard {text!r} is not i/n with 0 <= i < n; the first of four is 0/4, the last 3/4.")
    i, n = int(index), int(number)
    return lambda name: int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) % n == i


def label(
    problems: Mapping[str, Problem],
    candidates: Sequence[Candidate],
    preparation: Preparation,
    root: str | Path,
    console: Console,
) -> list[Verdict]:
    """The verdicts of all candidates, in their order, into verdicts.jsonl of a prepared directory.

    Those of `preparation.verdicts` are taken over, the rest is executed. What an earlier preparation left there is
    gone on with as far as it holds.
    """
    path = Path(root) / "verdicts.jsonl"
    given = given_labels(preparation)
    programs = {candidate.candidate_id: fingerprint(candidate) for candidate in candidates}
    mixed_up = [name for name, found in given.items() if programs.get(name, found.program) != found.program]
    if mixed_up:
        raise DajError(
            f"{preparation.verdicts}: {len(mixed_up)} verdicts are of other programs than the candidates of the same "
            f"ids, first {mixed_up[0]!r}. Give the verdicts that were made for these candidates."
        )
    to_run = any(has_code(c) and c.candidate_id not in given for c in candidates)
    sandbox = preparation.sandbox() if to_run else None
    making = Making(
        problems=digest_of(preparation, problems),
        rules=preparation.rules,
        limits=str(preparation.limits),
        sandbox=sandbox.description if sandbox else UNEXECUTED,
        python=sandbox.python if sandbox else platform.python_version(),
    )
    with Journal(path, "verdicts", FIRST_KEYS, FIRST_BEGINS) as journal:
        keep_what_holds(journal, making, programs, console)
        done, _ = resume(journal, making)
        for candidate in candidates:
            name = candidate.candidate_id
            if name in given and name not in done:
                journal.append(given[name].row())
        label_candidates(
            problems,
            lambda: candidates,
            journal,
            making,
            sandbox,
            num_workers=preparation.num_workers,
            rules=preparation.rules,
            console=console,
        )
    labels = read_labels([path])
    return [labels[candidate.candidate_id].verdict for candidate in candidates]


def given_labels(preparation: Preparation) -> dict[str, Label]:
    """Those of `preparation.verdicts`: imported, or made by the preparation's rules and with its limits."""
    if not preparation.verdicts:
        return {}
    makings, labels = read_made([preparation.verdicts])
    wanted = {"rules": preparation.rules, "limits": str(preparation.limits)}
    for made in makings:
        changed = differences(made, wanted, "now")
        if changed and made.get("rules") != IMPORTED:
            raise DajError(
                f"verdicts: {preparation.verdicts} was made with {changed}. Set data.rules and data.limits to what "
                f"made it, or label the candidates with these."
            )
    return labels


def keep_what_holds(journal: Journal, making: Making, programs: Mapping[str, str], console: Console) -> None:
    """Leave the verdicts of this making on these programs; a file of another making is renamed, and the reason told."""
    path = journal.path
    if not path.stat().st_size:
        return
    try:
        makings, labels = read_made([path])
        changed = differences(makings[0], making.row(), "now")
        why = f"was made with {changed}" if changed else ""
    except DajError as error:  # damaged, or of another version
        why = f"cannot be read ({error})"
    if why:
        old = path.with_name(path.name + ".old")
        journal.restart([], keep_as=old)
        said = f"{path} {why}: renamed to {old.name}; every candidate is executed again"
    else:
        kept = [label.row() for name, label in labels.items() if programs.get(name) == label.program]
        if len(kept) == len(labels):
            return
        journal.restart([makings[0], *kept])
        said = f"{len(labels) - len(kept)} of {len(labels)} verdicts in {path} are of programs that are gone; dropped"
    console.print(said, highlight=False, markup=False, soft_wrap=True)


def digest_of(preparation: Preparation, problems: Mapping[str, Problem]) -> str:
    """Of where the problems come from, and of all that is in memory of them; candidates have fingerprints."""
    source = preparation.source.problems_description()
    parts = [json.dumps(source, sort_keys=True, default=str), preparation.verdicts_digest()]
    for problem in problems.values():
        parts += [problem.problem_id, repr(problem.function_name), repr(problem.public_tests), repr(problem.unit_tests)]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
