"""BigCodeBench's rows, domains and sides: pure functions, the files are read in bigcodebench_source.py.

A row becomes a Problem with unit tests in place of inputs and outputs. The paper (App. A) asks the Instruct
variant, tests on BigCodeBench-Hard, and cuts the other tasks by the mean pass rate of four policies: the
hardest 20 % are the meta set, the rest is the training set. What it leaves open is decided and stated here:

Domain. A task names several libraries and each has a domain, so that 835 of the 1,140 tasks have more than one. The
    majority over the libraries decides; 398 tasks tie. Of the tied domains the rarer in the benchmark wins, as
    it says more about the task: nearly two thirds of all tasks name Computation. General (`collections`, `random`,
    `re`) never wins a tie, although it is rarer than Computation: it is the name of what has no subject.
    The order is a constant, so that part of the benchmark is labelled as the whole would be.
Cut. 20 % of 992 is 198.4: rounded to the nearest whole task, half a task up. Tasks of equal rate go by the
    number in their id, smaller first; where the cut falls among equals, they are listed.

What grading needs beyond this file: 139 libraries in an environment of their own, in the versions of
bigcodebench's Requirements/requirements-eval.txt (Python 3.10). Some tasks want the network or the date of
today, and some canonical solutions fail their own tests on a given machine; the authors see results move by 0.2 %
(Hard: 0.6 %) between runs. So run the canonical solutions first, and leave out the tasks whose own fails.
"""

from __future__ import annotations

import ast
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from daj_lightning.execution.bigcodebench import calibrated, count_tests
from daj_lightning.records import DajError, Problem, UnitTests

BCB_DOMAINS = ("Computation", "Visualization", "System", "Time", "Network", "Cryptography", "General")
"""Section 5.1 of the paper, in its order."""
TIES = ("Cryptography", "Network", "Time", "System", "Visualization", "Computation", "General")
"""Of tied domains the first wins: tasks that name them 61, 94, 112, 338, 348, 720; General, of 504, last."""
PLATFORM = "bigcodebench"
DIFFICULTY = "full"
"""Of every task: BigCodeBench grades none, and the prompt shows the word, which must not tell the sides apart."""
META_SHARE = 0.2
NUM_LISTED = 5
"""Ids that an error names."""

Variant = Literal["instruct", "complete"]
_TEXTS = ("task_id", "complete_prompt", "instruct_prompt", "code_prompt", "test", "entry_point")


def problem_from_task(row: Mapping[str, Any], *, variant: Variant, topic: str, split: str) -> Problem:
    """A row of BigCodeBench (v0.1.x) as a Problem.

    Args:
        variant: which prompt is the statement.
        topic: the task's domain.
        split: "train", "meta" or "test".
    Raises:
        DajError: a field is missing or is no text, the given code or the tests do not parse, or there is no test.
    """
    name = row.get("task_id", "?")
    missing = [field for field in _TEXTS if field not in row]
    if missing:
        raise DajError(f"task {name!r} lacks {missing}; wanted BigCodeBench's fields {[*_TEXTS, 'libs']}.")
    for field in _TEXTS:
        if not isinstance(row[field], str) or not row[field].strip():
            raise DajError(f"task {name!r}: {field} is {str(row[field])[:40]!r}, wanted text. Restore the row.")
    tests = UnitTests(source=row["test"], entry_point=row["entry_point"], code_prompt=row["code_prompt"])
    check_code_prompt(name, tests)
    try:
        number = count_tests(tests.source)
    except DajError as error:
        raise DajError(f"task {name!r}: {error}") from error
    if not number:
        raise DajError(f"task {name!r}: no test in a class TestCases; every program would pass. Remove the row.")
    return Problem(
        problem_id=name,
        title=name,
        statement=row[f"{variant}_prompt"],
        platform=PLATFORM,
        difficulty=DIFFICULTY,
        release_date=None,
        starter_code=row["code_prompt"],
        function_name=None,
        public_tests=(),
        hidden_tests=(),
        unit_tests=tests,
        split=split,
        topic=topic,
    )


def check_code_prompt(name: str, tests: UnitTests) -> None:
    """Refuse a task whose given code, calibrated, does not define the entry point: no candidate could pass."""
    try:
        tree = ast.parse(calibrated(tests, ""))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DajError(f"task {name!r}: code_prompt does not parse ({error}). Restore the row.") from error
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    if tests.entry_point not in defined:
        raise DajError(
            f"task {name!r}: code_prompt defines {', '.join(defined) or 'nothing'}, and the entry point is "
            f"{tests.entry_point!r}. Restore the row."
        )


def libraries(row: Mapping[str, Any]) -> list[str]:
    """The task's libraries: a list, or the text of one as the data set has it.

    Raises:
        DajError: neither, or an empty list.
    """
    libs = row.get("libs")
    if isinstance(libs, str):
        try:
            libs = ast.literal_eval(libs)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            libs = None
    if not isinstance(libs, list | tuple) or not libs or not all(isinstance(lib, str) for lib in libs):
        raise DajError(
            f"task {row.get('task_id', '?')!r}: libs is {str(row.get('libs'))[:60]!r}, wanted a list of names such as "
            f"\"['csv', 'os']\"."
        )
    return list(libs)


def leading_domains(domains: Sequence[str]) -> list[str]:
    """The domains that most of a task's libraries have, the winner of the tie first."""
    counts = Counter(domains)
    return sorted((name for name in counts if counts[name] == max(counts.values())), key=TIES.index)


@dataclass(frozen=True, slots=True)
class Sides:
    """Which side every task is on."""

    of: dict[str, str]
    """task id -> "train", "meta" or "test"; one each, so that no task is on two."""
    cut_rate: float | None
    """Mean pass rate of the last meta task; None without one."""
    tied: dict[str, list[str]]
    """side -> tasks whose mean rate is the cut's, where there are such on both sides of it; else empty."""


def assign_sides(
    tasks: Collection[str], hard: Collection[str], rates: Mapping[str, Mapping[str, float]], meta_share: float
) -> Sides:
    """Test: the Hard tasks. Meta: the share of the others with the lowest mean pass rate. Train: the rest.

    Args:
        tasks: ids of all tasks.
        hard: ids of the Hard tasks; those of other tasks are left aside.
        rates: task id -> policy -> pass rate; every other task needs one of each policy.
        meta_share: of the tasks that are not Hard.
    Raises:
        DajError: no task is Hard, a rate is missing or lies outside [0, 1], or a task stands twice.
    """
    if not 0 < meta_share < 1:
        raise DajError(f"meta_share is {meta_share}; wanted a share between 0 and 1 (paper: {META_SHARE}).")
    repeated = [name for name, count in Counter(tasks).items() if count > 1]
    if repeated:
        raise DajError(f"{len(repeated)} tasks stand twice: {listed(repeated)}. Remove the repeated rows.")
    hard = set(hard)
    if not hard & set(tasks):
        raise DajError(
            f"none of the {len(hard)} Hard ids is one of the {len(tasks)} tasks; compare {listed(hard)} with "
            f"{listed(tasks)}."
        )
    mean = _mean_rates([name for name in tasks if name not in hard], rates)
    ranked = sorted(mean, key=lambda name: (mean[name], in_order(name)))
    num_meta = math.floor(meta_share * len(ranked) + 0.5)
    side = {name: "test" for name in tasks if name in hard}
    side |= {name: "meta" if place < num_meta else "train" for place, name in enumerate(ranked)}
    cut = mean[ranked[num_meta - 1]] if num_meta else None
    tied: dict[str, list[str]] = {"meta": [], "train": []}
    for name in ranked:
        if mean[name] == cut:
            tied[side[name]].append(name)
    return Sides(
        of={name: side[name] for name in tasks},
        cut_rate=cut,
        tied=tied if tied["train"] else {"meta": [], "train": []},
    )


def _mean_rates(tasks: Sequence[str], rates: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    policies = sorted({policy for name in tasks for policy in rates.get(name, ())})
    lacking = [name for name in tasks if not policies or set(policies) - set(rates.get(name, ()))]
    if lacking:
        raise DajError(
            f"{len(lacking)} of the {len(tasks)} tasks that are not Hard lack the pass rate of a policy "
            f"({', '.join(policies) or 'no policy at all'}): {listed(lacking)}. Every one needs a rate of every policy."
        )
    outside = [f"{name} ({policy}: {rates[name][policy]})" for name in tasks for policy in policies
               if not 0 <= rates[name][policy] <= 1]  # fmt: skip
    if outside:
        raise DajError(f"{len(outside)} pass rates lie outside [0, 1]: {listed(outside)}. Give shares, not per cent.")
    # fsum: the mean does not depend on the order of the policies, so that equal tasks are equal.
    return {name: math.fsum(rates[name][policy] for policy in policies) / len(policies) for name in tasks}


def in_order(task_id: str) -> tuple[str, int, str]:
    """Sorts BigCodeBench/9 before BigCodeBench/10."""
    group, _, number = task_id.rpartition("/")
    return (group, int(number), "") if number.isascii() and number.isdecimal() else (task_id, -1, "")


def listed(names: Iterable[str]) -> str:
    """The first few names in order, and how many more there are."""
    ordered = sorted(names, key=in_order)
    more = f" and {len(ordered) - NUM_LISTED} more" if len(ordered) > NUM_LISTED else ""
    return ", ".join(ordered[:NUM_LISTED]) + more
