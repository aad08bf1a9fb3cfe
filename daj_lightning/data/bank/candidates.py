"""Candidate programs for a bank problem, as four imagined policies would write them.

A policy writes a correct variant or a mistaken one. What makes "weak" and "strong" differ is the kind of
mistake: gross ones (a wrong operator, initial value or aggregate, a missing branch) against subtle ones
(off by one, strict for non-strict, a forgotten special case). "hasty" runs out of tokens: most of its
mistakes are programs that stop before they are finished. "foreign" is for tests only: its mutations are
slips, which no other policy makes. No label is kept: a mistake may turn out harmless, and only execution
says.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from daj_lightning.data.bank.dress import dress, fold
from daj_lightning.data.bank.family import Family, Params, fill
from daj_lightning.data.bank.mutations import mutate
from daj_lightning.data.bank.platforms import program, returns_once
from daj_lightning.records import Candidate, DajError

CORRECT = "correct"
BY_HAND = "by_hand"
TRUNCATE = "truncate"

_ATTEMPTS = 60
_SHORTER = 0.3


@dataclass(frozen=True)
class Policy:
    """What a policy tends to write."""

    correct: float
    """Chance of a program without a mistake."""
    by_hand: float
    """Chance that a mistake is a wrong approach written by hand."""
    gross: float
    """Chance that such an approach is a gross one."""
    truncate: float
    """Chance that a mistake is an unfinished program."""
    operators: Mapping[str, float]
    """Mutation operator -> weight."""


POLICIES: Mapping[str, Policy] = {
    "weak": Policy(
        correct=0.47,
        by_hand=0.2,
        gross=0.8,
        truncate=0.03,
        operators={
            "flip_comparison": 3.0,
            "negate_condition": 3.0,
            "swap_and_or": 3.0,
            "drop_branch": 2.0,
            "swap_arithmetic": 3.0,
            "swap_operands": 2.0,
            "drop_modulus": 2.0,
            "drop_negation": 1.0,
            "drop_term": 2.0,
            "wrong_initial": 3.0,
            "swap_min_max": 3.0,
            "wrong_aggregate": 3.0,
            "drop_call": 2.0,
            "wrong_order": 2.0,
            "drop_statement": 2.0,
            "off_by_one_constant": 1.0,
            "compare_strictness": 1.0,
            "range_bound": 0.5,
            "wrong_return": 0.4,
        },
    ),
    "hasty": Policy(
        correct=0.47,
        by_hand=0.1,
        gross=0.8,
        truncate=0.85,
        operators={
            "flip_comparison": 3.0,
            "swap_arithmetic": 3.0,
            "wrong_initial": 3.0,
            "swap_min_max": 3.0,
            "drop_statement": 2.0,
            "off_by_one_constant": 1.0,
            "wrong_return": 0.4,
        },
    ),
    "strong": Policy(
        correct=0.47,
        by_hand=0.2,
        gross=0.15,
        truncate=0.0,
        operators={
            "compare_strictness": 4.0,
            "off_by_one_constant": 3.0,
            "range_bound": 2.0,
            "slice_bound": 2.0,
            "wrong_index": 2.0,
            "drop_guard": 3.0,
            "drop_condition": 3.0,
            "drop_negation": 2.0,
            "wrong_return": 0.4,
            "wrong_initial": 1.0,
            "drop_modulus": 1.0,
            "drop_call": 1.0,
            "drop_term": 0.5,
            "swap_min_max": 0.5,
            "swap_arithmetic": 0.3,
        },
    ),
    "foreign": Policy(
        correct=0.47,
        by_hand=0.2,
        gross=0.5,
        truncate=0.0,
        operators={
            "wrong_variable": 3.0,
            "wrong_accumulator": 2.0,
            "wrong_constant": 2.0,
            "index_for_value": 2.0,
            "count_for_sum": 2.0,
            "confuse_equality": 2.0,
            "swap_arguments": 2.0,
            "swap_targets": 2.0,
            "drop_default": 2.0,
            "drop_start": 2.0,
            "overwrite": 2.0,
            "alias_rows": 2.0,
            "swap_statements": 2.0,
            "dedent_last": 2.0,
            "indent_next": 2.0,
            "reset_in_loop": 2.0,
            "stop_at_first": 2.0,
            "wrong_jump": 2.0,
        },
    ),
}


@dataclass(frozen=True)
class Program:
    """A program, and what its author meant: for tests and statistics, never a label."""

    origin: str
    """"correct", "by_hand", "truncate" or the name of a mutation operator."""
    code: str


def write_candidates(
    family: Family, row: Mapping[str, str], policy: str, num_candidates: int, seed: int
) -> list[Candidate]:
    """`num_candidates` programs for a row of this family, no two alike."""
    programs = write_programs(family, row, policy, num_candidates, seed)
    name = row["question_id"]
    return [Candidate(f"{name}/{policy}/{k}", name, policy, program.code) for k, program in enumerate(programs)]


def write_programs(
    family: Family, row: Mapping[str, str], policy: str, num_candidates: int, seed: int
) -> list[Program]:
    """As `write_candidates`, with the origin of each.

    Raises:
        DajError: the policy is unknown, or has not that many different programs to offer.
    """
    if policy not in POLICIES:
        raise DajError(f"no policy {policy!r} in the bank; it knows {', '.join(map(repr, POLICIES))}.")
    rng = Random(f"{row['question_id']}/{row['metadata']}/{policy}/{num_candidates}/{seed}")
    author = _Author(family, json.loads(row["metadata"])["bank"]["parameters"], row["platform"], POLICIES[policy], rng)
    programs: dict[str, Program] = {}
    for correct in _plan(num_candidates, POLICIES[policy].correct, rng):
        drafts = (author.write(correct) for _ in range(_ATTEMPTS))
        fresh = next((draft for draft in drafts if draft.code not in programs), None)
        if fresh is None:
            raise DajError(
                f"{row['question_id']}: policy {policy!r} ran out of different programs after "
                f"{len(programs)} of {num_candidates}. Ask for fewer candidates."
            )
        programs[fresh.code] = fresh
    return list(programs.values())


def _plan(num_candidates: int, share: float, rng: Random) -> list[bool]:
    """Which candidates are meant to be correct: about `share` of them, more here and fewer there."""
    num_correct = round(num_candidates * share + rng.uniform(-1, 1))
    num_correct = max(min(num_correct, num_candidates), 0)
    plan = [True] * num_correct + [False] * (num_candidates - num_correct)
    rng.shuffle(plan)
    return plan


@dataclass(frozen=True)
class _Author:
    """A policy at work on one problem."""

    family: Family
    params: Params
    platform: str
    policy: Policy
    rng: Random

    def write(self, correct: bool) -> Program:
        if correct:
            return Program(CORRECT, self.finished(self.parsed(self.shorter_variants())))
        if self.rng.random() < self.policy.truncate:
            return Program(TRUNCATE, self.truncated())
        if self.rng.random() < self.policy.by_hand:
            approaches = self.family.gross if self.rng.random() < self.policy.gross else self.family.subtle
            return Program(BY_HAND, self.finished(self.parsed(approaches)))
        return self.mutant()

    def shorter_variants(self) -> Sequence[str]:
        """Now and then without the longest: many mistakes shorten a program, and length must not tell."""
        variants = sorted(self.family.variants, key=len)
        return variants[:-1] if self.rng.random() < _SHORTER else variants

    def mutant(self) -> Program:
        variant = self.parsed(self.family.variants)
        mutation = mutate(variant, self.policy.operators, self.rng)
        assert mutation is not None, f"{self.family.name}: no operator applies to {ast.unparse(variant)!r}"
        return Program(mutation.operator, self.finished(mutation.core, like=variant))

    def truncated(self) -> str:
        """A correct program whose last line or two are missing."""
        lines = self.finished(self.parsed(self.family.variants)).splitlines()
        kept = max(len(lines) - self.rng.randint(1, 2), 1)  # a policy that wrote nothing is not a candidate
        return "\n".join(lines[:kept]).rstrip()

    def parsed(self, templates: Sequence[str]) -> ast.Module:
        return fold(ast.parse(fill(self.rng.choice(templates), self.params)))

    def finished(self, core: ast.Module, like: ast.Module | None = None) -> str:
        """The whole program; `like`: the unmutated core, whose shape decides on a function or a script."""
        inline = returns_once(like or core) and self.rng.random() < 0.6
        return program(dress(core, self.rng), self.family, self.platform, inline=inline)
