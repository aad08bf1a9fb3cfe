"""What a judge said, whatever the form: its pick among candidates, its answers about pairs, its order.

Ours, another judge's judgments, scalar scores of programs, a both-order file on its own: all stand in one table.
Where several candidates are tied, a pick names all of them, and counts as their mean.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from daj_lightning.evaluation.field import Field
from daj_lightning.evaluation.judgments import Answer
from daj_lightning.evaluation.pairwise import Choice, PairAnswer
from daj_lightning.evaluation.peers import LabelledPair
from daj_lightning.evaluation.ranking import Vote
from daj_lightning.records import DajError


class Rater(ABC):
    """A judge as the evaluation sees it.

    Args:
        name: in tables.
        origin: where its answers came from.
    """

    field: Field | None = None
    """The candidates that it chose from; None: it stands on its own."""

    def __init__(self, name: str, origin: str) -> None:
        self.name = name
        self.origin = origin
        self.notes: list[str] = []
        """What was missing or left aside, in words."""

    def chooses(self) -> bool:
        """Whether its answers pick among candidates at all: Best-of-N, its order of candidates."""
        return self.field is not None

    @abstractmethod
    def pair_answers(self) -> list[PairAnswer]:
        """About pairs of a right and a wrong program."""

    def pick(self, problem: str, among: Sequence[int] | None = None) -> list[int] | None:
        """The candidates that it holds for the best.

        Args:
            among: candidates to choose from; None: all.
        Returns:
            Several where they are tied; None where its answers do not say.
        """
        return None

    def strengths(self, problem: str) -> list[float] | None:
        """One number a candidate, higher is better; None where nothing was said about the problem."""
        return None

    def votes(self) -> list[Vote]:
        """Its answers about pairs of candidates, whoever is right; none of a judge that compares numbers."""
        return []


class Answered(Rater):
    """A judge by its judgments: votes decide, unless it is known whom it picked.

    Args:
        selections: problem id -> the candidate that it picked; None: it abstained, and its votes decide.
    Raises:
        DajError: an answer about a candidate that its problem does not have, or none about any problem of the field.
    """

    def __init__(
        self,
        name: str,
        origin: str,
        field: Field,
        answers: Sequence[Answer],
        selections: Mapping[str, str | None] | None = None,
    ) -> None:
        super().__init__(name, origin)
        self.field: Field = field
        self.answers: dict[str, list[tuple[tuple[int, int], Answer]]] = {}
        """problem -> (candidates in the order shown, answer)."""
        outside = 0
        places = {problem: field.index(problem) for problem in field.graded}
        for answer in answers:
            index = places.get(answer.problem_id)
            if index is None:
                outside += 1
                continue
            unknown = [i for i in answer.candidate_ids if i not in index]
            if unknown:
                raise DajError(
                    f"{name}: an answer about candidate {unknown[0]!r} of problem {answer.problem_id!r}, which has "
                    f"no such candidate. Are these judgments of the same candidates?"
                )
            first, second = answer.candidate_ids
            self.answers.setdefault(answer.problem_id, []).append(((index[first], index[second]), answer))
        self.selected = self._selected(selections or {}, places)
        if not self.answers and not self.selected:
            raise DajError(f"{name}: none of {len(answers)} judgments is about a problem that is evaluated.")
        kinds = {answer.kind for own in self.answers.values() for _, answer in own}
        self.asked_for_accuracy = ("mixed", "") if "mixed" in kinds else ("round", "")
        open_problems = [problem for problem in field.graded if len(field.with_code(problem)) > 1]
        silent = sum(not self.chosen_from(problem) and problem not in self.selected for problem in open_problems)
        if outside:
            self.notes.append(f"{outside} judgments are of problems that are not evaluated, and are left aside")
        if not self.chooses():
            self.notes.append(
                "all judgments are of mixed pairs, which were drawn by their verdicts and do not vote: no Best-of-N"
            )
        elif silent:
            self.notes.append(
                f"{silent} of {len(open_problems)} problems have no judgment that votes, and count as a random pick"
            )

    def _selected(
        self, selections: Mapping[str, str | None], places: Mapping[str, Mapping[str, int]]
    ) -> dict[str, int]:
        """problem id -> its pick's place; without those where it abstained."""
        found = {}
        for problem, candidate in selections.items():
            if candidate is None or problem not in places:
                continue
            if candidate not in places[problem]:
                raise DajError(
                    f"{self.name}: picked candidate {candidate!r} of problem {problem!r}, which has no such candidate. "
                    f"Are these selections among the same candidates?"
                )
            found[problem] = places[problem][candidate]
        abstained = sum(problem in places and candidate is None for problem, candidate in selections.items())
        if abstained:
            self.notes.append(f"abstained on {abstained} problems, where its votes decide, or chance")
        return found

    def chosen_from(self, problem: str) -> list[tuple[tuple[int, int], Answer]]:
        """The answers that vote: all but the mixed ones, where a right program stands more often than a wrong one."""
        own = self.answers.get(problem, [])
        return [(pair, a) for pair, a in own if a.kind != "mixed"]

    def chooses(self) -> bool:
        return bool(self.selected) or any(map(self.chosen_from, self.answers))

    def pair_answers(self) -> list[PairAnswer]:
        found = []
        for problem, own in self.answers.items():
            passed = self.field.passed(problem)
            for pair, answer in own:
                if passed[pair[0]] != passed[pair[1]] and answer.kind in self.asked_for_accuracy:
                    a, b = sorted(pair)
                    winner = None if answer.selection is None else pair[answer.selection]
                    choice = Choice.NULL if winner is None else Choice(int(winner == b))
                    right = Choice.A if passed[a] else Choice.B
                    found.append(PairAnswer(pair_name(problem, a, b), problem, right, pair != (a, b), choice))
        return found

    def pick(self, problem: str, among: Sequence[int] | None = None) -> list[int] | None:
        if among is None and problem in self.selected:
            return [self.selected[problem]]
        votes = [(pair, a.selection) for pair, a in self.chosen_from(problem)]
        left = shown(self.field, problem, among)
        if among is not None:
            asked = {frozenset(pair) for pair, _ in votes}
            if not all(frozenset(pair) in asked for pair in itertools.combinations(left, 2)):
                return None
        return most_votes(left, votes)

    def strengths(self, problem: str) -> list[float] | None:
        votes = [(pair, a.selection) for pair, a in self.chosen_from(problem)]
        if not votes:
            return None
        wins = [0.0 if i in shown(self.field, problem) else -1.0 for i in range(len(self.field.graded[problem]))]
        for pair, selection in votes:
            if selection is not None:
                wins[pair[selection]] += 1
        return wins

    def votes(self) -> list[Vote]:
        return [
            Vote(problem, pair, None if answer.selection is None else pair[answer.selection])
            for problem, own in self.answers.items()
            for pair, answer in own
        ]


class Scored(Rater):
    """A judge by a number for each program: the highest is picked, all of several such.

    Raises:
        DajError: a candidate with code has no score, or a score is of a candidate that its problem does not have.
    """

    def __init__(self, name: str, origin: str, field: Field, scores: Mapping[str, Mapping[str, float]]) -> None:
        super().__init__(name, origin)
        self.field: Field = field
        self.scores: dict[str, list[float]] = {}
        missing = []
        for problem in field.graded:
            own = scores.get(problem, {})
            unknown = sorted(own.keys() - field.index(problem).keys())
            if unknown:
                raise DajError(
                    f"{name}: a score of candidate {unknown[0]!r} of problem {problem!r}, which has no such candidate. "
                    f"Are these scores of the same candidates?"
                )
            names = [candidate.candidate_id for candidate, _ in field.graded[problem]]
            missing += [names[i] for i in field.with_code(problem) if names[i] not in own]
            self.scores[problem] = [own.get(candidate, -math.inf) for candidate in names]
        if missing:
            total = sum(len(field.with_code(problem)) for problem in field.graded)
            raise DajError(
                f"{name}: {len(missing)} of {total} candidates have no score, first {missing[0]!r}. Score them all: "
                f"`score` goes on where it stopped."
            )
        outside = sum(len(own) for problem, own in scores.items() if problem not in field.graded)
        if outside:
            self.notes.append(f"{outside} scores are of problems that are not evaluated, and are left aside")

    def pair_answers(self) -> list[PairAnswer]:
        found = []
        for problem, scores in self.scores.items():
            passed = self.field.passed(problem)
            for a, b in self.field.mixed_pairs(problem):
                choice = Choice.TIE if scores[a] == scores[b] else Choice.A if scores[a] > scores[b] else Choice.B
                right = Choice.A if passed[a] else Choice.B
                found.append(PairAnswer(pair_name(problem, a, b), problem, right, False, choice, positional=False))
        return found

    def pick(self, problem: str, among: Sequence[int] | None = None) -> list[int] | None:
        left = shown(self.field, problem, among)
        scores = self.scores[problem]
        return [i for i in left if scores[i] == max(scores[j] for j in left)]

    def strengths(self, problem: str) -> list[float] | None:
        return self.scores[problem]


class BothOrders(Rater):
    """A judge by a file of labelled pairs, which stands on its own."""

    def __init__(self, name: str, origin: str, pairs: Sequence[LabelledPair]) -> None:
        super().__init__(name, origin)
        self.pairs = list(pairs)
        once = sum(len(pair.answers) == 1 for pair in pairs)
        if once:
            self.notes.append(f"{once} of {len(pairs)} pairs were asked in one order only")
        other = sum(answer.choice is Choice.OTHER for pair in pairs for answer in pair.answers)
        if other:
            self.notes.append(f"{other} decisions are neither 'A>B', 'B>A', 'A=B' nor null, and count as wrong")

    def pair_answers(self) -> list[PairAnswer]:
        return [answer for pair in self.pairs for answer in pair.answers]


def pair_name(problem: str, a: int, b: int) -> str:
    """Names two candidates of a problem to every judge alike."""
    return f"{problem}\x1f{a}\x1f{b}"


def shown(field: Field, problem: str, among: Sequence[int] | None = None) -> list[int]:
    """The candidates with code, in order; all of them where none has any."""
    everyone = list(range(len(field.graded[problem]))) if among is None else sorted(among)
    with_code = set(field.with_code(problem))
    return [i for i in everyone if i in with_code] or everyone


def most_votes(left: Sequence[int], votes: Sequence[tuple[tuple[int, int], int | None]]) -> list[int]:
    """Those of `left` with most of the votes about pairs of them; all of them without a vote."""
    wins = dict.fromkeys(left, 0)
    for pair, selection in votes:
        if selection is not None and pair[0] in wins and pair[1] in wins:
            wins[pair[selection]] += 1
    return [i for i in left if wins[i] == max(wins.values())]
