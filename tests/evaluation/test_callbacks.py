"""The two test sets are judged together and scored apart, before and after a run."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from conftest import Prepared
from daj_lightning.bilevel import Reweighter, Uniform
from daj_lightning.data import JudgeData
from daj_lightning.data.prepare import prepare
from daj_lightning.evaluation import BeforeAfter, Scoreboard
from daj_lightning.evaluation.callbacks import UNSEEN, print_report, score_sets
from daj_lightning.judge import judge_response, selection_tag
from daj_lightning.records import Candidate, JudgeBatch, Problem
from daj_lightning.training import mean_loss
from tiny import ToySource, randomize_adapters, toy_data, toy_module, toy_trainer

CONFOUNDS = {"longer code", "shorter code", "more layout", "stronger policy", "first position"}


class HalfUnseen(ToySource):
    """Of the four test problems, two are of the second test set; there every right program is the longer one."""

    def load(self) -> tuple[list[Problem], list[Candidate]]:
        problems, candidates = super().load()
        unseen = {"plus-17", "plus-18"}
        padded = [
            replace(c, code=c.code + "\nprint(end='')") if c.problem_id in unseen and c.candidate_id[-1] in "01" else c
            for c in candidates
        ]
        return [replace(p, split="unseen" if p.problem_id in unseen else None) for p in problems], padded

    def description(self) -> dict[str, object]:
        return {"source": "half unseen"}


@pytest.fixture(scope="module")
def data(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> JudgeData:
    made = toy_data(tmp_path_factory.mktemp("half-unseen"), prepared.base, source=HalfUnseen())
    prepare(made.preparation, made.root)
    return made


def numbers(scores: Mapping[str, Any]) -> set[int]:
    """Of problems, over every score of a set."""
    best = [
        score for by_level in scores["best_of_n"].values() for level, score in by_level.items() if level == "overall"
    ]
    return {score["num_problems"] for score in (scores["selection"]["judge"], *best)}


def test_a_judge_that_is_right_on_one_set_and_wrong_on_the_other_scores_1_and_0(data: JudgeData) -> None:
    data.setup("test")
    judgments = [
        judge_response(c, selection_tag(c.passed.index(c.problem_id in data.difficulty["unseen"])))
        for c in data.comparisons["test"]
        if c.kind == "mixed"
    ]
    scores = score_sets(judgments, data, "test")
    assert (scores["selection"]["judge"].value, scores["unseen"]["selection"]["judge"].value) == (0.0, 1.0)
    assert scores["unseen"]["selection"]["longer code"].value == 1.0
    assert scores["selection"]["longer code"].value < 1.0


def test_validation_knows_no_second_set(data: JudgeData) -> None:
    data.setup("validate")
    assert set(score_sets([], data, "validate")) == {"selection", "best_of_n"}


def test_test_writes_both_sets_with_every_confound_and_logs_both_accuracies(
    data: JudgeData, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = toy_trainer(tmp_path, [Scoreboard(str(tmp_path / "scores.json"))])
    trainer.test(toy_module(prepared.base), data, verbose=False)
    scores = json.loads((tmp_path / "test_scores.json").read_text())
    assert set(scores) == {"selection", "best_of_n", "unseen"}
    for part in (scores, scores["unseen"]):
        assert numbers(part) == {2}
        assert set(part["selection"]) >= CONFOUNDS
        assert set(part["best_of_n"]) >= {"longest", "shortest", "first", "more layout", "stronger policy"}
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert logged["test/selection_accuracy"] == pytest.approx(scores["selection"]["judge"]["value"])
    assert logged["test/unseen_selection_accuracy"] == pytest.approx(scores["unseen"]["selection"]["judge"]["value"])
    printed = capsys.readouterr().out
    assert f"Best-of-N, {UNSEEN}" in printed
    assert printed.count("stronger policy") == 4


def test_without_unseen_problems_the_scores_have_no_such_key(prepared: Prepared, tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, [Scoreboard(str(tmp_path / "scores.json"))])
    trainer.test(toy_module(prepared.base), toy_data(prepared.root, prepared.base), verbose=False)
    assert set(json.loads((tmp_path / "test_scores.json").read_text())) == {"selection", "best_of_n"}
    assert "test/unseen_selection_accuracy" not in trainer.callback_metrics


def test_a_run_reports_both_sets_before_and_after(
    data: JudgeData, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = toy_trainer(tmp_path, [BeforeAfter(str(tmp_path), num_loss_samples=2)])
    short = toy_data(data.root, prepared.base, source=HalfUnseen(), max_windows=2)
    trainer.fit(toy_module(prepared.base), short)
    report = json.loads((tmp_path / "report.json").read_text())
    for moment in ("before", "after"):
        assert numbers(report[moment]) == numbers(report[moment]["unseen"]) == {2}
    printed = capsys.readouterr().out
    assert "test problems" in printed
    assert UNSEEN in printed


def test_the_inner_loss_is_weighted_as_training_weighs_it(prepared: Prepared, tmp_path: Path) -> None:
    """Two of the first four samples weigh nothing: their losses do not count."""

    class EverySecond(Reweighter):
        def forward(self, batch: JudgeBatch, losses: torch.Tensor) -> torch.Tensor:
            return (batch.sample_ids % 2).to(losses.dtype)

    module = toy_module(prepared.base, reweighter=Uniform())
    data = toy_data(prepared.root, prepared.base, max_windows=1)
    toy_trainer(tmp_path).fit(module, data)
    randomize_adapters(module.judge)  # at its start every loss is ln 2
    module.judge.eval()
    with torch.no_grad():
        odd = [module.objective(module.judge, data.train_set.batch([i])) for i in range(1, len(data.train_set), 2)]
    wanted = float(torch.cat(odd).mean())
    samples = data.train_set.batch(range(len(data.train_set)))
    assert mean_loss(module, samples, EverySecond()) == pytest.approx(wanted, rel=1e-5)
    assert mean_loss(module, samples, Uniform()) != pytest.approx(wanted, rel=1e-5)


def score(value: float | None) -> dict[str, float | None]:
    return {"value": value, "low": value, "high": value}


def test_the_report_shows_the_numbers_of_both_sets_and_a_dash_where_there_is_none() -> None:
    names = ("judge", "first position", "consistent", "longer code", "shorter code", "more layout", "stronger policy")

    def measured(value: float | None) -> dict[str, Any]:
        return {
            "selection": {name: score(value if name == "judge" else 0.125) for name in names},
            "best_of_n": {rule: {"overall": score(0.25)} for rule in ("judge", "random")},
        }

    def moment(test: float, unseen: float | None) -> dict[str, Any]:
        return {"inner_loss": 0.5, "meta_loss": 0.25, **measured(test), "unseen": measured(unseen)}

    report = {"windows": 2, "outer_steps": 1, "weights": {}, "corrupt": {}}
    console = Console(record=True, width=80, file=io.StringIO())
    print_report({**report, "before": moment(0.51, None), "after": moment(1.0, 0.63)}, console)
    lines = console.export_text().splitlines()
    test, unseen = (line for line in lines if "selection accuracy" in line)
    assert lines.index(test) < next(i for i, line in enumerate(lines) if UNSEEN in line) < lines.index(unseen)
    assert [cell.strip() for cell in test.split("│")[2:4]] == ["51.0% [51.0, 51.0]", "100.0% [100.0, 100.0]"]
    assert [cell.strip() for cell in unseen.split("│")[2:4]] == ["-", "63.0% [63.0, 63.0]"]
