"""The data module: prepared files in, one bi-level step a batch out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from daj_lightning.data.comparisons import References
from daj_lightning.data.dataset import PairDataset, corrupt, set_aside
from daj_lightning.data.judged import read_judged
from daj_lightning.data.labels import read_graded
from daj_lightning.data.pairs import read_comparisons, read_pairs
from daj_lightning.data.preparation import Preparation
from daj_lightning.data.prepare import check_prepared, prepare
from daj_lightning.data.prompts import PromptDataset
from daj_lightning.data.responses import ResponseSource
from daj_lightning.data.schedule import Questions
from daj_lightning.data.sources import Source
from daj_lightning.data.windows import BilevelData
from daj_lightning.execution import Limits, Rules
from daj_lightning.judge import Voting, load_tokenizer
from daj_lightning.records import DajError, Unit

LCB_DOMAINS = tuple(
    f"{platform}-{level}" for platform in ("atcoder", "leetcode") for level in ("easy", "medium", "hard")
)
HELD_OUT = "held out of meta"


class JudgeData(BilevelData):
    """Training pairs, meta pairs and comparisons of both test sets, of one prepared directory.

    Args:
        source: problems and candidates, for `prepare`.
        responses: who writes the judge responses, for `prepare`.
        root: directory of the prepared files.
        tokenizer: directory or hub name; the judge's base unless said otherwise.
        template: prompt template, a file or a shipped name.
        domains: names for domain reweighting.
        num_inner: K, samples of an inner step (paper: 16).
        num_meta: M, samples of an outer step (paper: 8).
        meta_validation: share of the meta problems that no step sees; `training.MetaValidation` measures on them.
        max_windows: bi-level steps of a run.
        max_length: tokens of prompt and response together.
        max_pairs_per_problem: (right, wrong) pairs of a training or meta problem.
        max_asked_pairs_per_problem: of these, asked in `validate` and `test` for the selection accuracy.
        max_pairs_per_comparison: preference pairs that the responses to one comparison may give; 1: the first correct
            response and the first other one.
        swap: both orders of each (right, wrong) pair in training and meta; otherwise one, drawn by seed.
        reference_support: share of the training pairs whose prompt shows a third program, known to pass (JudgeLM).
        reference_drop: share of their comparisons that go without it after all, each order drawn alone (JudgeLM: 0.5).
        voting: rounds at inference.
        both_orders: for objectives of prompts: a question and its mirror image are one sample.
        corrupt: domain -> share of its training samples in which right and wrong are swapped.
        prepare_on_fit: prepare missing or stale data before training, instead of stopping with an error.
        num_workers: candidates executed at once by `prepare`.
        limits: of one execution.
        rules: "process" runs a program as its user would; "official" as LiveCodeBench's own grader does.
        python: binary that candidates run under, with the packages they import (BigCodeBench); None: this one.
        unsafe_local: execute without isolation, if nothing on this host can give it; every verdict says so.
        verdicts: file that `label` or `import` wrote; `prepare` takes these verdicts and executes the other candidates.
        statement_similarity: `prepare` takes problems of two sides for one from this similarity of their statements
            on (what they share of their word 3-grams), unless a test tells them apart; 1: the same 3-grams.
        eval_batch_size: comparisons judged together.
        seed: of the order of samples, the choice of pairs and the corruption.
    """

    def __init__(
        self,
        source: Source,
        responses: ResponseSource,
        root: str,
        tokenizer: str,
        template: str = "five_steps",
        domains: Sequence[str] = LCB_DOMAINS,
        num_inner: int = 16,
        num_meta: int = 8,
        meta_validation: float = 0.0,
        max_windows: int = 20_000,
        max_length: int = 8192,
        max_pairs_per_problem: int = 8,
        max_asked_pairs_per_problem: int = 8,
        max_pairs_per_comparison: int = 1,
        swap: bool = True,
        reference_support: float = 0.0,
        reference_drop: float = 0.0,
        voting: Voting | None = None,
        both_orders: bool = False,
        corrupt: Mapping[str, float] | None = None,
        prepare_on_fit: bool = False,
        num_workers: int = 2,
        limits: Limits | None = None,
        rules: Rules = "process",
        python: str | None = None,
        unsafe_local: bool = False,
        verdicts: str | None = None,
        statement_similarity: float = 0.8,
        eval_batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__(root, domains, num_inner, num_meta, max_windows, seed)
        if min(eval_batch_size, num_workers) < 1:
            raise DajError(f"eval_batch_size={eval_batch_size}, num_workers={num_workers}: each must be >= 1.")
        if not 0 <= meta_validation < 1:
            raise DajError(f"meta_validation={meta_validation} must be a share: 0, or above 0 and below 1.")
        if not 0 < statement_similarity <= 1:
            raise DajError(f"statement_similarity={statement_similarity} must be above 0, and 1 at most.")
        self.preparation = Preparation(
            source=source,
            responses=responses,
            template=template,
            max_pairs_per_problem=max_pairs_per_problem,
            max_asked_pairs_per_problem=max_asked_pairs_per_problem,
            max_pairs_per_comparison=max_pairs_per_comparison,
            swap=swap,
            references=References(reference_support, reference_drop),
            voting=voting or Voting(),
            num_workers=num_workers,
            limits=limits or Limits(),
            rules=rules,
            python=python,
            unsafe_local=unsafe_local,
            verdicts=verdicts,
            statement_similarity=statement_similarity,
            seed=seed,
        )
        self.tokenizer_name = tokenizer
        self.max_length = max_length
        self.both_orders = both_orders
        self.meta_validation = meta_validation
        self.corrupt = dict(corrupt or {})
        self.prepare_on_fit = prepare_on_fit
        self.eval_batch_size = eval_batch_size

    def prepare_data(self) -> None:
        try:
            check_prepared(self.preparation, self.root)
        except DajError:
            if not self.prepare_on_fit:
                raise
            prepare(self.preparation, self.root)

    def setup(self, stage: str) -> None:
        check_prepared(self.preparation, self.root)
        self.tokenizer = load_tokenizer(self.tokenizer_name)
        self.comparisons = {
            "validate": read_comparisons(self.root / "validation.jsonl"),  # the meta problems
            "test": [*read_comparisons(self.root / "test.jsonl"), *read_comparisons(self.root / "unseen.jsonl")],
        }
        sides = json.loads((self.root / "problems.json").read_text(encoding="utf-8"))
        self.difficulty = {"validate": sides["meta"], "test": sides["test"], "unseen": sides["unseen"]}
        """stage -> problem id -> difficulty, of every problem that counts; `test` asks about "unseen" too."""
        self.graded = read_graded(self.root)
        """problem id -> (candidate, passed), in order."""

    def load_samples(self, unit: Unit, max_new_tokens: int = 0) -> None:
        limit = self.max_length - max_new_tokens
        train = corrupt(self._read("train", unit), self.corrupt, self.seed)
        meta, held_out = set_aside(self._read("meta", unit), self.meta_validation, self.seed)
        sets = {"train": train, "meta": meta}
        if held_out:
            sets[HELD_OUT] = held_out
        encoded = {name: self._encode(samples, unit, limit) for name, samples in sets.items()}
        self.take_in(encoded["train"], encoded["meta"], encoded.get(HELD_OUT))
        for name, dataset in encoded.items():
            rank_zero_info(f"{name}: {dataset.description()} at {self.max_length} tokens")

    def _read(self, split: str, unit: Unit) -> list[Any]:
        """Pairs, or comparisons where the judge writes its own responses."""
        path = self.root / (f"responses-{split}.jsonl" if unit == "prompt" else f"{split}.jsonl")
        samples = [judged.comparison for judged in read_judged(path)] if unit == "prompt" else read_pairs(path)
        if not samples:
            remedy = "`prepare` again" if unit == "prompt" else "`pairs` with a data.responses that writes some"
            raise DajError(f"{split} set is empty: nothing in {path}. Run {remedy}.")
        return samples

    def _encode(self, samples: Sequence[Any], unit: Unit, limit: int) -> PairDataset | PromptDataset:
        if unit == "prompt":
            return PromptDataset(samples, self.tokenizer, self.domains, limit, self.both_orders)
        return PairDataset(samples, self.tokenizer, self.domains, self.max_length, unit)

    def val_dataloader(self) -> Questions:
        return Questions(self.comparisons["validate"], self.eval_batch_size)

    def test_dataloader(self) -> Questions:
        return Questions(self.comparisons["test"], self.eval_batch_size)
