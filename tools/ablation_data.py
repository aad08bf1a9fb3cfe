"""Scenarios with known truth, made of the bundled bank: which training pairs are good is known, and only here.

A scenario is a set of training pairs, each with whether its label is right, a meta set, and test pairs. The bank's
programs are executed once; scenarios choose among them, turn labels round, or look at fewer tests. Prompts show the
problem's title and two short programs, because a run has seconds: the base is that of tools/noise_base.py.
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
from daj_lightning.data.labels import read_labels
from daj_lightning.data.pairs import preference_pairs
from daj_lightning.execution import Limits
from daj_lightning.judge import PromptTemplate
from daj_lightning.records import Candidate, DajError, Pair, Problem

ROOT = Path("runs/ablation")
DOMAINS = ("atcoder-easy", "atcoder-medium", "leetcode-easy", "leetcode-medium")
"""Those of the bank that have short programs enough."""
NUM_TRAIN = 72
"""S, of every scenario; as many of each domain where nothing else is said."""
NUM_META_PAIRS = 32
"""16 pairs of programs in both orders, so that a lean to one position cancels in the whole set."""
PAIRS_PER_PROBLEM = 8
MAX_CHARACTERS = 450
"""Of a prompt."""
NOISE = 0.3
"""Share of turned labels."""
NUM_FLIPPED = 2
"""Domains of which every label is turned."""
EASY_SHARE = 0.8
WEAK_SHARE = 0.75
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

    def pairs(self, side: str, num_tests: int | None = None, both_orders: bool = False) -> list[tuple[Pair, bool]]:
        """Short (right, wrong) pairs that show the problem's title alone, and whether the label is true.

        Args:
            num_tests: the first hidden tests alone decide who passes; None: all.
        """
        truth = {name: passed for name, (_, passed) in self.num_passed.items()}
        labels = {n: ok or (num_tests is not None and k >= num_tests) for n, (k, ok) in self.num_passed.items()}
        template, found = PromptTemplate("bare"), []
        for name in self.sides[side]:
            problem = replace(self.problems[name], statement=self.problems[name].title)
            own = self.candidates.get(name, [])
            asked = mixed_comparisons(problem, own, labels, template, PAIRS_PER_PROBLEM, 0, swap=both_orders)
            for comparison, pair in zip(asked, preference_pairs(asked, RESPONSES), strict=True):
                true = all(truth[c] == passed for c, passed in zip(pair.candidate_ids, comparison.passed, strict=True))
                if len(pair.prompt) <= MAX_CHARACTERS:
                    found.append((pair, true))
        return found


RESPONSES = TemplatedResponses(format_error_rate=0.0)
HASTY = Bank(ROOT / "data", "hasty", seed=0)
WEAK = Bank(ROOT / "weak", "weak", seed=0)


def swapped(pair: Pair) -> Pair:
    return replace(pair, chosen=pair.rejected, rejected=pair.chosen)


def family(pair: Pair) -> str:
    """Of the problem: its id is family-number-platform."""
    return pair.problem_id.rsplit("-", 2)[0]


class Pools:
    """Pairs to draw from; read once."""

    @cached_property
    def train(self) -> list[Pair]:
        return [pair for pair, _ in HASTY.pairs("train")]

    @cached_property
    def thinned(self) -> list[tuple[Pair, bool]]:
        """Of both policies, labelled by the first hidden test."""
        return [*HASTY.pairs("train", NUM_TESTS_LEFT), *WEAK.pairs("train", NUM_TESTS_LEFT)]

    @cached_property
    def weak(self) -> list[Pair]:
        return [pair for pair, _ in WEAK.pairs("train")]

    @cached_property
    def meta(self) -> list[tuple[Pair, Pair]]:
        """The two orders of each question."""
        pairs = [pair for pair, _ in HASTY.pairs("meta", both_orders=True)]
        return list(zip(pairs[::2], pairs[1::2], strict=True))

    @cached_property
    def test(self) -> list[Pair]:
        return [pair for pair, _ in HASTY.pairs("test")]


def draw(pool: Sequence[Pair], shares: Mapping[str, float], rng: random.Random) -> list[Pair]:
    """NUM_TRAIN pairs, of each domain its share."""
    drawn = []
    for domain, share in shares.items():
        own = [pair for pair in pool if pair.domain == domain]
        wanted = round(share * NUM_TRAIN)
        if len(own) < wanted:
            raise DajError(f"the bank has {len(own)} short pairs of {domain}, wanted {wanted}. Lower NUM_TRAIN.")
        drawn += rng.sample(own, wanted)
    return drawn


EVEN = dict.fromkeys(DOMAINS, 1 / len(DOMAINS))
Labelled = list[tuple[Pair, bool]]


def clean(pools: Pools, rng: random.Random) -> Labelled:
    """Every label true: weights must not hurt."""
    return [(pair, True) for pair in draw(pools.train, EVEN, rng)]


def flipped_domains(pools: Pools, rng: random.Random) -> Labelled:
    """Every label of two of the four domains turned round."""
    of = rng.sample(DOMAINS, NUM_FLIPPED)
    return [(swapped(p), False) if p.domain in of else (p, True) for p in draw(pools.train, EVEN, rng)]


def flipped_instances(pools: Pools, rng: random.Random) -> Labelled:
    """A share of all labels turned round, whatever their domain."""
    drawn = draw(pools.train, EVEN, rng)
    turned = set(rng.sample(range(len(drawn)), round(NOISE * len(drawn))))
    return [(swapped(p), False) if i in turned else (p, True) for i, p in enumerate(drawn)]


def thinned_tests(pools: Pools, rng: random.Random) -> Labelled:
    """Labels by a single hidden test: wrong programs pass exactly where they are hard to tell."""
    known = [entry for entry in pools.thinned if entry[0].domain in DOMAINS]
    return rng.sample(known, NUM_TRAIN)


def easy_heavy(pools: Pools, rng: random.Random) -> Labelled:
    """Four of five training pairs are of easy problems; meta and test are as the bank has them."""
    shares = {n: (EASY_SHARE if n.endswith("easy") else 1 - EASY_SHARE) / 2 for n in DOMAINS}
    return [(pair, True) for pair in draw(pools.train, shares, rng)]


def other_trajectories(pools: Pools, rng: random.Random) -> Labelled:
    """Three of four training pairs are programs of "weak", which errs in meaning; meta and test are of "hasty"."""
    weak, own = ([pair for pair in pool if pair.domain in DOMAINS] for pool in (pools.weak, pools.train))
    num_weak = round(WEAK_SHARE * NUM_TRAIN)
    return [(pair, True) for pair in (*rng.sample(weak, num_weak), *rng.sample(own, NUM_TRAIN - num_weak))]


SCENARIOS: Mapping[str, Callable[[Pools, random.Random], Labelled]] = {
    "clean": clean,
    "flipped domains": flipped_domains,
    "flipped instances": flipped_instances,
    "thinned tests": thinned_tests,
    "easy-heavy": easy_heavy,
    "other trajectories": other_trajectories,
}


def make(pools: Pools, name: str, seed: int, num_meta: int = NUM_META_PAIRS, misaligned: bool = False) -> Scenario:
    """The scenario's data at a seed: the same for every method.

    Args:
        num_meta: meta pairs, an even number; as many as there are if there are fewer.
    """
    train = SCENARIOS[name](pools, random.Random(f"{seed}/{name}"))
    rng = random.Random(f"{seed}/meta")
    known = [orders for orders in pools.meta if orders[0].domain in DOMAINS]
    questions = rng.sample(known, min(num_meta // 2, len(known)))
    if misaligned:
        turned = set(rng.sample(range(len(questions)), round(MISALIGNED * len(questions))))
        questions = [tuple(map(swapped, q)) if i in turned else q for i, q in enumerate(questions)]  # type: ignore[misc]
    meta = [pair for orders in questions for pair in orders]
    test = [pair for pair in pools.test if pair.domain in DOMAINS]
    return Scenario([pair for pair, _ in train], [true for _, true in train], meta, test)


def prepare_banks() -> None:
    for bank in (HASTY, WEAK):
        bank.prepare()
