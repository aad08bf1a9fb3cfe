"""What `serve` is sent and answers; the OpenAPI page is made of it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class PublicTest(BaseModel):
    """One test that the problem shows."""

    model_config = ConfigDict(extra="forbid")

    input: str = Field(description="standard input; of a functional problem one JSON value a line, an argument each")
    output: str = Field(description="what is to be printed; of a functional problem the return value as JSON")


class Program(BaseModel):
    """A candidate with a name."""

    model_config = ConfigDict(extra="forbid")

    candidate_id: str = Field(min_length=1, max_length=200, description="comes back in the answer")
    code: str = Field(min_length=1)


class Request(BaseModel):
    """A problem and the programs to choose among."""

    model_config = ConfigDict(extra="forbid")

    statement: str = Field(min_length=1, description="what the program shall do")
    candidates: list[str | Program] = Field(min_length=1, description="programs, each its code or {candidate_id, code}")
    problem_id: str = Field("", max_length=200, description="comes back in the answer; draws depend on it")
    title: str = ""
    platform: str = ""
    difficulty: str = ""
    starter_code: str = Field("", description="what the program was to start from")
    function_name: str | None = Field(None, description="method of `class Solution` to call; null for standard input")
    public_tests: list[PublicTest] = Field([], description="shown to the judge; executed only by a service with hybrid")


class Compared(BaseModel):
    """One comparison with the chosen program."""

    candidate_ids: list[str] = Field(description="in the order in which the judge saw them")
    selection: int | None = Field(description="place in candidate_ids that the judge selected; null: no valid answer")
    response: str = Field(description="what the judge wrote")


class Out(BaseModel):
    """A candidate that failed a public test."""

    candidate_id: str
    outcome: str = Field(description="wrong_answer, crashed, timed_out, out_of_memory or output_limit")
    detail: str


class Hybrid(BaseModel):
    """What the public tests said before the judge was asked."""

    note: str
    out: list[Out]
    sandbox: str = Field(description="isolation that the programs ran under; empty where none ran")


class Answer(BaseModel):
    """The choice."""

    problem_id: str
    selected: int | None = Field(description="place of the chosen program in candidates; null: abstained")
    candidate_id: str | None = Field(description="its id, or its place as text")
    abstained: bool = Field(description="no candidate was credible: confidence is below the service's min_confidence")
    votes: list[float] = Field(description="comparisons that each candidate won")
    confidence: float = Field(description="of the strategy in its winner, 0 to 1")
    num_comparisons: int = Field(description="answers that the judge was asked for")
    num_invalid: int = Field(description="of them, without a valid selection")
    reasoning: list[Compared] = Field(
        description="the comparisons with the chosen program; after an abstention those with most votes"
    )
    hybrid: Hybrid | None = Field(description="null where the service executes nothing")


class Health(BaseModel):
    """Whether a request can be expected to be answered."""

    status: str = Field(description="ok, or failing")
    waiting: int = Field(description="requests in the house")
    max_waiting: int
    judge: str
    strategy: str


class Refusal(BaseModel):
    """Why there is no answer."""

    detail: str = Field(description="what came, what was wanted, what to do")
