"""The rows of each side: preference pairs for train and meta, comparisons for what is only asked.

Comparisons are made one problem at a time and judged one batch at a time; what is held of all of them is a
key each. Every pair says where it came from (`records.Provenance`).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from daj_lightning.data.comparisons import mixed_comparisons, voting_comparisons
from daj_lightning.data.jsonl import write_jsonl, write_whole
from daj_lightning.data.judged import Judged, ResponseLog, ask, key_of, read_judged
from daj_lightning.data.preparation import Preparation
from daj_lightning.data.responses import NoResponses, ResponseSource
from daj_lightning.data.rows import read_comparisons, read_pairs
from daj_lightning.data.splits import check_splits, sides, split_of
from daj_lightning.data.usable import Report
from daj_lightning.judge import PromptTemplate
from daj_lightning.judge.verdict import REWARD_CORRECT
from daj_lightning.records import Candidate, Comparison, DajError, Pair, Problem, Provenance

TRAINED = ("train", "meta")
ASKED = {"validation": "meta", "test": "test", "unseen": "unseen"}
"""File -> the side whose problems it asks about."""
Item = TypeVar("Item")


def write_splits(
    problems: Mapping[str, Problem],
    candidates: Sequence[Candidate],
    passed: Mapping[str, bool],
    preparation: Preparation,
    root: Path,
    console: Console,
) -> tuple[dict[str, int], Report]:
    """train and meta hold pairs, validation (the meta problems), test and unseen comparisons. The response source is
    closed.

    Returns:
        rows of each file, and what became of the comparisons of train and meta.
    Raises:
        DajError: train or meta has nothing to ask, or no response that makes a pair; with NoResponses none is wanted.
    """
    of_problem: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        of_problem.setdefault(candidate.problem_id, []).append(candidate)
    questions = _Questions(problems, of_problem, passed, preparation)
    check_splits(problems.values(), {split: list(itertools.islice(questions.trained(split), 1)) for split in TRAINED})
    report = Report()
    try:
        counts = {split: _write_pairs(questions, split, preparation, root, report, console) for split in TRAINED}
    finally:
        preparation.responses.close()
    for split, number in counts.items():
        if not number and not isinstance(preparation.responses, NoResponses):
            told = ", ".join(f"{use} {n}" for use, n in report.totals(split).items())
            raise DajError(
                f"{split} set is empty: of no comparison did the responses hold a correct selection and another "
                f"answer ({told}); they are in {root / f'responses-{split}.jsonl'}. Change data.responses."
            )
    for name, split in ASKED.items():
        counts[name] = write_jsonl(root / f"{name}.jsonl", questions.asked(split))
    write_whole(root / "problems.json", json.dumps(sides(problems.values(), of_problem), indent=2) + "\n")
    return counts, report


@dataclasses.dataclass(frozen=True)
class _Questions:
    """All comparisons of a preparation, made anew whenever they are iterated over."""

    problems: Mapping[str, Problem]
    of_problem: Mapping[str, Sequence[Candidate]]
    passed: Mapping[str, bool]
    preparation: Preparation

    def trained(self, split: str) -> Iterator[Comparison]:
        """To be answered for pairs. The meta set never shows a reference: it stands for what the judge is asked."""
        plan, template = self.preparation, PromptTemplate(self.preparation.template)
        references = plan.references if split == "train" else None
        number, seed = plan.max_pairs_per_problem, plan.seed
        for problem, own in self._of(split):
            yield from mixed_comparisons(problem, own, self.passed, template, number, seed, plan.swap, references)

    def asked(self, split: str) -> Iterator[Comparison]:
        """In validation and test: both orders, and no reference."""
        plan, template = self.preparation, PromptTemplate(self.preparation.template)
        number = min(plan.max_pairs_per_problem, plan.max_asked_pairs_per_problem)
        for problem, own in self._of(split):
            yield from mixed_comparisons(problem, own, self.passed, template, number, plan.seed)
            yield from voting_comparisons(problem, own, self.passed, template, plan.voting)

    def _of(self, split: str) -> Iterator[tuple[Problem, Sequence[Candidate]]]:
        for problem in self.problems.values():
            own = self.of_problem.get(problem.problem_id, ())
            if own and split_of(problem) == split:
                yield problem, own


def _write_pairs(
    questions: _Questions, split: str, preparation: Preparation, root: Path, report: Report, console: Console
) -> int:
    """Answer what is not answered yet, then pick the pairs; returns their number."""
    source = preparation.responses
    description = source.description()
    keys = [key_of(comparison, description) for comparison in questions.trained(split)]
    with ResponseLog(root, split) as log:
        missing = {key for key in keys if key not in log}
        unanswered = (c for key, c in zip(keys, questions.trained(split), strict=True) if key in missing)
        num_batches = -(-len(missing) // source.batch_size)
        batches = _batched(unanswered, source.batch_size)
        for batch in track(batches, f"responses ({split})", num_batches, console=console, disable=not missing):
            for judged in ask(batch, source):
                log.append(judged)
        log.settle(keys)

    def picked() -> Iterator[Pair]:
        for judged in read_judged(log.path):
            pairs = pairs_of(judged, preparation.max_pairs_per_comparison, preparation.seed)
            report.count(split, judged, len(pairs))
            yield from pairs

    return write_jsonl(root / f"{split}.jsonl", picked())


def preference_pairs(comparisons: Sequence[Comparison], source: ResponseSource) -> list[Pair]:
    """One pair for each comparison whose responses hold a correct selection and something else."""
    judged = (judged for batch in _batched(comparisons, source.batch_size) for judged in ask(batch, source))
    return [pair for one in judged for pair in pairs_of(one)]


def pairs_of(judged: Judged, max_pairs: int = 1, seed: int = 0) -> list[Pair]:
    """Preference pairs from the responses to one comparison; wrong selections and format errors are treated
    alike (paper, section 3).

    Args:
        max_pairs: 1: the first correct selection and the first other answer. More: drawn without repetition
            from all pairs of a correct selection and another answer; responses of the same text count once.
        seed: of the draw.
    """
    texts: dict[str, int] = {}
    for k, response in enumerate(judged.responses):
        texts.setdefault(response.text, k)
    correct = [k for k in texts.values() if judged.responses[k].reward == REWARD_CORRECT]
    others = [k for k in texts.values() if judged.responses[k].reward < REWARD_CORRECT]
    choices = list(itertools.product(correct, others))
    if max_pairs > 1:
        rng = random.Random(f"{seed}/responses/{judged.key}")
        choices = sorted(rng.sample(choices, min(max_pairs, len(choices))))
    return [_pair(judged, chosen, rejected) for chosen, rejected in choices[:max_pairs]]


def _pair(judged: Judged, chosen: int, rejected: int) -> Pair:
    comparison = judged.comparison
    better, worse = judged.responses[chosen], judged.responses[rejected]
    return Pair(
        problem_id=comparison.problem_id,
        domain=comparison.domain,
        candidate_ids=comparison.candidate_ids,
        prompt=comparison.prompt,
        chosen=better.text,
        rejected=worse.text,
        provenance=Provenance(
            policy=comparison.policy,
            reference_id=comparison.reference_id,
            reference_use=comparison.reference_use,
            source=judged.source,
            sampling=judged.sampling,
            num_responses=len(judged.responses),
            chosen_index=chosen,
            rejected_index=rejected,
            chosen_reward=better.reward,
            rejected_reward=worse.reward,
            rejected_kind="format error" if worse.selection is None else "wrong selection",
        ),
    )


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


__all__ = ["pairs_of", "preference_pairs", "read_comparisons", "read_pairs", "write_splits"]
