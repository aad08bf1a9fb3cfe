"""What tools/ablation.py runs: methods by name, which of them in which scenario, and what else is varied."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ablation_data import DOMAINS, NOISE, Scenario
from ablation_methods import META_DOMAIN, OUTER, FixedWeights, GroupDRO, Method, Outcome, RobustNet, SmallLoss
from daj_lightning.bilevel import DomainWeights, InstanceTable
from daj_lightning.objectives import GRPO, KTO, ORPO, Objective

OURS = ("domain", "table", "net", "table, stopped early", "domain, meta among the data")
FIRST: Mapping[str, Method] = {
    "none": Method(),
    "domain": Method(DomainWeights, OUTER["domain"]),
    "table": Method(InstanceTable, OUTER["table"]),
    "net": Method(RobustNet, OUTER["net"]),
    "table, stopped early": Method(InstanceTable, OUTER["table"], stops_early=True),
    "domain, meta among the data": Method(DomainWeights, OUTER["domain"], "union", with_meta_domain=True),
    "train and meta": Method(mixture="union"),
    "train, then meta": Method(mixture="train then meta"),
    "meta alone": Method(mixture="meta"),
    "small loss": Method(partial(SmallLoss, keep=1 - NOISE)),
    "group DRO": Method(GroupDRO),
}
"""Name -> method. Those below need the data or another run's weights."""
AFTERWARDS = (
    "inverse domain size",
    "meta at its learned share",
    "domain weights, frozen",
    "table, frozen",
    "table, permuted",
)
SIMPLE = (*(name for name in FIRST if name not in OURS), "inverse domain size")
"""Baselines that learn no weight; the others reuse what a run of ours has learned."""
EVERY = (*FIRST, *AFTERWARDS)
EVEN_ONLY = tuple(name for name in EVERY if name != "inverse domain size")
"""Where every domain has as many pairs, its inverse size is no weight."""
BRIEF = ("none", "domain", "table", "net", "train and meta", "meta alone", "small loss")
METHODS: Mapping[str, Sequence[str]] = {
    "flipped instances": (*BRIEF, "table, stopped early", "train, then meta", "table, frozen", "table, permuted"),
    "flipped domains": EVEN_ONLY,
    "clean": BRIEF,
    "thinned tests": (*BRIEF, "train, then meta"),
    "easy-heavy": (*BRIEF, "inverse domain size"),
    "other trajectories": BRIEF,
}
"""Where every label is as good as its neighbours, or no domain is worse, fewer ways are worth a run."""
META_SIZES = (8, 128, 1000)
"""Beside the scenarios' own; the last is all there are."""
META_METHODS = ("domain", "table", "train and meta", "meta alone")
OBJECTIVES: Mapping[str, Callable[[], Objective]] = {
    "KTO": lambda: KTO(beta=1.0),
    "ORPO": lambda: ORPO(),
    "GRPO": lambda: GRPO(beta=0.1),
}
"""Of Table 4, beside DPO."""
NUM_TABLE_SEEDS = 3
NUM_META_SEEDS = 10
GROUP_SIZE, RESPONSE_TOKENS = 8, 40


def afterwards(name: str, scenario: Scenario, done: Mapping[str, Outcome], seed: int) -> Method:
    """A method that takes its weights from the data, or from a run of the same scenario and seed."""
    domains = [pair.domain for pair in scenario.train]
    if name == "inverse domain size":
        weights = [1 / domains.count(domain) for domain in domains]
    elif name == "meta at its learned share":
        learned = done["domain, meta among the data"].domain_weights
        counts = {**{d: domains.count(d) for d in DOMAINS}, META_DOMAIN: len(scenario.meta)}
        mass = {domain: learned[domain] * count for domain, count in counts.items()}
        return Method(mixture="union", meta_share=mass[META_DOMAIN] / sum(mass.values()))
    elif name == "domain weights, frozen":
        weights = [done["domain"].domain_weights[domain] for domain in domains]
    else:
        weights = list(done["table"].weights)
        if name == "table, permuted":
            weights = permuted(weights, domains, seed)
    return Method(partial(FixedWeights, weights))


def permuted(weights: Sequence[float], domains: Sequence[str], seed: int) -> list[float]:
    """Weights exchanged at random among the samples of each domain."""
    rng, result = random.Random(f"{seed}/permuted"), list(weights)
    for domain in sorted(set(domains)):
        own = [i for i, name in enumerate(domains) if name == domain]
        for i, j in zip(own, rng.sample(own, len(own)), strict=True):
            result[i] = weights[j]
    return result
