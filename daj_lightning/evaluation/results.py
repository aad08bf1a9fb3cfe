"""What an evaluation found: all that a report shows, and nothing of how it is shown.

Plain records. Where a number was not measured, its entry is absent; nothing is filled in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from daj_lightning.evaluation.score import Score

ByLevel = Mapping[str, Score]
""""overall" and each difficulty that occurs ("easy", "medium", "hard") -> score."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """How often a strategy picks a right program, at what price."""

    strategy: str
    """Name with its settings, e.g. "Adaptive(max_comparisons=14)"."""
    num_candidates: int
    num_comparisons: float
    """Mean over problems."""
    pass_at_1: Score


@dataclass(frozen=True, slots=True)
class JudgeResult:
    """One judge on the problems of the evaluation; a run of ours, or another judge's imported answers."""

    name: str
    origin: str
    """Where its answers came from: a file's name, and of what kind it is."""
    pass_at_1: ByLevel
    """Best-of-N: of the program that it selected."""
    gap_recovered: ByLevel
    """The headline: (judge - random) / (oracle - random), on problems with right and wrong candidates."""
    pairwise: Mapping[str, Score]
    """Metric -> score over comparisons of a right and a wrong program: "single order", "first order", "second order",
    "both correct", "consistency" (two nulls agree), "consistent and valid", "JudgeBench official", "ties counted half",
    "first position", "null rate" (pairwise.py says what each is); and over all comparisons "transitivity" (share of
    triples without a cycle) and "NDCG"; those that its answers allow."""
    curve: Sequence[CurvePoint] = ()


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Two judges on the same questions."""

    first: str
    second: str
    test: str
    """"McNemar, exact" or "paired bootstrap over problems"."""
    difference: Score
    """first minus second, of selection accuracy or pass@1; may be negative."""
    p_value: float | None


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """A training sample that the weights single out."""

    sample: int
    domain: str
    influence: float
    """Mean over its looks of -d L_meta / d alpha: positive helps the meta set."""
    weight: float
    """At its last look."""
    num_looks: int
    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A question of a right and a wrong program that a judge answered wrongly."""

    judge: str
    problem_id: str
    difficulty: str
    statement: str
    programs: tuple[str, ...]
    """In the order in which the judge saw them."""
    passed: tuple[bool, ...]
    selection: int | None
    """0-based; None: a format error."""
    response: str


@dataclass(frozen=True, slots=True)
class WeightHistory:
    """alpha over training: the paper's Figures 5 and 6."""

    windows: Sequence[int]
    by_domain: Mapping[str, Sequence[float]]
    """Domain -> mean weight in each entry of `windows`; NaN where the domain was not seen."""
    quantiles: Sequence[Sequence[float]]
    """At 25, 50, 75 and 100 % of training: the 5, 25, 50, 75 and 95 % quantiles of the samples' weights."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything on the page."""

    title: str
    facts: Mapping[str, str]
    """What was evaluated: number of problems, of candidates, files with their hashes, commands, versions."""
    baselines: Mapping[str, ByLevel]
    """pass@1 of "random", "oracle", "first", "longest", "shortest", "more layout", "stronger policy" and, where
    programs could be executed, "clustering by output"."""
    judges: Sequence[JudgeResult]
    """The first is the one that the page is about."""
    tests: Sequence[PairedTest] = ()
    by_num_candidates: Mapping[int, Mapping[str, Score]] = field(default_factory=dict)
    """Figure 4: number of candidates -> "random", "oracle" and each judge's name -> pass@1."""
    weights: WeightHistory | None = None
    helpful: Sequence[TrainingSample] = ()
    """Largest influence first."""
    harmful: Sequence[TrainingSample] = ()
    """Most negative influence first."""
    failures: Sequence[Failure] = ()
