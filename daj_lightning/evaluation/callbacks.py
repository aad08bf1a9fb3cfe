"""Callbacks that only read: scores of validate and test, the before-and-after report of a run, the figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback
from rich.console import Console
from rich.table import Table
from torchmetrics import MeanMetric

from daj_lightning.bilevel import Reweighter, Uniform, shares
from daj_lightning.data import JudgeData, LiveCodeBenchSource, PairDataset, PromptDataset, SampleStream
from daj_lightning.evaluation.judgments import write_judgments
from daj_lightning.evaluation.metrics import best_of_n_scores, selection_scores
from daj_lightning.evaluation.plots import draw_weights
from daj_lightning.evaluation.score import write_json
from daj_lightning.evaluation.tables import best_of_n_table, selection_table
from daj_lightning.records import DajError, JudgeBatch, Judgment
from daj_lightning.training import DataReweightedJudge, InfluenceRecorder

UNSEEN = "unseen families and mistakes"
_MEASURED = {
    "inner_loss": "inner loss (weighted)",
    "meta_loss": "meta loss",
    "inner_reward": "inner reward (sampled)",
    "meta_reward": "meta reward (sampled)",
}
"""Key of the report -> its row on the screen."""
_CONFOUNDS = ("longer code", "shorter code", "more layout", "stronger policy")


class Scoreboard(Callback):
    """Prints and writes selection accuracy and pass@1 by difficulty after `validate` and `test`.

    The second test set, of families and mistakes that training has not seen, is scored apart. The judgments lie beside
    the scores, for `evaluate`.

    Args:
        path: JSON file of the scores; the stage goes before its name (test_scores.json), and before that of the
            judgments (test_judgments.jsonl).
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._judgments: list[Judgment] = []

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._judgments = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._judgments += outputs["judgments"]

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DataReweightedJudge)
        data = pl_module.data
        assert isinstance(data, JudgeData)
        stage = "validate" if trainer.validating or trainer.training else "test"
        scores = score_sets(self._judgments, data, stage)
        metrics = {
            f"{stage}/selection_accuracy": scores["selection"]["judge"].value,
            f"{stage}/pass@1": scores["best_of_n"]["judge"]["overall"].value,
        }
        if "unseen" in scores:
            metrics[f"{stage}/unseen_selection_accuracy"] = scores["unseen"]["selection"]["judge"].value
        pl_module.log_dict(metrics)
        if not trainer.is_global_zero:
            return
        write_json(self.path.with_name(f"{stage}_{self.path.name}"), scores)
        name = self.path.with_name(f"{stage}_judgments.jsonl")
        write_judgments(name, self._judgments, f"{pl_module.judge.base}, {pl_module.num_windows} windows")
        print_scores(scores, Console(), paper=isinstance(data.preparation.source, LiveCodeBenchSource))

    on_validation_epoch_start = on_test_epoch_start
    on_validation_batch_end = on_test_batch_end
    on_validation_epoch_end = on_test_epoch_end


class BeforeAfter(Callback):
    """Judges both test sets and measures both losses before the first and after the last window.

    Of several processes each measures all of it, since a sharded base takes all of them to a pass; the first writes.

    Args:
        directory: report.json is written there; a resumed run finds its "before" there too.
        num_loss_samples: of the training and of the meta set, for the two losses or rewards.
    """

    def __init__(self, directory: str, num_loss_samples: int = 64) -> None:
        self.directory = Path(directory)
        self.num_loss_samples = num_loss_samples

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DataReweightedJudge)
        before = self.directory / "before.json"
        if pl_module.num_windows == 0:
            measured = self._measure(pl_module)
            if trainer.is_global_zero:
                write_json(before, measured)
        elif not trainer.strategy.broadcast(before.is_file()):
            raise DajError(
                f"a resumed run needs the report of its beginning, and {str(before)!r} is not there. Restore it, or "
                f"take BeforeAfter out of trainer.callbacks."
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DataReweightedJudge)
        if pl_module.num_windows < pl_module.data.max_windows:
            return  # interrupted
        measured = self._measure(pl_module)
        if not trainer.is_global_zero:
            return
        write_json(self.directory / "after.json", measured)
        weights = pl_module.reweighter.named_weights()
        assert isinstance(pl_module.data, JudgeData)
        report = {
            "before": json.loads((self.directory / "before.json").read_text(encoding="utf-8")),
            "after": json.loads((self.directory / "after.json").read_text(encoding="utf-8")),
            "windows": pl_module.num_windows,
            "outer_steps": pl_module.num_outer_steps,
            "weights": shares(list(weights), list(weights.values())) if weights else {},
            "corrupt": pl_module.data.corrupt,
        }
        write_json(self.directory / "report.json", report)
        print_report(report, Console())

    def _measure(self, module: DataReweightedJudge) -> dict[str, Any]:
        data = module.data
        assert isinstance(data, JudgeData)
        judgments: list[Judgment] = []
        for batch in data.test_dataloader():
            judgments += module.answer(batch)
        return {
            **self._mean(module, data.train_set, "inner", module.reweighter),
            **self._mean(module, data.meta_set, "meta", Uniform()),
            **score_sets(judgments, data, "test"),
        }

    def _mean(
        self, module: DataReweightedJudge, dataset: PairDataset | PromptDataset, level: str, reweighter: Reweighter
    ) -> dict[str, float]:
        """Over a fixed random part of the set: the loss; or the reward where the judge answers while it trains."""
        number = min(self.num_loss_samples, len(dataset))
        ids = SampleStream(len(dataset), seed=0, name="measured").take(0, number)
        if isinstance(dataset, PairDataset):
            return {f"{level}_loss": self._mean_loss(module, dataset.batch(ids), reweighter)}
        assert module.rollouts is not None
        drawn = module.rollouts.measure(dataset.batch(ids), module.num_windows)
        assert drawn.rewards is not None
        return {f"{level}_reward": float(drawn.rewards.mean())}

    def _mean_loss(self, module: DataReweightedJudge, samples: JudgeBatch, reweighter: Reweighter) -> float:
        """Weighted: what the level minimises.

        A judge that has learned to disagree with swapped preferences loses on them, and their weight says so.
        """
        mean = MeanMetric(sync_on_compute=False)  # every process has all of the samples
        module.judge.eval()
        with torch.no_grad():
            for sample in module.objective.prepare(module.judge, samples.to(module.device)).micro_batches():
                loss = module.objective(module.judge, sample)
                mean.update(loss.cpu(), reweighter(sample, loss).cpu())
        return float(mean.compute())


class DrawWeights(Callback):
    """Draws the weights over training as PNG at the end (the paper's Figures 5 and 6).

    Args:
        path: of the PNG; the data comes from the run's `InfluenceRecorder`.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        for recorder in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(recorder, InfluenceRecorder) and any(recorder.path.glob("part-*.parquet")):
                draw_weights(recorder.path, self.path)


def score_sets(judgments: Sequence[Judgment], data: JudgeData, stage: str) -> dict[str, Any]:
    """{"selection", "best_of_n"} of the problems of "validate" or "test".

    Beside them "unseen", with the same two of the second test set, where `test` has asked about one.
    """

    def scores(name: str) -> dict[str, Any]:
        problems = data.difficulty[name]
        own = [judgment for judgment in judgments if judgment.comparison.problem_id in problems]
        return {
            "selection": selection_scores(own, data.graded),
            "best_of_n": best_of_n_scores(own, data.graded, data.preparation.voting, problems),
        }

    second = stage == "test" and data.difficulty["unseen"]
    return {**scores(stage), **({"unseen": scores("unseen")} if second else {})}


def print_scores(scores: dict[str, Any], console: Console, paper: bool) -> None:
    """Selection accuracy and Best-of-N with their confounds; the second test set in tables of its own."""
    console.print(selection_table({"judge": scores["selection"]}, "selection accuracy, 95 % interval over problems"))
    console.print(best_of_n_table(scores["best_of_n"], "Best-of-N", paper=paper))
    if "unseen" in scores:
        console.print(selection_table({"judge": scores["unseen"]["selection"]}, f"selection accuracy, {UNSEEN}"))
        console.print(best_of_n_table(scores["unseen"]["best_of_n"], f"Best-of-N, {UNSEEN}"))


def print_report(report: dict[str, Any], console: Console) -> None:
    """The result of a run on one screen."""
    before, after = report["before"], report["after"]
    table = Table("", "before", "after", title=f"{report['windows']} windows, {report['outer_steps']} outer steps")
    for key, label in _MEASURED.items():
        if key in after:
            table.add_row(label, f"{before[key]:.4f}", f"{after[key]:.4f}")
    _add_scores(table, "test problems", before, after)
    if "unseen" in after:
        _add_scores(table, UNSEEN, before["unseen"], after["unseen"])
    console.print(table)
    if report["weights"]:
        learned = Table("domain", "weight", "labels", title="learned weights (1 = plain training)")
        for name, weight in report["weights"].items():
            rate = report["corrupt"].get(name, 0)
            learned.add_row(name, f"{weight:.3f}", f"{rate:.0%} swapped" if rate else "clean")
        console.print(learned)


def _add_scores(table: Table, title: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    """One test set; what does not depend on the judge stands under "after" alone."""
    table.add_section()
    table.add_row(f"[bold]{title}[/bold]")
    rewards = ("reward",) if "inner_reward" in after else ()
    for name in ("judge", *rewards, "first position", "consistent", *_CONFOUNDS):
        label = "selection accuracy" if name == "judge" else f"  {name}"
        old = "" if name in _CONFOUNDS else _interval(before["selection"][name])
        table.add_row(label, old, _interval(after["selection"][name]))
    table.add_row("  random / oracle", "", "50.0% / 100.0%")
    for rule, by_level in after["best_of_n"].items():
        label = "Best-of-N pass@1" if rule == "judge" else f"  {rule}"
        old = _interval(before["best_of_n"][rule]["overall"]) if rule == "judge" else ""
        table.add_row(label, old, _interval(by_level["overall"]))


def _interval(score: dict[str, Any]) -> str:
    if score["value"] is None:
        return "-"
    # The percent sign once: label, before and after then fit 80 columns.
    return f"{score['value']:.1%} [{100 * score['low']:.1f}, {100 * score['high']:.1f}]"
