"""Scenarios with known truth, made of the bundled bank: which training pairs are good is known, and only here.

A scenario is a set of training pairs, each with whether its label is right, a meta set, and test pairs. The bank's
programs are executed once; scenarios choose among them, turn labels round, or look at fewer tests.
Letters: S training pairs, D domains.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from daj_lightning.data import BankSource, JudgeData, TemplatedResponses, read_jsonl
from daj_lightning.data.comparisons import mixed_comparisons
from daj_lightning.data.datamodule import LCB_DOMAINS
from daj_lightning.data.labels import read_labels
from daj_lightning.data.pairs import preference_pairs
from daj_lightning.execution import Limits
from daj_lightning.judge import PromptTemplate
from daj_lightning.records import Candidate, DajError, Pair, Problem
from study_learning import swapped_domains

ROOT = Path("runs/ablation")
NUM_TRAIN = 144
"""S, of every scenario."""
NUM_META_PAIRS = 96
PAIRS_PER_PROBLEM = 4
MAX_CHARACTERS = 900
"""Of a training or meta prompt: short ones, because a run has ten seconds. Test prompts have no limit."""
NOISE = 0.3
"""Share of turned labels."""
EASY_SHARE = 0.8
MISALIGNED = 0.4
"""Share of turned labels in a misaligned meta set."""
NUM_TESTS_LEFT = 1
"""Hidden tests that label programs under structured noise."""


@dataclass(frozen=True)
class Scenario:
    """The data of one run."""

    train: list[Pair]
    is_clean: list[bool]
    """Of each training pair, whether the program that it prefers passes every test, and the other does not."""
    meta: list[Pair]
    test: list[Pair]


@dataclass(frozen=True)
class Bank:
    """Problems with executed candidates of one prepared directory."""

    root: Path
    train_policy: str
    seed: int

    def data(self) -> JudgeData:
        source = BankSource(
            num_problems=300, num_unseen=60, train_policy=self.train_policy, other_policy="hasty", seed=self.seed
        )
        return JudgeData(
            source=source,
            responses=TemplatedResponses(),
            root=str(self.root),
            tokenizer="",
            template="bare",
            statement_similarity=0.9,
            limits=Limits(test_wall_s=2.0, test_cpu_s=2),
        )

    def prepare(self) -> None:
        """Execute the candidates, unless that was done."""
        data = self.data()
        data.prepare_on_fit = True
        data.prepare_data()

    @cached_property
    def sides(self) -> Mapping[str, Mapping[str, str]]:
        return json.loads((self.root / "problems.json").read_text(encoding="utf-8"))

    @cached_property
    def problems(self) -> dict[str, Problem]:
        loaded = {problem.problem_id: problem for problem in self.data().preparation.source.load()[0]}
        return {name: loaded[name] for side in ("train", "meta", "test") for name in self.sides[side]}

    @cached_property
    def candidates(self) -> dict[str, list[Candidate]]:
        found: dict[str, list[Candidate]] = {}
        for row in read_jsonl(self.root / "candidates.jsonl", "candidates"):
            found.setdefault(row["problem_id"], []).append(Candidate(**row))
        return found

    @cached_property
    def num_passed(self) -> dict[str, tuple[int, bool]]:
        """Candidate id -> tests passed before the first failure, and whether it passed all."""
        labels = read_labels([self.root / "verdicts.jsonl"])
        return {name: (label.verdict.num_passed, label.verdict.passed) for name, label in labels.items()}

    def pairs(self, side: str, num_tests: int | None = None) -> list[tuple[Pair, bool]]:
        """Each (right, wrong) pair of programs in one order, and whether the label is true.

        Args:
            num_tests: the first hidden tests alone decide who passes; None: all.
        """
        truth = {name: passed for name, (_, passed) in self.num_passed.items()}
        labels = {n: ok or (num_tests is not None and k >= num_tests) for n, (k, ok) in self.num_passed.items()}
        template, found = PromptTemplate("bare"), []
        for name in self.sides[side]:
            own = self.candidates.get(name, [])
            asked = mixed_comparisons(self.problems[name], own, labels, template, PAIRS_PER_PROBLEM, 0, swap=False)
            for comparison, pair in zip(asked, preference_pairs(asked, RESPONSES), strict=True):
                true = all(truth[c] == passed for c, passed in zip(pair.candidate_ids, comparison.passed, strict=True))
                found.append((pair, true))
        return found


RESPONSES = TemplatedResponses(format_error_rate=0.0)
HASTY = Bank(ROOT / "data", "hasty", seed=0)
WEAK = Bank(ROOT / "weak", "weak", seed=0)
OTHER = Bank(ROOT / "pretraining", "hasty", seed=1)
"""What the judges know before: clean pairs of other instances."""


def swapped(pair: Pair) -> Pair:
    return replace(pair, chosen=pair.rejected, rejected=pair.chosen)


def family(pair: Pair) -> str:
    """Of the problem: its id is family-number-platform."""
    return pair.problem_id.rsplit("-", 2)[0]


class Pools:
    """Pairs to draw from; read once."""

    @cached_property
    def train(self) -> list[tuple[Pair, bool]]:
        return _short(HASTY.pairs("train"))

    @cached_property
    def thinned(self) -> list[tuple[Pair, bool]]:
        """Of both policies, labelled by the first hidden test."""
        return _short([*HASTY.pairs("train", NUM_TESTS_LEFT), *WEAK.pairs("train", NUM_TESTS_LEFT)])

    @cached_property
    def weak(self) -> list[tuple[Pair, bool]]:
        return _short(WEAK.pairs("train"))

    @cached_property
    def meta(self) -> list[Pair]:
        return [pair for pair, _ in _short(HASTY.pairs("meta"))]

    @cached_property
    def test(self) -> list[Pair]:
        return [pair for pair, _ in HASTY.pairs("test")]


def _short(pairs: Sequence[tuple[Pair, bool]]) -> list[tuple[Pair, bool]]:
    return [(pair, true) for pair, true in pairs if len(pair.prompt) <= MAX_CHARACTERS]


def draw(
    pool: Sequence[tuple[Pair, bool]], shares: Mapping[str, float], rng: random.Random, number: int = NUM_TRAIN
) -> list[tuple[Pair, bool]]:
    """`number` pairs, of each domain its share."""
    drawn = []
    for domain, share in shares.items():
        own = [entry for entry in pool if entry[0].domain == domain]
        wanted = round(share * number)
        if len(own) < wanted:
            raise DajError(f"the bank has {len(own)} short pairs of {domain}, wanted {wanted}. Lower NUM_TRAIN.")
        drawn += rng.sample(own, wanted)
    return drawn


EVEN = dict.fromkeys(LCB_DOMAINS, 1 / len(LCB_DOMAINS))


def clean(pools: Pools, rng: random.Random, seed: int) -> list[tuple[Pair, bool]]:
    """Every label true: weights must not hurt."""
    return draw(pools.train, EVEN, rng)


def flipped_domains(pools: Pools, rng: random.Random, seed: int) -> list[tuple[Pair, bool]]:
    """Every label of three of the six domains turned round."""
    of = swapped_domains(seed, LCB_DOMAINS)
    return [(swapped(p), False) if p.domain in of else (p, true) for p, true in draw(pools.train, EVEN, rng)]


def flipped_instances(pools: Pools, rng: random.Random, seed: int) -> list[tuple[Pair, bool]]:
    """A share of all labels turned round, whatever their domain."""
    drawn = draw(pools.train, EVEN, rng)
    turned = set(rng.sample(range(len(drawn)), round(NOISE * len(drawn))))
    return [(swapped(p), False) if i in turned else (p, true) for i, (p, true) in enumerate(drawn)]


def thinned_tests(pools: Pools, rng: random.Random, seed: int) -> list[tuple[Pair, bool]]:
    """Labels by a single hidden test: wrong programs pass exactly where they are hard to tell."""
    return draw(pools.thinned, EVEN, rng)


def easy_heavy(pools: Pools, rng: random.Random, seed: int) -> list[tuple[Pair, bool]]:
    """Four of five training pairs are of easy problems; meta and test are even."""
    easy = [name for name in LCB_DOMAINS if name.endswith("easy")]
    shares = {n: EASY_SHARE / 2 if n in easy else (1 - EASY_SHARE) / 4 for n in LCB_DOMAINS}
    return draw(pools.train, shares, rng)


def other_trajectories(pools: Pools, rng: random.Random, seed: int) -> list[tuple[Pair, bool]]:
    """Three of four training pairs are programs of "weak", which errs in meaning; meta and test are of "hasty"."""
    return [*rng.sample(pools.weak, NUM_TRAIN * 3 // 4), *rng.sample(pools.train, NUM_TRAIN // 4)]


SCENARIOS: Mapping[str, Callable[[Pools, random.Random, int], list[tuple[Pair, bool]]]] = {
    "clean": clean,
    "flipped domains": flipped_domains,
    "flipped instances": flipped_instances,
    "thinned tests": thinned_tests,
    "easy-heavy": easy_heavy,
    "other trajectories": other_trajectories,
}


def make(pools: Pools, name: str, seed: int, num_meta: int = NUM_META_PAIRS, misaligned: bool = False) -> Scenario:
    """The scenario's data at a seed: the same for every method."""
    train = SCENARIOS[name](pools, random.Random(f"{seed}/{name}"), seed)
    rng = random.Random(f"{seed}/meta")
    meta = rng.sample(pools.meta, min(num_meta, len(pools.meta)))
    if misaligned:
        turned = set(rng.sample(range(len(meta)), round(MISALIGNED * len(meta))))
        meta = [swapped(pair) if i in turned else pair for i, pair in enumerate(meta)]
    return Scenario([pair for pair, _ in train], [true for _, true in train], meta, pools.test)


def prepare_banks() -> None:
    for bank in (HASTY, OTHER, WEAK):
        bank.prepare()
