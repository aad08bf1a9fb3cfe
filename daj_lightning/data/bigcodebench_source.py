"""BigCodeBench as a source: tasks, three files that decide their sides and domains, and candidates.

The data set and a policy give the tasks and the candidates. The ids of Hard are a data set of their own; the paper
publishes no pass rates and no domain of a task. Nothing is guessed in their place: without one of these files
(data/bigcodebench_files.py has their forms) the source stops and says which is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Group
from rich.table import Table

from daj_lightning.data.bigcodebench import (
    BCB_DOMAINS,
    META_SHARE,
    Sides,
    Variant,
    assign_sides,
    in_order,
    leading_domains,
    listed,
    problem_from_task,
)
from daj_lightning.data.bigcodebench_files import (
    HUB,
    HUB_SPLIT,
    read_domains,
    read_hard_ids,
    read_pass_rates,
    read_tasks,
)
from daj_lightning.data.candidates import read_candidates
from daj_lightning.data.jsonl import sha256_of
from daj_lightning.data.sanitize import sanitize
from daj_lightning.data.sources import Source
from daj_lightning.execution.bigcodebench import count_tests
from daj_lightning.records import Candidate, DajError, Problem

_SIDES = ("train", "meta", "test")


@dataclass(frozen=True, slots=True)
class _Benchmark:
    """Everything but the candidates."""

    problems: list[Problem]
    domains: dict[str, list[str]]
    """task id -> domain of each of its libraries."""
    sides: Sides
    hard: list[str]
    policies: list[str]


class BigCodeBenchSource(Source):
    """BigCodeBench with the paper's sides.

    Args:
        tasks: all tasks of the benchmark (1,140): a .jsonl, .jsonl.gz or .parquet, or "hub:bigcode/bigcodebench".
        candidates: JSON Lines of {problem_id, policy, code}; the code is a response or a whole program.
        domains: analysis/task2domain.json or analysis/lib2domain.json of the official repository.
        hard_ids: of BigCodeBench-Hard (148), the test set: text, an id a line; a JSON list; or the data set's rows.
        pass_rates: JSON {task: {policy: rate}} or JSON Lines {task_id, policy, pass_rate}; or policy -> the official
            grader's *_eval_results.json (paper: four policies).
        variant: which prompt is the statement (paper: "we evaluate on BigCodeBench-Instruct").
        meta_share: hardest part of the tasks that are not Hard (paper: 20 %).
        sanitize: reduce each program to what the entry point needs, as the official code does before grading; false
            for programs whose verdicts were imported, which belong to the text that was graded.
    """

    def __init__(
        self,
        tasks: str,
        candidates: str,
        domains: str,
        hard_ids: str,
        pass_rates: str | dict[str, str],
        variant: Variant = "instruct",
        meta_share: float = META_SHARE,
        sanitize: bool = True,
    ) -> None:
        self.tasks = tasks
        self.candidates = candidates
        self.domains = domains
        self.hard_ids = hard_ids
        self.pass_rates = pass_rates
        self.variant = variant
        self.meta_share = meta_share
        self.sanitize = sanitize

    def load(self) -> tuple[list[Problem], list[Candidate]]:
        problems = self.load_problems()
        entry_point = {p.problem_id: p.unit_tests.entry_point for p in problems if p.unit_tests}
        candidates, written = [], 0
        for candidate in read_candidates(self.candidates):
            written += 1
            if candidate.problem_id in entry_point:
                if self.sanitize:
                    candidate = replace(candidate, code=sanitize(candidate.code, entry_point[candidate.problem_id]))
                candidates.append(candidate)
        if not candidates:
            raise DajError(
                f"none of the {written} candidates in {self.candidates} belongs to one of the {len(problems)} tasks "
                f"in {self.tasks}: compare problem_id with task_id."
            )
        return problems, candidates

    def load_problems(self) -> list[Problem]:
        """Every task with its side and its domain."""
        return self._read().problems

    def report(self) -> tuple[dict[str, Any], Group]:
        found = self._found()
        return found, report_table(found)

    def _found(self) -> dict[str, Any]:
        read = self._read()
        domain_sides = Counter((problem.topic, problem.split) for problem in read.problems)
        ties = [names for names in map(leading_domains, read.domains.values()) if len(names) > 1]
        return {
            "tasks": len(read.problems),
            "sides": {side: list(read.sides.of.values()).count(side) for side in _SIDES},
            "domains": {name: {side: domain_sides[name, side] for side in _SIDES} for name in BCB_DOMAINS},
            "several_domains": sum(len(set(names)) > 1 for names in read.domains.values()),
            "domain_ties": len(ties),
            "policies": read.policies,
            "cut_rate": read.sides.cut_rate,
            "tied_at_cut": read.sides.tied,
            "hard_ids_without_task": sorted(set(read.hard) - set(read.sides.of), key=in_order),
            "tests": sum(count_tests(problem.unit_tests.source) for problem in read.problems if problem.unit_tests),
        }

    def description(self) -> dict[str, object]:
        """Names and hashes of the files; not whether their rows are any good."""
        rates = self.pass_rates.values() if isinstance(self.pass_rates, dict) else [self.pass_rates]
        files = [self.tasks, self.candidates, self.domains, self.hard_ids, *rates]
        return {
            "source": "bigcodebench",
            "files": {name: sha256_of(name) for name in files},
            "pass_rates": self.pass_rates,
            "hub_split": HUB_SPLIT if any(name.startswith(HUB) for name in files) else None,
            "variant": self.variant,
            "meta_share": self.meta_share,
            "sanitize": self.sanitize,
        }

    def problems_description(self) -> dict[str, object]:
        return {"source": "bigcodebench", "tasks": self.tasks, "sha256": sha256_of(self.tasks), "variant": self.variant}

    def _read(self) -> _Benchmark:
        rows = read_tasks(self.tasks)
        domains = read_domains(self.domains, rows)
        hard = read_hard_ids(self.hard_ids)
        rates = read_pass_rates(self.pass_rates)
        sides = assign_sides(list(rows), hard, rates, self.meta_share)
        problems = [
            problem_from_task(row, variant=self.variant, topic=leading_domains(domains[name])[0], split=sides.of[name])
            for name, row in rows.items()
        ]
        ranked = [name for name, side in sides.of.items() if side != "test"]
        policies = sorted({policy for name in ranked for policy in rates[name]})
        return _Benchmark(problems, domains, sides, hard, policies)


def report_table(report: Mapping[str, Any]) -> Group:
    """Tasks of each domain and side, and below it what decided domains and sides."""
    table = Table("domain", *_SIDES, title="BigCodeBench")
    for name, of_side in report["domains"].items():
        table.add_row(name, *(str(of_side[side]) for side in _SIDES))
    table.add_section()
    table.add_row("all", *(str(report["sides"][side]) for side in _SIDES))
    tied, unknown = report["tied_at_cut"], report["hard_ids_without_task"]
    lines = [
        f"{report['several_domains']} tasks name several domains, of which {report['domain_ties']} majorities tie",
        f"{report['tests']} tests, {report['tests'] / report['tasks']:.1f} a task",
        f"meta: mean pass rate of {', '.join(report['policies'])} up to {report['cut_rate']}",
    ]
    if tied["train"]:
        lines.append(f"of equal rate at the cut, by id: {len(tied['meta'])} in meta, {len(tied['train'])} in train")
    if unknown:
        lines.append(f"{len(unknown)} Hard ids have no task here: {listed(unknown)}")
    return Group(table, *lines)
