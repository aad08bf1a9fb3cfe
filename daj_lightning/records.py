"""What crosses rooms: problems, candidates, verdicts, judgments, pairs and batches.

Plain frozen records, no behaviour beyond a derived field. Tensors appear only in the batches at
the bottom; everything above them is text and numbers and survives a round trip through JSON.
Letters: B samples, n rows of tokens a sample, R = n B rows, T tokens.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class DajError(ValueError):
    """A mistake of the user's input; its text says what came, what was wanted and what to do.

    The command line prints it as one line and exits with `status`. Bugs of ours raise anything else.
    """

    status = 2


class LostPeerError(DajError):
    """A process of the run is gone, or out of reach. The same command, given again, goes on."""

    status = os.EX_TEMPFAIL


class Stopped(SystemExit):
    """A signal asked the process to stop, and it did so at a place of its own choosing.

    Args:
        status: of the process: 128 + the signal's number.
        told: one line for the user, which the command line prints.
    """

    def __init__(self, status: int, told: str) -> None:
        super().__init__(status)
        self.told = told


Unit = Literal["pair", "chosen", "response", "prompt"]
"""What one training sample is: a preference pair, the chosen response of one, a single response that is right or
not, or a prompt with the group of responses that are drawn for it."""


class Outcome(StrEnum):
    """How the execution of one candidate ended."""

    PASSED = "passed"
    WRONG_ANSWER = "wrong_answer"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    OUTPUT_LIMIT = "output_limit"


@dataclass(frozen=True, slots=True)
class TestCase:
    """One test of a problem, in LiveCodeBench's encoding."""

    __test__ = False  # pytest: a record, not a test class

    input: str
    """stdin problems: the text fed to the program; functional: one JSON value a line, an argument each."""
    output: str
    """stdin problems: the expected text; functional: the expected return value as JSON."""


@dataclass(frozen=True, slots=True)
class UnitTests:
    """How BigCodeBench grades a task: a unittest module that runs in the candidate's own process."""

    source: str
    """The module; defines `class TestCases`."""
    entry_point: str
    """Function that the tests call."""
    code_prompt: str
    """Imports and signature that the task gives; put before the candidate ("calibrated")."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A programming problem with its tests."""

    problem_id: str
    title: str
    statement: str
    platform: str
    """"atcoder" (stdin), "leetcode" (functional) or "bigcodebench" (unit tests)."""
    difficulty: str
    """"easy", "medium" or "hard"."""
    release_date: datetime.date | None
    """None where the source gives a split instead."""
    starter_code: str
    """Empty for stdin problems."""
    function_name: str | None
    """Method of `class Solution` to call, None for a stdin problem."""
    public_tests: tuple[TestCase, ...]
    """Shown to the judge."""
    hidden_tests: Sequence[TestCase]
    """Only ever seen by the grader; a source may leave them on disk until they are asked for."""
    unit_tests: UnitTests | None = None
    """In place of public and hidden tests."""
    split: str | None = None
    """Side that the source decided: "train", "meta", "test", "unseen" or "none"; None: by release date.

    "unseen": of a family and with mistakes that neither train nor meta hold, the second test set."""
    topic: str = ""
    """Subject, where the benchmark's domains are subjects (BigCodeBench)."""

    @property
    def domain(self) -> str:
        """The unit of domain reweighting (paper, section 5): the topic, else e.g. "atcoder-hard"."""
        return self.topic or f"{self.platform}-{self.difficulty}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One program that a policy wrote for a problem."""

    candidate_id: str
    problem_id: str
    policy: str
    """Name of the policy model that wrote it."""
    code: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What executing one candidate showed, and under which rules."""

    candidate_id: str
    outcome: Outcome
    num_passed: int
    """Tests passed before the first failure."""
    num_tests: int
    detail: str
    """Empty when passed; else one line: which test failed, and how."""
    cpu_s: float
    grader: str
    """Comparison rule, e.g. "process"."""
    sandbox: str
    """Isolation it ran under: "namespaces", "bubblewrap" or "unsafe-local"."""
    python: str
    """Version of the interpreter that ran it, e.g. "3.11.7"."""
    limits: str
    """Of each test, e.g. "test_wall_s=6.0 test_cpu_s=6 memory_mib=1024 ..."."""
    forgeable: bool = False
    """The tests ran in the program's own process, which could have faked them (BigCodeBench)."""

    @property
    def passed(self) -> bool:
        return self.outcome is Outcome.PASSED


class ReferenceUse(StrEnum):
    """Whether a prompt shows a program that is known to pass (JudgeLM's reference support and reference drop)."""

    NONE = "none"
    """Not drawn for one."""
    SHOWN = "shown"
    DROPPED = "dropped"
    """Drawn for one, and drawn again to go without it."""
    LACKING = "lacking"
    """Drawn for one, but no other program passed."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A question to the judge: which of these candidates passes every test?"""

    problem_id: str
    domain: str
    difficulty: str
    policy: str
    """Policy model of the candidates; "a+b" where they differ."""
    candidate_ids: tuple[str, ...]
    """In the order in which the judge sees them."""
    passed: tuple[bool, ...]
    """Whether each candidate passed all tests, same order."""
    prompt: str
    """The filled template: the chat message's content."""
    kind: str
    """"mixed": exactly one candidate is right (selection accuracy); "round": a round of voting."""
    reference_id: str | None = None
    """The candidate shown as a reference; training only."""
    reference_use: ReferenceUse = ReferenceUse.NONE


@dataclass(frozen=True, slots=True)
class Judgment:
    """One answer of the judge to a comparison."""

    comparison: Comparison
    response: str
    selection: int | None
    """0-based index into `comparison.candidate_ids`; None for a format error."""
    reward: float
    """1, 0.5 or 0 (paper, Eq. 1)."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a preference pair came from; with the pair's candidate_ids (in the order shown), all of it."""

    policy: str
    """Policy model of the candidates; "a+b" where they differ."""
    reference_id: str | None
    """The candidate that the prompt shows as a reference."""
    reference_use: ReferenceUse
    source: str
    """Who wrote the responses: "templated" or the judge model's name."""
    sampling: str
    """How, e.g. "Sampling(max_new_tokens=4096, temperature=1.0, ...)"; empty for templates."""
    num_responses: int
    """To this comparison; the indices below are among these."""
    chosen_index: int
    rejected_index: int
    chosen_reward: float
    rejected_reward: float
    rejected_kind: str
    """"wrong selection" or "format error"."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two judge responses to one prompt, the better one first: one training sample of DPO or ORPO."""

    problem_id: str
    domain: str
    candidate_ids: tuple[str, ...]
    prompt: str
    chosen: str
    """A response that selects a candidate which passes all tests."""
    rejected: str
    """A response that selects another one, or has a format error (treated alike)."""
    provenance: Provenance | None = None
    """As it was prepared: `data.corrupt` swaps later. None: written by hand; prepared files always have one."""


@dataclass(frozen=True, slots=True)
class JudgeBatch:
    """B samples as R = n B rows of tokens; the n rows of a sample stand together.

    n is 2 for a preference pair (chosen, rejected), 1 for a single response, and the size of a group of
    responses that were drawn to be compared. What is None, the objective in use does not ask for.
    """

    sample_ids: Tensor
    """(B,) int64, row of the sample in its data set."""
    domains: Tensor
    """(B,) int64, index into the data module's `domains`."""
    input_ids: Tensor
    """(R, T) int64: prompt, response, padding on the right."""
    attention_mask: Tensor
    """(R, T) bool, false on padding."""
    response_mask: Tensor
    """(R, T) bool, true on the response's tokens: what the log-probability sums over."""
    reference_logp: Tensor | None = None
    """(R,) float32, nats: the response under the reference."""
    rewards: Tensor | None = None
    """(R,) float32: what each response earned (paper, Eq. 1)."""
    kl: Tensor | None = None
    """(B,) float32, nats: how far the judge is from its reference, estimated over the window (KTO)."""
    sampled_logp: Tensor | None = None
    """(R, T) float32, nats: each response token under the engine that drew it; 0 elsewhere, as below."""
    old_logp: Tensor | None = None
    """(R, T) float32, nats: under the policy that importance ratios refer to; None: the judge as it is."""
    reference_token_logp: Tensor | None = None
    """(R, T) float32, nats: under the reference."""
    temperature: float = 1.0
    """At which the responses were drawn: log-probabilities of tokens are of softmax(logits / temperature)."""

    def __len__(self) -> int:
        return self.sample_ids.size(0)

    @property
    def rows_per_sample(self) -> int:
        """n."""
        return self.input_ids.size(0) // len(self)

    def micro_batches(self, size: int = 1) -> Iterator[JudgeBatch]:
        """`size` samples at a time, fewer at the end; without the padding that their neighbours needed."""
        for first in range(0, len(self), size):
            yield self.part(first, min(first + size, len(self)))

    def part(self, first: int, end: int) -> JudgeBatch:
        """Samples first .. end - 1, no wider than the longest of them."""
        n = self.rows_per_sample
        rows = slice(n * first, n * end)
        length = int(self.attention_mask[rows].sum(dim=1).max())
        parts = {name: value for name in _TENSORS if (value := getattr(self, name)) is not None}
        own = {name: value[first:end] for name, value in parts.items() if name in _PER_SAMPLE}
        own |= {name: value[rows] for name, value in parts.items() if name in _PER_ROW}
        own |= {name: value[rows, :length] for name, value in parts.items() if name in _PER_TOKEN}
        return replace(self, **own)

    def to(self, device: torch.device | str) -> JudgeBatch:
        moved = {name: value.to(device) for name in _TENSORS if (value := getattr(self, name)) is not None}
        return replace(self, **moved)


_PER_SAMPLE = frozenset({"sample_ids", "domains", "kl"})
_PER_ROW = frozenset({"reference_logp", "rewards"})
_TENSORS = tuple(f.name for f in fields(JudgeBatch) if f.name != "temperature")
_PER_TOKEN = frozenset(_TENSORS) - _PER_SAMPLE - _PER_ROW


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """B samples that wait for the judge's responses: GRPO's samples before the rollout."""

    sample_ids: Tensor
    """(B,) int64, row of the sample in its data set."""
    domains: Tensor
    """(B,) int64, index into the data module's `domains`."""
    comparisons: tuple[tuple[Comparison, ...], ...]
    """Of each sample: one question, or the same one in both orders of its candidates."""
    prompts: tuple[tuple[tuple[int, ...], ...], ...]
    """Token ids of each question, up to where the judge's response starts."""

    def __len__(self) -> int:
        return len(self.comparisons)

    def to(self, device: torch.device | str) -> PromptBatch:
        return replace(self, sample_ids=self.sample_ids.to(device), domains=self.domains.to(device))


@dataclass(frozen=True, slots=True)
class BilevelBatch:
    """Everything one bi-level step consumes, so that a checkpoint always falls between steps."""

    inner: JudgeBatch | PromptBatch
    """K training samples: the window of the inner step (paper: 16)."""
    meta: JudgeBatch | PromptBatch
    """M meta samples (paper: 8)."""

    def to(self, device: torch.device | str) -> BilevelBatch:
        return BilevelBatch(inner=self.inner.to(device), meta=self.meta.to(device))
