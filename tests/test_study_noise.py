"""tools/study_noise.py: scenarios tell the truth, the report counts rightly, and every method runs."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import noise_base
import study_noise
from ablation_data import Scenario, swapped
from daj_lightning.records import Pair
from noise_base import Item
from study_noise import Drawn, Run

PAIRS = [
    Pair(f"family{i % 3}-{i}-a", "atcoder-easy", (f"{i}/0", f"{i}/1"), f"t\n1: print({i})\n2: print({i + 1})\n",
         f"So. <selection>{1 + i % 2}</selection>", f"So. <selection>{2 - i % 2}</selection>")
    for i in range(120)
]  # fmt: skip


class Known(study_noise.Pools):
    """Pools of pairs that nobody has to execute."""

    def __init__(self) -> None:
        self.train = PAIRS  # type: ignore[misc]
        self.thinned = [(pair, i % 5 > 0) for i, pair in enumerate(PAIRS)]  # type: ignore[misc]
        self.meta = [(PAIRS[2 * i], PAIRS[2 * i + 1]) for i in range(60)]  # type: ignore[misc]
        self.test = PAIRS[:8]  # type: ignore[misc]


@pytest.mark.parametrize("name", study_noise.SCENARIOS)
def test_what_a_scenario_calls_clean_prefers_the_right_program(name: str) -> None:
    scenario = study_noise.make(Known(), name, seed=3)
    for pair, true in zip(scenario.train, scenario.is_clean, strict=True):
        number = int(pair.problem_id.split("-")[1])
        assert pair == (PAIRS[number] if true or name == "thinned" else swapped(PAIRS[number]))
        assert name != "thinned" or true is (number % 5 > 0)
    assert {"flipped": 12, "clean": 0}.get(name, scenario.is_clean.count(False)) == scenario.is_clean.count(False)


def test_a_meta_set_holds_both_orders_of_its_questions() -> None:
    meta = study_noise.make(Known(), "clean", seed=0).meta
    numbers = [int(pair.problem_id.split("-")[1]) for pair in meta]
    assert len(meta) == 96
    assert all(b == a + 1 and a % 2 == 0 for a, b in zip(numbers[::2], numbers[1::2], strict=True))


def run_of(weights: list[float], seed: int = 0, losses: list[float] | None = None) -> Run:
    families = ["f", "f", "g", "g", "h", "h"]
    is_clean = [True, False, True, False, True, True]
    looks = [losses or [0.0] * 6] * (study_noise.NUM_LOOKS + 1)
    test = {"f": [3, 4], "g": [1, 4], "h": [4, 4]}
    return Run("flipped", "table", seed, is_clean, families, [0, 1, 2, 3, 4], looks, [weights], test, 1.0)


def test_the_drawn_area_is_that_of_the_samples_of_the_drawn_families() -> None:
    run = run_of([3.0, 2.0, 1.0, 1.5, 4.0, 0.5])
    drawn = Drawn(1, ["f", "g", "h"], draws=50)
    found = drawn.of_auc([run], "weights")
    for copies, value in zip(drawn.copies, found, strict=True):
        rows = [i for i, name in enumerate(run.families) for _ in range(copies["fgh".index(name)])]
        truths = [run.is_clean[i] for i in rows]
        if all(truths):
            assert np.isnan(value)
        else:
            assert value == pytest.approx(study_noise.auc([run.weights[-1][i] for i in rows], truths))
    assert study_noise.auc(run.weights[-1], run.is_clean) == run.auc("weights")


def test_a_score_of_losses_is_high_where_the_loss_is_low() -> None:
    perfect = run_of([0.0] * 6, losses=[0.0, 2.0, 0.0, 2.0, 0.0, 0.0])
    assert perfect.auc("losses 0") == 1.0
    assert perfect.auc("weights") == 0.5


def test_the_drawn_accuracy_is_that_of_the_drawn_families() -> None:
    drawn = Drawn(2, ["f", "g", "h"], draws=20)
    right, asked = np.array([3, 1, 4]), np.array([4, 4, 4])
    wanted = (drawn.copies @ right) / (drawn.copies @ asked)
    assert drawn.of_accuracy([run_of([0.0] * 6), run_of([0.0] * 6, 1)]) == pytest.approx(wanted)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By the study's own code, a few steps of it."""
    patch = pytest.MonkeyPatch()
    asked = [Item("t", f"print({i})\nprint(0)", f"print({i})") for i in range(60)]
    patch.setattr(noise_base, "items", lambda seed: asked)
    patch.setattr(noise_base, "NUM_HELD", 8)
    patch.setattr(noise_base, "CONCEPT_STEPS", 3)
    patch.setattr(noise_base, "PROBE_STEPS", 3)
    directory = tmp_path_factory.mktemp("noise") / "base"
    noise_base.make_base(0, directory)
    patch.undo()
    return directory


def test_the_lean_is_taken_out_of_both_positions() -> None:
    asked = [Item("t", f"print({i})\nprint(0)", f"print({i})") for i in range(480)]
    made = noise_base.new_base(0, [item.prompt(True) for item in asked])

    def lean() -> list[float]:
        with torch.no_grad():
            rows = made.rows(asked, random.Random(5), 1.0)
            lean_N = made.lean(rows.hidden_NH)
        return [abs(float(lean_N[rows.second == side].mean())) for side in (0.0, 1.0)]

    before = max(lean())
    noise_base.take_out_the_lean(made, asked, random.Random(0))
    assert max(lean()) < 0.1 * before


def test_every_method_runs_and_an_interrupted_study_goes_on(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train = [pair if i % 3 else swapped(pair) for i, pair in enumerate(PAIRS[:24])]
    scenario = Scenario(train, [i % 3 > 0 for i in range(24)], PAIRS[24:32], PAIRS[32:36])
    straight = replace(scenario, train=PAIRS[:24], is_clean=[True] * 24)
    monkeypatch.setattr(study_noise, "make", lambda pools, name, seed: straight if name == "clean" else scenario)
    monkeypatch.setattr(study_noise, "BASE", base)
    monkeypatch.setattr(study_noise, "WINDOWS", 8)
    output = tmp_path / "runs.jsonl"
    scenarios, methods = list(study_noise.SCENARIOS), list(study_noise.METHODS)
    study_noise.run(range(1), output, scenarios, methods[:1])
    study_noise.run(range(1), output, scenarios, methods)
    study_noise.run(range(1), output, ["flipped"], list(study_noise.BASELINES))
    runs = study_noise.read_runs(output)
    wanted = [(name, method) for name in scenarios for method in methods]
    wanted += [("flipped", method) for method in study_noise.BASELINES]
    assert sorted((run.scenario, run.method) for run in runs) == sorted(wanted)
    table = next(run for run in runs if (run.scenario, run.method) == ("flipped", "table"))
    assert table.windows == [0, 2, 4, 6, 8]
    assert len(table.losses) == len(table.weights) == 5
    assert table.weights[0] == [1.0] * 24
    assert table.weights[-1] != [1.0] * 24
    capsys.readouterr()
    study_noise.report(runs)
    shown = capsys.readouterr().out
    assert "1 complete seeds: 0 to 0" in shown
    assert "| table | weights |" in shown
    assert "| meta alone |" in shown
    study_noise.write_csv(runs, tmp_path / "runs.csv")
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 1 + len(runs)
