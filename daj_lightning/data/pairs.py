"""The rows of each side: preference pairs for train and meta, comparisons for what is only asked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from daj_lightning.data.comparisons import mixed_comparisons, voting_comparisons
from daj_lightning.data.jsonl import read_jsonl, write_jsonl, write_whole
from daj_lightning.data.preparation import Preparation
from daj_lightning.data.responses import ResponseSource
from daj_lightning.data.splits import SPLITS, check_splits, sides, split_of
from daj_lightning.judge import PromptTemplate, judge_response
from daj_lightning.judge.verdict import REWARD_CORRECT
from daj_lightning.records import Candidate, Comparison, Pair, Problem


def write_splits(
    problems: Mapping[str, Problem],
    candidates: Sequence[Candidate],
    passed: Mapping[str, bool],
    preparation: Preparation,
    root: Path,
) -> dict[str, int]:
    """train and meta hold pairs, validation (the meta problems), test and unseen comparisons; returns row counts."""
    template = PromptTemplate(preparation.template)
    of_problem: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        of_problem.setdefault(candidate.problem_id, []).append(candidate)
    mixed: dict[str, list[Comparison]] = {split: [] for split in SPLITS}
    asked: dict[str, list[Comparison]] = {split: [] for split in SPLITS}
    for problem in problems.values():
        split, own = split_of(problem), of_problem.get(problem.problem_id, [])
        if split is None or not own:
            continue
        pairs = mixed_comparisons(problem, own, passed, template, preparation.max_pairs_per_problem, preparation.seed)
        mixed[split] += pairs
        asked[split] += pairs[: 2 * preparation.max_asked_pairs_per_problem]
        asked[split] += voting_comparisons(problem, own, passed, template, preparation.voting)
    rows: dict[str, Sequence[Pair | Comparison]] = {
        "train": preference_pairs(mixed["train"], preparation.responses),
        "meta": preference_pairs(mixed["meta"], preparation.responses),
        "validation": asked["meta"],
        "test": asked["test"],
        "unseen": asked["unseen"],
    }
    check_splits(problems.values(), rows)
    write_whole(root / "problems.json", json.dumps(sides(problems.values(), of_problem), indent=2) + "\n")
    for name, records in rows.items():
        write_jsonl(root / f"{name}.jsonl", records)
    return {name: len(records) for name, records in rows.items()}


def preference_pairs(comparisons: Sequence[Comparison], source: ResponseSource) -> list[Pair]:
    """One pair for each comparison whose responses hold a correct selection and something else.

    Chosen: the first correct selection. Rejected: the first wrong selection or format error; both are
    treated alike (paper, section 3).
    """
    pairs = []
    for comparison, responses in zip(comparisons, source.respond(comparisons), strict=True):
        judged = [judge_response(comparison, response) for response in responses]
        chosen = _first(j.response for j in judged if j.reward == REWARD_CORRECT)
        rejected = _first(j.response for j in judged if j.reward < REWARD_CORRECT)
        if chosen is not None and rejected is not None:
            pairs.append(
                Pair(
                    problem_id=comparison.problem_id,
                    domain=comparison.domain,
                    candidate_ids=comparison.candidate_ids,
                    prompt=comparison.prompt,
                    chosen=chosen,
                    rejected=rejected,
                )
            )
    return pairs


def _first(responses: Iterable[str]) -> str | None:
    return next(iter(responses), None)


def read_pairs(path: str | Path) -> list[Pair]:
    rows = read_jsonl(path, "pairs")
    return [Pair(**{**row, "candidate_ids": tuple(row["candidate_ids"])}) for row in rows]


def read_comparisons(path: str | Path) -> list[Comparison]:
    rows = read_jsonl(path, "comparisons")
    return [
        Comparison(**{**row, "candidate_ids": tuple(row["candidate_ids"]), "passed": tuple(row["passed"])})
        for row in rows
    ]
