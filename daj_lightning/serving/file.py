"""`select` of the command line: JSON Lines in and out, gone on with after any interruption.

Beside the output lie the judge's answers (`judgments.py`). A run that goes on leads the finished problems through
their answers again, without asking or executing anything: a strategy that learns from problem to problem then knows
what it knew, and with greedy decoding the output is that of an unbroken run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from daj_lightning.data import read_jsonl
from daj_lightning.data.journal import Journal
from daj_lightning.data.progress import Meter
from daj_lightning.judge import Strategy
from daj_lightning.records import Candidate, DajError, Problem
from daj_lightning.rollout import RolloutEngine
from daj_lightning.serving.judgments import Judgments
from daj_lightning.serving.rows import Group, group_from_row
from daj_lightning.serving.screening import NONE_PASSED, UNTESTED, Screener, Screening, unscreened
from daj_lightning.serving.selector import Choice, Docket, Selector

AT_ONCE = 64
"""Problems whose comparisons share batches."""
_ROW = ("problem_id", "selected", "code", "votes", "made_by")


class Picked(NamedTuple):
    """What `select_file` did."""

    num_new: int = 0
    num_before: int = 0
    """Problems that an earlier run of the same command had done."""
    num_comparisons: int = 0
    """Of the new ones; a round robin asks for N (N - 1) / 2."""
    num_remembered: int = 0
    """Of those, answered before an earlier run broke off."""
    num_of_round_robin: int = 0
    num_abstained: int = 0
    num_too_long: int = 0
    """Comparisons that did not fit into the judge's context."""
    num_untested: int = 0
    """Problems without public tests, in a hybrid."""
    num_none_passed: int = 0
    """Problems of which no candidate passed the public tests, in a hybrid."""
    num_out: int = 0
    """Candidates that failed a public test."""

    def add(self, choice: Choice, num_candidates: int) -> Picked:
        chosen, note = choice.selection, choice.screening.note
        return Picked(
            self.num_new + 1,
            self.num_before,
            self.num_comparisons + chosen.num_comparisons,
            self.num_remembered + choice.num_remembered,
            self.num_of_round_robin + num_candidates * (num_candidates - 1) // 2,
            self.num_abstained + (chosen.winner is None),
            self.num_too_long + choice.num_too_long,
            self.num_untested + (note == UNTESTED),
            self.num_none_passed + (note == NONE_PASSED),
            self.num_out + len(choice.screening.out),
        )


def select_file(
    judge: str,
    candidates: str,
    output: str,
    strategy: Strategy,
    batch_size: int = 16,
    engine: RolloutEngine | None = None,
    screener: Screener | None = None,
) -> Picked:
    """`select` of the command line; every row is read and checked before the judge is loaded.

    Goes on where an earlier run of the same judge and strategy broke off.
    """
    groups = [
        group_from_row(row, f"{candidates}, row {n}") for n, row in enumerate(read_jsonl(candidates, "candidates"), 1)
    ]
    if batch_size < 1 or not Path(output).parent.is_dir():
        raise DajError(f"batch_size={batch_size} must be >= 1, and the directory of {output!r} must exist.")
    if not groups:
        raise DajError(f"{candidates} has no row; nothing to select from.")
    _check_ids([problem.problem_id for problem, _ in groups], candidates)
    made_by = f"{judge}: {strategy}{', after public tests' if screener else ''}"
    with Journal(output, "selections", _ROW, begins='{"problem_id') as journal:
        done = _done(output, groups, made_by)
        picked = Picked(num_before=len(done))
        if len(done) == len(groups):
            return picked
        with Judgments(judgments_path(output), judge) as memory:
            selector = Selector(judge, strategy, batch_size, engine, screener)
            with closing(selector), Meter("selecting", len(groups) - len(done), "problems") as meter:
                for problem, programs, choice in _choices(selector, memory, groups, done):
                    journal.append(_row(problem, programs, choice, made_by))
                    picked = picked.add(choice, len(programs))
                    meter.advance()
    return picked


def judgments_path(output: str) -> Path:
    """Where the judge's answers of a selection file lie: picked.judgments.jsonl beside picked.jsonl."""
    return Path(output.removesuffix(".jsonl") + ".judgments.jsonl")


def _choices(
    selector: Selector, memory: Judgments, groups: Sequence[Group], done: Mapping[str, Screening]
) -> Iterator[tuple[Problem, list[Candidate], Choice]]:
    """The choices of all problems that are not done, as they fall."""
    docket = Docket(selector, memory)
    under_way: dict[str, Group] = {}
    rest = iter(groups)
    left = [group for group in groups if group[0].problem_id not in done]
    screener = selector.screener
    screenings = screener.screen(left) if screener else (unscreened(programs) for _, programs in left)
    while True:
        for problem, programs in islice(rest, AT_ONCE - len(docket)):
            is_done = problem.problem_id in done
            screening = done[problem.problem_id] if is_done else next(screenings)
            key = docket.add(problem, programs, screening, only_recalled=is_done)
            if not is_done:
                under_way[key] = problem, programs
        if not docket:
            return
        for key, choice in docket.step().items():
            if key in under_way:
                yield *under_way.pop(key), choice


def _row(problem: Problem, programs: Sequence[Candidate], choice: Choice, made_by: str) -> dict[str, Any]:
    chosen = choice.selection
    winner = None if chosen.winner is None else programs[chosen.winner]
    return {
        "problem_id": problem.problem_id,
        "selected": chosen.winner,
        "candidate_id": winner and winner.candidate_id,
        "code": winner and winner.code,
        "votes": list(chosen.votes),
        "num_invalid": chosen.num_invalid,
        "num_comparisons": chosen.num_comparisons,
        "confidence": round(chosen.confidence, 4),
        **({"num_too_long": choice.num_too_long} if choice.num_too_long else {}),
        **({"hybrid": choice.screening.row()} if choice.screening.note else {}),
        "made_by": made_by,
    }


def _check_ids(ids: Sequence[str], where: str) -> None:
    twice = sorted(name for name, times in Counter(ids).items() if times > 1)
    if twice:
        raise DajError(f"{where}: problem_id {twice[0]!r} stands in {ids.count(twice[0])} rows; each needs its own.")


def _done(output: str, groups: Sequence[Group], made_by: str) -> dict[str, Screening]:
    """Problems that the output holds already, with the candidates that the judge was asked about.

    Raises:
        DajError: it was made by another judge or strategy, or of other programs.
    """
    programs_of = {problem.problem_id: programs for problem, programs in groups}
    done: dict[str, Screening] = {}
    for row in read_jsonl(output, "selections"):
        name, selected = row["problem_id"], row["selected"]
        programs = programs_of.get(name, [])
        codes = [program.code for program in programs]
        of_these = name in programs_of and (selected is None or codes[selected : selected + 1] == [row["code"]])
        if row["made_by"] != made_by or not of_these:
            what = "other candidates" if row["made_by"] == made_by else f"{row['made_by']!r}, and this is {made_by!r}"
            raise DajError(f"{output!r} holds selections of {what}. Name another output, or remove it.")
        out = {entry["candidate_id"] for entry in row.get("hybrid", {}).get("out", [])}
        kept = tuple(place for place, program in enumerate(programs) if program.candidate_id not in out)
        done[name] = Screening(kept or tuple(range(len(programs))))
    return done
