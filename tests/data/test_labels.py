"""Every candidate gets one verdict, whatever kills the run, and a file says what made it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from daj_lightning.__main__ import main
from daj_lightning.data import labelling as engine
from daj_lightning.data.journal import Journal, checksum
from daj_lightning.data.labelling import label_candidates, shard_of
from daj_lightning.data.labels import (
    FIRST_KEYS,
    IMPORTED,
    Label,
    Making,
    flips,
    read_graded,
    read_labels,
    resume,
)
from daj_lightning.data.prepare import prepare
from daj_lightning.execution import Limits, Rules, Sandbox, SandboxError, grade_all
from daj_lightning.execution.grader import JOBS_AHEAD, UNITTEST
from daj_lightning.records import Candidate, DajError, Outcome, Problem, TestCase, UnitTests
from tiny import ToySource, toy_data

MAKING = Making("digest", "process", str(Limits()), "namespaces", "3.11")


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox()


def silent() -> Console:
    return Console(file=io.StringIO())


def plus(k: int) -> Problem:
    """Print n plus k."""
    return Problem(f"plus-{k}", "", "", "atcoder", "easy", date(2024, 3, 1), "", None, (TestCase("1", str(1 + k)),), ())


PROBLEMS = {problem.problem_id: problem for problem in map(plus, range(4))}


def candidates(number: int) -> list[Candidate]:
    """Every other one is right."""
    return [
        Candidate(f"c{i}", f"plus-{i % 4}", "toy", f"print(int(input()) + {i % 4 + i % 2})  # {i}")
        for i in range(number)
    ]


def write_problems(path: Path, number: int = 4) -> Path:
    rows = [
        {
            "question_title": "Plus",
            "question_content": f"Print n plus {k}.",
            "platform": "atcoder",
            "question_id": f"plus-{k}",
            "contest_date": "2024-03-01T00:00:00",
            "starter_code": "",
            "difficulty": "easy",
            "public_test_cases": json.dumps([{"input": "1\n", "output": f"{1 + k}\n", "testtype": "stdin"}]),
            "private_test_cases": "[]",
            "metadata": "{}",
        }
        for k in range(number)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_candidates(path: Path, rows: Iterable[Candidate]) -> Path:
    text = (
        {"candidate_id": c.candidate_id, "problem_id": c.problem_id, "policy": c.policy, "code": c.code} for c in rows
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in text))
    return path


def outcomes(path: Path) -> dict[str, Outcome]:
    return {name: label.verdict.outcome for name, label in read_labels([path]).items()}


def run(
    path: Path, own: Sequence[Candidate], sandbox: Sandbox | None, making: Making = MAKING, **options: Any
) -> Counter[Outcome]:
    with Journal(path, "labels") as journal:
        return label_candidates(
            PROBLEMS, lambda: own, journal, making, sandbox, num_workers=1, console=silent(), **options
        )


def command(problems: Path, own: Path, output: Path, *more: str) -> list[str]:
    return [
        *("label", "--problems", str(problems), "--candidates", str(own), "--output", str(output)),
        *("--num_workers", "1", *more),
    ]


def test_a_run_killed_with_sigkill_is_finished_by_the_next_one(tmp_path: Path) -> None:
    """Forty candidates; the first run is killed with some rows written, each id then stands there once."""
    problems = write_problems(tmp_path / "problems.jsonl")
    own = write_candidates(tmp_path / "candidates.jsonl", candidates(40))
    broken, unbroken = tmp_path / "broken.jsonl", tmp_path / "unbroken.jsonl"
    start = [sys.executable, "-m", "daj_lightning", *command(problems, own, broken)]
    process = subprocess.Popen(start, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not broken.exists() or broken.read_bytes().count(b"\n") < 6:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    written = len(read_labels([broken]))
    assert 5 <= written < 40
    for path in (broken, unbroken):
        assert main(command(problems, own, path)) == 0
    rows = [json.loads(line) for line in broken.read_text().splitlines()]
    assert [row["candidate_id"] for row in rows[1:]] == [f"c{i}" for i in range(40)]
    assert outcomes(broken) == outcomes(unbroken)
    assert Counter(outcomes(broken).values()) == {Outcome.PASSED: 20, Outcome.WRONG_ANSWER: 20}
    assert flips(read_labels([broken]), read_labels([unbroken])) == []


def test_a_finished_file_is_left_as_it_is(tmp_path: Path, sandbox: Sandbox) -> None:
    path = tmp_path / "v.jsonl"
    first = run(path, candidates(4), sandbox)
    before = path.read_bytes()
    assert run(path, candidates(4), sandbox) == first == {Outcome.PASSED: 2, Outcome.WRONG_ANSWER: 2}
    assert path.read_bytes() == before


def test_candidates_added_later_are_the_only_ones_executed(tmp_path: Path, sandbox: Sandbox) -> None:
    path = tmp_path / "v.jsonl"
    run(path, candidates(3), sandbox)
    before = path.read_bytes()
    run(path, candidates(5), sandbox)
    assert path.read_bytes().startswith(before)
    assert list(outcomes(path)) == [f"c{i}" for i in range(5)]


def test_every_row_carries_the_checksum_of_the_rest(tmp_path: Path, sandbox: Sandbox) -> None:
    path = tmp_path / "v.jsonl"
    run(path, candidates(2), sandbox)
    header, *rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert header == {**MAKING.row(), "crc": checksum(MAKING.row())}
    for row in rows:
        assert row["crc"] == checksum({key: value for key, value in row.items() if key != "crc"})
        assert (row["problem_id"], row["grader"]) == (f"plus-{row['candidate_id'][1]}", "process")


def test_a_torn_last_line_is_cut_off_and_its_candidate_executed_again(tmp_path: Path, sandbox: Sandbox) -> None:
    path = tmp_path / "v.jsonl"
    run(path, candidates(3), sandbox)
    whole = outcomes(path)
    path.write_bytes(path.read_bytes()[:-7])
    assert list(outcomes(path)) == ["c0", "c1"]
    run(path, candidates(3), sandbox)
    assert outcomes(path) == whole
    assert path.read_bytes().count(b"\n") == 4


def test_a_torn_first_line_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    path.write_bytes(b'{"format": "daj la')
    with Journal(path, "labels") as journal:
        assert resume(journal, MAKING) == ({}, {})
    assert json.loads(path.read_text())["rules"] == "process"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda line: line.replace(b'"passed"', b'"crashed"'), "its checksum is"),
        (lambda line: line[: len(line) // 2] + b"\n", "it is not JSON"),
        (lambda line: line.replace(b'"crc"', b'"crd"'), "it carries no checksum"),
        (lambda line: b"\0" * 40 + b"\n", "it is not JSON"),
    ],
    ids=["changed", "cut", "no checksum", "zeros"],
)
def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path, sandbox: Sandbox, spoil: Any, said: str) -> None:
    path = tmp_path / "v.jsonl"
    run(path, candidates(4), sandbox)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:1], spoil(lines[1]), *lines[2:]]))
    for use in (lambda: read_labels([path]), lambda: run(path, candidates(4), sandbox)):
        with pytest.raises(DajError, match=rf"v.jsonl, line 2 is damaged: {said}"):
            use()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"problems": "other"}, "problems 'digest', now 'other'"),
        ({"rules": "official"}, "rules 'process', now 'official'"),
        ({"sandbox": "unsafe-local"}, "sandbox 'namespaces', now 'unsafe-local'"),
        ({"python": "3.12"}, "python '3.11', now '3.12'"),
        ({"shard": "1/2"}, "shard '0/1', now '1/2'"),
        ({"limits": "other"}, "limits .*, now 'other'"),
    ],
)
def test_a_run_with_other_settings_is_refused(
    tmp_path: Path, sandbox: Sandbox, changed: dict[str, str], said: str
) -> None:
    path = tmp_path / "v.jsonl"
    run(path, candidates(1), sandbox)
    with pytest.raises(DajError, match=said):
        run(path, candidates(2), sandbox, made(changed))


def test_a_run_goes_on_on_a_host_with_control_groups(tmp_path: Path, sandbox: Sandbox) -> None:
    path = tmp_path / "v.jsonl"
    run(path, candidates(1), sandbox)
    assert run(path, candidates(2), sandbox, made({"sandbox": "namespaces+cgroup"})).total() == 2


def made(changed: dict[str, str]) -> Making:
    settings = {key: value for key, value in MAKING.row().items() if key != "format"}
    return Making(**{**settings, **changed})


def test_a_program_that_changed_under_its_id_is_refused(tmp_path: Path, sandbox: Sandbox) -> None:
    path = tmp_path / "v.jsonl"
    run(path, candidates(2), sandbox)
    other = [Candidate("c1", "plus-1", "toy", "print(2)")]
    with pytest.raises(DajError, match=r"'c1' has a verdict in '.*v\.jsonl' which is of another program"):
        run(path, other, sandbox)


def test_a_candidate_id_that_occurs_twice_is_refused_before_anything_runs(tmp_path: Path, sandbox: Sandbox) -> None:
    path = tmp_path / "v.jsonl"
    with pytest.raises(DajError, match="'c0' occurs twice"):
        run(path, [*candidates(2), *candidates(1)], sandbox)
    assert outcomes(path) == {}


def test_two_runs_on_one_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    with (
        Journal(path, "labels"),
        pytest.raises(DajError, match="another process writes"),
        Journal(path, "labels"),
    ):
        pass
    with Journal(path, "labels"):
        pass  # the lock went with its holder


def test_a_response_without_code_fails_unexecuted(tmp_path: Path, sandbox: Sandbox) -> None:
    path = tmp_path / "v.jsonl"
    blank = Candidate("blank", "plus-0", "toy", " \n")
    assert run(path, [*candidates(1), blank], sandbox) == {Outcome.PASSED: 1, Outcome.CRASHED: 1}
    verdict = read_labels([path])["blank"].verdict
    assert (verdict.outcome, verdict.detail, verdict.sandbox) == (Outcome.CRASHED, "no code in the response", "none")
    assert run(tmp_path / "alone.jsonl", [blank], None) == {Outcome.CRASHED: 1}


class Failing:
    """`grade_all`, but its sandbox fails on some candidates: that needs a broken host."""

    def __init__(self, on: Sequence[str]) -> None:
        self.on = on

    def __call__(self, jobs: Iterable[tuple[Problem, Candidate]], sandbox: Sandbox, *rest: Any) -> Iterator[Any]:
        jobs = list(jobs)  # the worst case: all of them are under way
        for job in jobs:
            if job[1].candidate_id in self.on:
                raise SandboxError("no more processes")
            yield from grade_all([job], sandbox, *rest)


def test_a_sandbox_that_fails_loses_one_candidate_and_the_next_run_takes_it(
    tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "v.jsonl"
    with monkeypatch.context() as patched:
        patched.setattr(engine, "grade_all", Failing(["c1", "c3"]))
        with pytest.raises(DajError, match=r"failed on 2 candidates.*c1: no more processes.*5 verdicts stand in"):
            run(path, candidates(7), sandbox)
    assert set(outcomes(path)) == {"c0", "c2", "c4", "c5", "c6"}
    run(path, candidates(7), sandbox)
    assert set(outcomes(path)) == {f"c{i}" for i in range(7)}


def test_a_sandbox_that_only_fails_ends_the_run(
    tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "grade_all", Failing([f"c{i}" for i in range(1, 20)]))
    with pytest.raises(DajError, match="failed on 3 candidates"):
        run(tmp_path / "v.jsonl", candidates(20), sandbox)
    assert set(outcomes(tmp_path / "v.jsonl")) == {"c0"}


def test_shards_share_the_problems_out_and_their_files_joined_are_one_runs(tmp_path: Path) -> None:
    problems = write_problems(tmp_path / "problems.jsonl")
    own = write_candidates(tmp_path / "candidates.jsonl", candidates(12))
    parts = [tmp_path / f"v{i}.jsonl" for i in range(2)]
    for i, part in enumerate(parts):
        assert main(command(problems, own, part, "--shard", f"{i}/2")) == 0
    of = [{label.problem_id for label in read_labels([part]).values()} for part in parts]
    assert not of[0] & of[1]
    assert of[0] | of[1] == set(PROBLEMS)
    whole = read_labels(parts)
    assert set(whole) == {f"c{i}" for i in range(12)}
    joined = tmp_path / "joined.jsonl"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert read_labels([joined]) == whole
    with pytest.raises(DajError, match=r"candidate 'c\d+' has a verdict already; the same shard twice\?"):
        read_labels([*parts, parts[0]])


@pytest.mark.parametrize("joined", [True, False])
def test_parts_made_differently_are_not_read_as_one(tmp_path: Path, joined: bool) -> None:
    """But those of other shards, of hosts with and without control groups, and imported ones are."""

    def part(name: str, **changed: str) -> Path:
        path = tmp_path / f"{name}.jsonl"
        with Journal(path, "labels", FIRST_KEYS) as journal:
            resume(journal, made(changed))
        return path

    def read(*parts: Path) -> dict[str, Label]:
        whole = tmp_path / "whole.jsonl"
        whole.write_bytes(b"".join(p.read_bytes() for p in parts))
        return read_labels([whole] if joined else parts)

    first = part("first", shard="0/2")
    fine = [part("a", shard="1/2", sandbox="namespaces+cgroup"), part("b", rules=IMPORTED, problems="unknown")]
    assert read(first, *fine) == {}
    for changed, said in (
        ({"rules": "official"}, "rules 'process', here 'official'"),
        ({"limits": "other"}, r"limits '.*', here 'other'"),
        ({"problems": "p"}, "problems 'digest', here 'p'"),
        ({"sandbox": "unsafe-local"}, "sandbox 'namespaces', here 'unsafe-local'"),
        ({"python": "3.9"}, "python '3.11', here '3.9'"),
    ):
        with pytest.raises(DajError, match=rf"made differently than those from .*: {said}\."):
            read(first, part("c", shard="1/2", **changed))
        (tmp_path / "c.jsonl").unlink()


@pytest.mark.parametrize(("rules", "grader"), [("process", "process"), ("official", "official@28fef95")])
def test_an_unexecuted_verdict_names_the_grader_of_the_executed_ones(
    tmp_path: Path, sandbox: Sandbox, rules: Rules, grader: str
) -> None:
    path = tmp_path / "v.jsonl"
    own = [*candidates(1), Candidate("blank", "plus-0", "toy", "")]
    run(path, own, sandbox, made({"rules": rules}), rules=rules)
    assert {label.verdict.grader for label in read_labels([path]).values()} == {grader}


def test_an_unexecuted_verdict_on_unit_tests_is_forgeable_as_the_others(tmp_path: Path) -> None:
    task = replace(plus(0), public_tests=(), unit_tests=UnitTests("", "task_func", "def task_func():\n"))
    path = tmp_path / "v.jsonl"
    with Journal(path, "labels", FIRST_KEYS) as journal:
        blank = [Candidate("blank", "plus-0", "toy", "")]
        label_candidates({"plus-0": task}, lambda: blank, journal, MAKING, None, num_workers=1, console=silent())
    verdict = read_labels([path])["blank"].verdict
    assert (verdict.grader, verdict.forgeable) == (UNITTEST, True)


def test_the_shard_of_a_problem_is_the_same_on_every_machine() -> None:
    """Fixed here, since shards may run under other versions and hash seeds."""
    first = shard_of("0/3")
    assert [first(f"abc{k}") for k in range(8)] == [False, True, False, False, False, False, True, True]


@pytest.mark.parametrize("wrong", ["2/2", "1", "a/2", "-1/2", "0/0", "1/2/3", ""])
def test_a_shard_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(DajError, match="is not i/n with 0 <= i < n"):
        shard_of(wrong)


def test_candidates_of_other_problems_are_left_out_and_counted(tmp_path: Path, capsys: Any) -> None:
    problems = write_problems(tmp_path / "problems.jsonl", number=1)
    own = write_candidates(tmp_path / "candidates.jsonl", candidates(3))
    assert main(command(problems, own, tmp_path / "v.jsonl")) == 0
    assert "1 verdicts in" in (said := capsys.readouterr().out)
    assert "passed 1; 2 candidates of unknown problems left out" in said
    stranger = write_candidates(tmp_path / "strangers.jsonl", [Candidate("s", "minus-1", "toy", "pass")])
    assert main(command(problems, stranger, tmp_path / "w.jsonl")) == 2
    assert "none of the 1 candidates" in capsys.readouterr().err


def test_limits_and_rules_of_the_command_stand_in_the_file(tmp_path: Path, capsys: Any) -> None:
    problems = write_problems(tmp_path / "problems.jsonl")
    sleepy = [Candidate("sleepy", "plus-0", "toy", "import time\ntime.sleep(20)")]
    own = write_candidates(tmp_path / "candidates.jsonl", sleepy)
    settings = ("--limits.test_wall_s", "1.5", "--rules", "official")
    assert main(command(problems, own, tmp_path / "v.jsonl", *settings)) == 0
    header, row = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert (header["rules"], row["outcome"]) == ("official", "timed_out")
    assert "test_wall_s=1.5" in header["limits"]
    assert row["grader"].startswith("official")
    assert main(command(problems, own, tmp_path / "v.jsonl")) == 2
    assert "rules 'official', now 'process'" in capsys.readouterr().err


def test_no_more_candidates_are_held_than_a_few_ahead_of_the_workers(tmp_path: Path, sandbox: Sandbox) -> None:
    """What is read beyond what is written stays bounded: memory cannot grow with the file."""
    path = tmp_path / "v.jsonl"
    read = 0
    ahead: list[int] = []

    def stream() -> Iterator[Candidate]:
        nonlocal read
        read = 0
        for candidate in candidates(40):
            read += 1
            ahead.append(read - (path.read_bytes().count(b"\n") - 1) if passes == 2 else 0)
            yield candidate

    passes = 0

    def anew() -> Iterator[Candidate]:
        nonlocal passes
        passes += 1
        return stream()

    with Journal(path, "labels") as journal:
        label_candidates(PROBLEMS, anew, journal, MAKING, sandbox, num_workers=1, console=silent())
    assert passes == 2
    assert 0 < max(ahead) <= JOBS_AHEAD + 1 < 40


class Counting(ToySource):
    """Three toy problems, one a side."""

    def load(self) -> tuple[list[Problem], list[Candidate]]:
        problems, own = super().load()
        problems = [p for p in problems if p.problem_id in ("plus-1", "plus-9", "plus-15")]
        kept = {p.problem_id for p in problems}
        return problems, [c for c in own if c.problem_id in kept]


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the candidates that are handed to the grader, as they are."""
    names: list[str] = []

    def noting(jobs: Iterable[tuple[Problem, Candidate]], *rest: Any) -> Iterator[Any]:
        def noted() -> Iterator[tuple[Problem, Candidate]]:
            for job in jobs:
                names.append(job[1].candidate_id)
                yield job

        yield from grade_all(noted(), *rest)

    monkeypatch.setattr(engine, "grade_all", noting)
    return names


def test_a_preparation_that_was_killed_goes_on_with_its_verdicts(tmp_path: Path, executed: list[str]) -> None:
    data = toy_data(tmp_path, tmp_path, source=Counting())
    manifest = prepare(data.preparation, tmp_path, silent())
    assert len(executed) == 12
    verdicts = tmp_path / "verdicts.jsonl"
    graded = read_graded(tmp_path)
    lines = verdicts.read_bytes().splitlines(keepends=True)
    verdicts.write_bytes(b"".join(lines[:6]) + lines[6][:20])  # five whole verdicts
    executed.clear()
    assert prepare(data.preparation, tmp_path, silent()) == manifest
    assert len(executed) == 7
    assert read_graded(tmp_path) == graded


def test_a_preparation_of_other_limits_or_programs_executes_everything_again(
    tmp_path: Path, executed: list[str]
) -> None:
    class Changed(Counting):
        def load(self) -> tuple[list[Problem], list[Candidate]]:
            problems, own = super().load()
            return problems, [Candidate(c.candidate_id, c.problem_id, c.policy, f"{c.code}  # once more") for c in own]

    prepare(toy_data(tmp_path, tmp_path, source=Counting()).preparation, tmp_path, silent())
    for changed in ({"limits": Limits(memory_mib=900)}, {"source": Changed()}):
        executed.clear()
        data = toy_data(tmp_path, tmp_path, **{"source": Counting(), **changed})
        prepare(data.preparation, tmp_path, silent())
        assert len(executed) == 12


def test_a_preparation_with_a_candidate_less_executes_nothing_and_drops_its_verdict(
    tmp_path: Path, executed: list[str]
) -> None:
    """Also where control groups came with a reboot."""

    class Fewer(Counting):
        def load(self) -> tuple[list[Problem], list[Candidate]]:
            problems, own = super().load()
            return problems, own[1:]

    prepare(toy_data(tmp_path, tmp_path, source=Counting()).preparation, tmp_path, silent())
    verdicts = tmp_path / "verdicts.jsonl"
    first, *lines = verdicts.read_text().splitlines()
    making = json.loads(first)
    del making["crc"]
    making["sandbox"] = {"namespaces": "namespaces+cgroup"}.get(making["sandbox"], making["sandbox"].split("+")[0])
    verdicts.write_text("\n".join([json.dumps({**making, "crc": checksum(making)}), *lines]) + "\n")
    executed.clear()
    said = io.StringIO()
    data = toy_data(tmp_path, tmp_path, source=Fewer())
    prepare(data.preparation, tmp_path, Console(file=said))
    assert executed == []
    assert verdicts.read_text().splitlines()[1:] == lines[1:]
    assert "1 of 12 verdicts in" in said.getvalue()
    assert not (tmp_path / "verdicts.jsonl.old").exists()


def test_verdicts_of_other_limits_are_set_aside_and_the_reason_told(tmp_path: Path) -> None:
    prepare(toy_data(tmp_path, tmp_path, source=Counting()).preparation, tmp_path, silent())
    before = (tmp_path / "verdicts.jsonl").read_bytes()
    said = io.StringIO()
    data = toy_data(tmp_path, tmp_path, source=Counting(), limits=Limits(memory_mib=900))
    prepare(data.preparation, tmp_path, Console(file=said))
    assert (tmp_path / "verdicts.jsonl.old").read_bytes() == before
    assert re.search(r"made with limits .*memory_mib=900.*renamed to verdicts\.jsonl\.old; every", said.getvalue())


def test_given_verdicts_are_taken_over_and_only_the_other_candidates_executed(
    tmp_path: Path, executed: list[str], sandbox: Sandbox
) -> None:
    """The given file calls the wrong programs of plus-1 right, which shows whose verdict counts."""
    problems, own = Counting().load()
    fake = {p.problem_id: p for p in problems}
    given = tmp_path / "given.jsonl"
    with Journal(given, "labels") as journal:
        label_candidates(
            {"plus-1": fake["plus-1"]},
            lambda: [c for c in own if c.candidate_id in ("plus-1/0", "plus-1/2")],
            journal,
            MAKING,
            sandbox,
            num_workers=1,
            console=silent(),
        )
    lines = [json.loads(line) for line in given.read_text().splitlines()]
    for row in lines[1:]:
        row.pop("crc")
        row["outcome"], row["grader"] = ("crashed" if row["outcome"] == "passed" else "passed"), "lcb-import"
        row["crc"] = checksum(row)
    given.write_text("".join(json.dumps(row) + "\n" for row in lines))
    executed.clear()
    data = toy_data(tmp_path / "root", tmp_path, source=Counting(), verdicts=str(given))
    manifest = prepare(data.preparation, data.root, silent())
    assert set(executed) == {c.candidate_id for c in own} - {"plus-1/0", "plus-1/2"}
    assert {c.candidate_id: ok for c, ok in read_graded(data.root)["plus-1"]} == {
        "plus-1/0": False,
        "plus-1/1": True,
        "plus-1/2": True,
        "plus-1/3": False,
    }
    assert manifest["execution"]["grader"] == ["lcb-import", "process"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rules": "official"}, r"made with rules 'official', now 'process'\. Set data\.rules"),
        ({"limits": "other"}, "made with limits 'other', now "),
    ],
)
def test_given_verdicts_of_other_rules_or_limits_are_refused(
    tmp_path: Path, executed: list[str], changed: dict[str, str], said: str
) -> None:
    given = tmp_path / "given.jsonl"
    with Journal(given, "labels", FIRST_KEYS) as journal:
        resume(journal, made(changed))
    data = toy_data(tmp_path / "root", tmp_path, source=Counting(), verdicts=str(given))
    with pytest.raises(DajError, match=said):
        prepare(data.preparation, data.root, silent())
    assert executed == []


def test_given_verdicts_of_other_programs_are_refused(tmp_path: Path, sandbox: Sandbox) -> None:
    given = tmp_path / "given.jsonl"
    with Journal(given, "labels") as journal:
        own = [Candidate("plus-1/0", "plus-1", "toy", "print(1)")]
        label_candidates(PROBLEMS, lambda: own, journal, MAKING, sandbox, num_workers=1, console=silent())
    data = toy_data(tmp_path / "root", tmp_path, source=Counting(), verdicts=str(given))
    with pytest.raises(DajError, match=r"1 verdicts are of other programs .* first 'plus-1/0'"):
        prepare(data.preparation, data.root, silent())


def test_a_missing_file_of_verdicts_is_named_before_anything_is_executed(tmp_path: Path, executed: list[str]) -> None:
    data = toy_data(tmp_path / "root", tmp_path, source=Counting(), verdicts=str(tmp_path / "nowhere.jsonl"))
    with pytest.raises(DajError, match=r"no file '.*nowhere\.jsonl'"):
        prepare(data.preparation, data.root, silent())
    assert executed == []


def test_a_response_without_code_counts_as_failing_and_no_judge_is_shown_it(tmp_path: Path) -> None:
    class WithBlank(Counting):
        def load(self) -> tuple[list[Problem], list[Candidate]]:
            problems, own = super().load()
            return problems, [*own, *(Candidate(f"{p.problem_id}/blank", p.problem_id, "toy", "") for p in problems)]

    data = toy_data(tmp_path, tmp_path, source=WithBlank())
    manifest = prepare(data.preparation, tmp_path, silent())
    assert manifest["outcomes"]["crashed"] == 3
    assert [c.candidate_id for c, ok in read_graded(tmp_path)["plus-1"] if not ok][-1] == "plus-1/blank"
    for name in ("train", "meta", "validation", "test"):
        assert "/blank" not in (tmp_path / f"{name}.jsonl").read_text()


def test_progress_that_is_no_terminal_is_told_in_plain_lines(tmp_path: Path, sandbox: Sandbox) -> None:
    said = io.StringIO()
    with Journal(tmp_path / "v.jsonl", "labels") as journal, contextlib.redirect_stdout(said):
        label_candidates(PROBLEMS, lambda: candidates(2), journal, MAKING, sandbox, num_workers=1)
    (line,) = said.getvalue().splitlines()
    assert line.startswith("labelling: 2 of 2, ")
    assert line.endswith("candidates/s, 0:00:00 left")
