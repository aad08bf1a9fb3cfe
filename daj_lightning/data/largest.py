"""The smallest task that takes comparing programs: which of these prints the largest number?

For GRPO in minutes on two cores: a judge of some 100,000 parameters can learn it from rewards alone, while the
problem bank takes more than a random start can explore. The programs are executed like any others. No number
stands in two problems, so that none of the test has been seen in training.
"""

from __future__ import annotations

import random

from daj_lightning.data.sources import Source
from daj_lightning.records import Candidate, DajError, Problem, TestCase

_DOMAINS = tuple((platform, level) for platform in ("atcoder", "leetcode") for level in ("easy", "medium", "hard"))
_SIDES = ("train",) * 6 + ("meta",) * 2 + ("test",) * 2
"""Of every ten problems."""


class LargestNumberSource(Source):
    """Problems "print the largest of these", with a program `print(n)` for each of the numbers.

    The numbers of a problem have three digits and differ in the first.

    Of ten problems six train, two are meta and two test. The domains of LiveCodeBench are dealt out
    in turn: they mean nothing here but what `data.corrupt` does to them.

    Args:
        num_problems: with `num_candidates` numbers each; there are 900.
        num_candidates: programs a problem; one is right.
        seed: of the numbers and their order.
    """

    def __init__(self, num_problems: int = 300, num_candidates: int = 3, seed: int = 0) -> None:
        if not 2 <= num_candidates <= 9 or num_problems < 10 or num_problems * num_candidates > 900:
            raise DajError(
                f"LargestNumberSource needs 2 to 9 candidates, 10 problems or more, and 900 numbers in all at most; "
                f"got {num_problems} problems of {num_candidates}."
            )
        self.num_problems = num_problems
        self.num_candidates = num_candidates
        self.seed = seed

    def load(self) -> tuple[list[Problem], list[Candidate]]:
        rng = random.Random(self.seed)
        left = {digit: rng.sample(range(100 * digit, 100 * digit + 100), 100) for digit in range(1, 10)}
        problems, candidates = [], []
        for k in range(self.num_problems):
            # From the fullest hundreds: none runs out before the others.
            digits = sorted(left, key=lambda digit: (-len(left[digit]), rng.random()))[: self.num_candidates]
            own = [left[digit].pop() for digit in rng.sample(digits, self.num_candidates)]
            problem = self._problem(k, own)
            problems.append(problem)
            candidates += [
                Candidate(f"{problem.problem_id}-{n}", problem.problem_id, "printer", f"print({n})") for n in own
            ]
        return problems, candidates

    def _problem(self, k: int, numbers: list[int]) -> Problem:
        platform, difficulty = _DOMAINS[k // len(_SIDES) % len(_DOMAINS)]
        return Problem(
            problem_id=f"largest-{k}",
            title="Largest",
            statement=f"Largest of {' '.join(map(str, numbers))}",
            platform=platform,
            difficulty=difficulty,
            release_date=None,
            starter_code="",
            function_name=None,
            public_tests=(),
            hidden_tests=(TestCase("", f"{max(numbers)}\n"),),
            split=_SIDES[k % len(_SIDES)],
        )

    def description(self) -> dict[str, object]:
        return {"source": "largest number", **vars(self)}
