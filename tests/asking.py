"""A toy problem with four programs, and responses that a test wrote down."""

from __future__ import annotations

from collections.abc import Sequence

from daj_lightning.data.responses import Response, Responses
from daj_lightning.judge import PromptTemplate
from daj_lightning.records import Candidate, Comparison
from tiny import ToySource

PROBLEM = ToySource().load()[0][0]
A, B, C, D = CANDIDATES = [Candidate(name, PROBLEM.problem_id, "toy", f"print('{name}')") for name in "ABCD"]
TEMPLATE = PromptTemplate("compact")
RIGHT, WRONG, BROKEN = "yes <selection>1</selection>", "no <selection>2</selection>", "no idea"
"""To a comparison whose first program passes."""


def comparison(passed: tuple[bool, ...] = (True, False), candidates: Sequence[Candidate] = (A, B)) -> Comparison:
    return Comparison(
        problem_id=PROBLEM.problem_id,
        domain=PROBLEM.domain,
        difficulty=PROBLEM.difficulty,
        policy="toy",
        candidate_ids=tuple(c.candidate_id for c in candidates),
        passed=passed,
        prompt=TEMPLATE.fill(PROBLEM, candidates),
        kind="mixed",
    )


def wrote(*texts: str, finish_reason: str = "stop") -> Responses:
    return Responses(tuple(Response(text, finish_reason) for text in texts))


class Written:
    """Answers each comparison with what a test wrote down for it, in order; `asked` are the batches it was given."""

    def __init__(self, *answers: Responses, batch_size: int = 100) -> None:
        self.answers = iter(answers)
        self.batch_size = batch_size
        self.asked: list[list[Comparison]] = []

    def respond(self, comparisons: Sequence[Comparison]) -> list[Responses]:
        self.asked.append(list(comparisons))
        return [next(self.answers) for _ in comparisons]

    def description(self) -> dict[str, object]:
        return {"responses": "written"}
