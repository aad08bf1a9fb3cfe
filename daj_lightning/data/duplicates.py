"""Near-duplicates across sides: what a judge has seen in training and would meet again in its test.

Two problems repeat each other if their statements use about the same words, unless a test tells them
apart (one input, two expected outputs): a re-worded or re-dated copy goes, two instances of one task
stay. Two programs do if `canonical_program` spells them alike. The side that is trained on loses: train
against all others, meta against the two test sets, which lose nothing. Within a side nothing is touched.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TypeVar

from daj_lightning.data.canonical import canonical_program
from daj_lightning.execution.compare import same_text, same_value
from daj_lightning.records import Candidate, Problem, TestCase

STRENGTH = ("test", "unseen", "meta", "train")
"""Of two sides the later one holds the repeat."""
KEPT = ("test", "unseen")
"""Lose nothing; what they share is only counted."""
PAIRS = tuple(f"{weak}/{strong}" for i, weak in enumerate(STRENGTH) for strong in STRENGTH[:i])
"""Side of the repeat, side of what it repeats."""

Name = TypeVar("Name", bound=Hashable)
Gram = TypeVar("Gram", int, tuple[str, ...])
_Rivals = Mapping[str, Sequence[tuple[str, float]]]
"""id -> ids on other sides that are like it, and how much."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """A problem or program that another side holds as well."""

    kind: str
    """"statement" or "program"."""
    id: str
    """Of the problem or candidate."""
    side: str
    repeats: str
    """Id of the one that stays; where there are several, the first on the strongest side."""
    repeated_side: str
    similarity: float
    """Of two statements: what they share of their 3-grams; 1 for programs."""
    removed: bool


@dataclass(frozen=True, slots=True)
class Deduplicated:
    """What is left, and what was found."""

    problems: list[Problem]
    candidates: list[Candidate]
    """Of these problems."""
    repeats: list[Repeat]

    def counts(self) -> dict[str, dict[str, int]]:
        """kind -> pair of sides, e.g. "train/test" -> repeats on the first of something on the second."""
        found = Counter((repeat.kind, f"{repeat.side}/{repeat.repeated_side}") for repeat in self.repeats)
        return {kind: {pair: found[kind, pair] for pair in PAIRS} for kind in ("statement", "program")}


def deduplicate(
    problems: Sequence[Problem],
    candidates: Sequence[Candidate],
    side_of: Mapping[str, str],
    statement_similarity: float,
) -> Deduplicated:
    """Remove repeated problems with their candidates, then repeated programs of what is left.

    Args:
        problems: of all sides.
        candidates: for these problems.
        side_of: problem id -> "train", "meta", "test" or "unseen".
        statement_similarity: from this Jaccard similarity of 3-grams on, two statements are alike; 0 < it <= 1.
    """
    repeats = _repeats("statement", _like_statements(problems, side_of, statement_similarity), side_of)
    gone = {repeat.id for repeat in repeats if repeat.removed}
    problems = [problem for problem in problems if problem.problem_id not in gone]
    candidates = [candidate for candidate in candidates if candidate.problem_id not in gone]

    side_of_program = {candidate.candidate_id: side_of[candidate.problem_id] for candidate in candidates}
    programs = _repeats("program", _like_programs(candidates, side_of_program), side_of_program)
    gone = {repeat.id for repeat in programs if repeat.removed}
    candidates = [candidate for candidate in candidates if candidate.candidate_id not in gone]
    return Deduplicated(problems, candidates, repeats + programs)


def _repeats(kind: str, rivals: _Rivals, side_of: Mapping[str, str]) -> list[Repeat]:
    """Strong sides first: what is removed there is no reason to remove anything on a weaker one."""
    found: list[Repeat] = []
    gone: set[str] = set()
    for strength, side in enumerate(STRENGTH):
        stronger = STRENGTH[:strength]
        for name in [name for name in rivals if side_of[name] == side]:
            left = [(other, score) for other, score in rivals[name] if side_of[other] in stronger and other not in gone]
            if left:
                other, score = min(left, key=lambda rival: stronger.index(side_of[rival[0]]))
                found.append(Repeat(kind, name, side, other, side_of[other], score, removed=side not in KEPT))
        gone |= {repeat.id for repeat in found if repeat.removed}
    return found


# Statements


def _like_statements(problems: Sequence[Problem], side_of: Mapping[str, str], threshold: float) -> _Rivals:
    of_id = {problem.problem_id: problem for problem in problems}
    text = {name: " ".join(problem.statement.split()) for name, problem in of_id.items()}
    rivals: dict[str, list[tuple[str, float]]] = {name: [] for name in of_id}
    for a, b, score in similar_statements(problems, side_of, threshold):
        # One text is one problem, whatever its tests say: an expectation may be damaged, or one answer of several.
        if text[a] == text[b] or not told_apart(of_id[a], of_id[b]):
            rivals[a].append((b, score))
            rivals[b].append((a, score))
    return rivals


def similar_statements(
    problems: Sequence[Problem], side_of: Mapping[str, str], threshold: float
) -> Iterator[tuple[str, str, float]]:
    """Ids of problems on different sides and the Jaccard similarity of their word 3-grams, where >= threshold."""
    grams = {problem.problem_id: word_grams(problem.statement) for problem in problems}
    return similar_sets(grams, threshold, lambda a, b: side_of[a] != side_of[b])


def similar_sets(
    sets: Mapping[Name, Set[Gram]], threshold: float, compared: Callable[[Name, Name], bool] = lambda a, b: True
) -> Iterator[tuple[Name, Name, float]]:
    """Names of two sets and their Jaccard similarity, where >= threshold and the two are to be compared.

    Exact. With similarity t, two sets of at most n grams share t n of them, so that, in any one order of
    all grams, each pair meets within the first n - t n + 1 of both: only these are indexed, rare ones first
    (Bayardo et al. 2007, prefix filtering).
    """
    frequency = Counter(gram for own in sets.values() for gram in own)
    index: dict[Gram, list[Name]] = {}
    for name, own in sets.items():
        shared = math.ceil(threshold * len(own) - 1e-9)
        rare = sorted(own, key=lambda gram: (frequency[gram], gram))[: len(own) - shared + 1]
        met = dict.fromkeys(other for gram in rare for other in index.get(gram, ()))
        for other in met:
            if compared(other, name):
                score = len(own & sets[other]) / len(own | sets[other])
                if score >= threshold:
                    yield other, name, score
        for gram in rare:
            index.setdefault(gram, []).append(name)


def word_grams(statement: str) -> set[tuple[str, ...]]:
    """Three words in a row, numbers among them; case, layout and punctuation do not count."""
    words = re.findall(r"\w+", statement.lower())
    return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


def told_apart(a: Problem, b: Problem) -> bool:
    """Whether a test proves that no program solves both: the same input with another expected output.

    Tests of stdin problems say nothing about functional ones.
    """
    if (a.function_name is None) != (b.function_name is None):
        return False
    alike = same_text if a.function_name is None else same_value
    wanted = {_input_digest(test): test.output for test in _tests(a)}  # inputs can be megabytes
    for test in _tests(b):
        other = wanted.get(_input_digest(test), test.output)
        if other != test.output and not alike(other, test.output):
            return True
    return False


def _tests(problem: Problem) -> Iterator[TestCase]:
    return itertools.chain(problem.public_tests, problem.hidden_tests)


def _input_digest(test: TestCase) -> bytes:
    text = _lines(test.input).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()


def _lines(text: str) -> str:
    """Without the white space at the ends of lines, which differs between two copies of a file."""
    return "\n".join(line.rstrip() for line in text.strip().split("\n"))


# Programs


def _like_programs(candidates: Sequence[Candidate], side_of: Mapping[str, str]) -> _Rivals:
    groups: dict[bytes, list[str]] = {}
    for candidate in candidates:
        text = canonical_program(candidate.code).encode("utf-8", "surrogatepass")
        groups.setdefault(hashlib.blake2b(text, digest_size=16).digest(), []).append(candidate.candidate_id)
    rivals: dict[str, list[tuple[str, float]]] = {}
    for names in groups.values():
        first: dict[str, str] = {}  # side -> its first: equality is transitive, so one rival a side will do
        for name in names:
            first.setdefault(side_of[name], name)
        for name in names:
            rivals[name] = [(other, 1.0) for side, other in first.items() if side != side_of[name]]
    return rivals
