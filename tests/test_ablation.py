"""tools/ablation.py: scenarios tell the truth, rules weigh as they say, and every way to train runs."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import ablation
import ablation_conditions
import ablation_data
import ablation_methods
import ablation_report
from ablation_data import DOMAINS, Scenario, swapped
from ablation_methods import FixedWeights, GroupDRO, Method, ScenarioData, SmallLoss
from daj_lightning.bilevel import InstanceTable, TrainingSet
from daj_lightning.data import PairDataset
from daj_lightning.data.datamodule import LCB_DOMAINS
from daj_lightning.data.jsonl import write_jsonl
from daj_lightning.objectives import KTO
from daj_lightning.records import Pair, Provenance, ReferenceUse
from daj_lightning.training import ColdStart
from study_learning import swapped_domains
from tiny import make_batch


def pair(number: int, domain: str = "atcoder-easy") -> Pair:
    prompt = f"1: print({number})\n2: print({number + 1})"
    right = 1 + number % 2
    return Pair(
        f"family-{number}-a", domain, (f"{number}/0", f"{number}/1"), prompt,
        f"So. <selection>{right}</selection>", f"So. <selection>{3 - right}</selection>",
    )  # fmt: skip


def test_three_domains_are_swapped_and_twenty_seeds_take_every_choice_once() -> None:
    choices = [tuple(swapped_domains(seed, LCB_DOMAINS)) for seed in range(20)]
    assert len(set(choices)) == 20
    assert all(len(choice) == 3 for choice in choices)


class Known(ablation_data.Pools):
    """Pools of pairs that nobody has to execute."""

    def __init__(self) -> None:
        pairs = [pair(i, DOMAINS[i % 4]) for i in range(800)]
        self.train = self.weak = pairs  # type: ignore[misc]
        self.thinned = [(p, i % 5 > 0) for i, p in enumerate(pairs)]  # type: ignore[misc]
        self.meta = list(zip(pairs[:100:2], pairs[1:100:2], strict=True))  # type: ignore[misc]
        self.test = [*pairs[100:110], pair(999, "atcoder-hard")]  # type: ignore[misc]


@pytest.mark.parametrize("name", ablation_data.SCENARIOS)
def test_what_a_scenario_calls_clean_prefers_the_right_program(name: str) -> None:
    scenario = ablation_data.make(Known(), name, seed=3)
    assert len(scenario.train) == ablation_data.NUM_TRAIN
    for chosen, true in zip(scenario.train, scenario.is_clean, strict=True):
        number = int(chosen.problem_id.split("-")[1])
        if name == "thinned tests":
            assert true is (number % 5 > 0)
        else:
            assert chosen == (pair(number, chosen.domain) if true else swapped(pair(number, chosen.domain)))
    if name != "thinned tests":
        share = 1 - sum(scenario.is_clean) / len(scenario.is_clean)
        assert share == pytest.approx({"flipped domains": 0.5, "flipped instances": 0.3}.get(name, 0), abs=0.01)


def test_easy_heavy_data_hold_four_easy_pairs_of_five() -> None:
    scenario = ablation_data.make(Known(), "easy-heavy", seed=0)
    easy = sum(p.domain.endswith("easy") for p in scenario.train)
    assert easy / len(scenario.train) == pytest.approx(0.8, abs=0.02)


def test_meta_and_test_are_of_the_domains_that_are_trained_on_and_meta_has_both_orders() -> None:
    scenario = ablation_data.make(Known(), "clean", seed=0, num_meta=10)
    numbers = [int(p.problem_id.split("-")[1]) for p in scenario.meta]
    assert len(numbers) == 10
    assert all(b == a + 1 and a % 2 == 0 for a, b in zip(numbers[::2], numbers[1::2], strict=True))
    assert len(ablation_data.make(Known(), "clean", seed=0, num_meta=1000).meta) == 100, "all there are"
    assert len(scenario.test) == 10


def test_a_misaligned_meta_set_has_two_questions_of_five_turned() -> None:
    straight = ablation_data.make(Known(), "clean", seed=0).meta
    turned = ablation_data.make(Known(), "clean", seed=0, misaligned=True).meta
    differs = [a != b for a, b in zip(straight, turned, strict=True)]
    assert sum(differs) == 2 * round(0.4 * len(straight) / 2)
    assert differs[::2] == differs[1::2], "both orders of a question"
    assert all(b == (swapped(a) if changed else a) for a, b, changed in zip(straight, turned, differs, strict=True))


def test_a_question_of_a_pair_says_who_is_right_by_its_label() -> None:
    assert ablation_methods.comparison_of(pair(0)).passed == (True, False)
    assert ablation_methods.comparison_of(swapped(pair(0))).passed == (False, True)


def test_fixed_weights_are_one_on_average() -> None:
    rule = FixedWeights([1.0, 3.0])
    batch = make_batch(2)
    assert rule(batch, torch.zeros(2)).tolist() == [0.5, 1.5]


def test_small_loss_leaves_out_the_share_that_it_was_told() -> None:
    rule = SmallLoss(keep=0.7, memory=10)
    losses = torch.arange(10.0)
    assert rule(make_batch(10), losses).tolist() == [1.0] * 10  # nothing seen yet
    rule.observe(make_batch(10), losses)
    weights = rule(make_batch(10), losses)
    assert (weights == 0).tolist() == [False] * 7 + [True] * 3
    assert float(weights.mean()) == pytest.approx(1.0)


def test_group_dro_weighs_the_domain_that_fares_worst_most() -> None:
    rule = GroupDRO(step=1.0)
    rule.build(TrainingSet(("a", "b", "c"), 9))
    batch = make_batch(3)  # domains 0, 1, 2
    rule.observe(batch, torch.tensor([0.1, 2.0, 0.5]))
    weights: Tensor = rule(batch, torch.zeros(3))
    assert weights.argmax() == 1
    assert float(weights.sum()) == pytest.approx(3.0)


def test_permuted_weights_stay_in_their_domain() -> None:
    rng = random.Random(0)
    domains = [rng.choice("ab") for _ in range(40)]
    weights = [float(i) for i in range(40)]
    after = ablation_conditions.permuted(weights, domains, seed=0)
    assert after != weights
    for name in "ab":
        own = [i for i, domain in enumerate(domains) if domain == name]
        assert sorted(after[i] for i in own) == [weights[i] for i in own]


def run(condition: str, seed: int, right: int) -> ablation_report.Run:
    return ablation_report.Run(condition, seed, {"f": [right, 10], "g": [right, 10]}, None, [], {}, 60, 1.0)


def test_seeds_without_all_methods_are_left_out_and_objectives_have_their_own_none() -> None:
    conditions = ("none", 0), ("table", 0), ("none", 1), ("KTO none", 0)
    runs = [run(f"clean / {method}", seed, 8) for method, seed in conditions]
    assert [(r.condition, r.seed) for r in ablation_report.complete(runs, "clean")] == [
        ("clean / none", 0), ("clean / table", 0), ("clean / KTO none", 0)
    ]  # fmt: skip
    assert ablation_report.complete(runs, "easy-heavy") == runs
    assert [ablation_report.plain(name) for name in ("KTO table", "GRPO none", "table", "train, then meta")] == [
        "KTO none", "GRPO none", "none", "none"
    ]  # fmt: skip


def test_the_difference_is_of_the_same_seeds_and_families() -> None:
    runs = [run("a", 0, 8), run("a", 1, 6), run("b", 0, 7), run("b", 1, 5), run("b", 2, 0)]
    assert ablation_report.difference(runs, "a", "b", draws=200) == pytest.approx((10.0, 10.0, 10.0))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny judge in the format."""
    directory = tmp_path_factory.mktemp("ablation")
    came_from = Provenance("p", None, ReferenceUse.NONE, "s", "", 2, 0, 1, 1.0, 0.5, "wrong selection")
    write_jsonl(directory / "train.jsonl", [replace(pair(i), provenance=came_from) for i in range(24)])
    architecture = {
        "model_type": "qwen3", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "tie_word_embeddings": True,
    }  # fmt: skip
    ColdStart(architecture, vocab_size=300, steps=2).run(directory / "train.jsonl", directory / "base")
    return directory / "base"


@pytest.fixture
def short(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of eight windows from the tiny judge."""
    monkeypatch.setattr(ablation_methods, "NUM_WINDOWS", 8)
    monkeypatch.setattr(ablation_methods, "BASE", base)


@pytest.fixture
def scenario() -> Scenario:
    pairs = [pair(i, DOMAINS[i % 4]) for i in range(36)]
    is_clean = [i % 3 > 0 for i in range(24)]
    train = [p if true else swapped(p) for p, true in zip(pairs[:24], is_clean, strict=True)]
    return Scenario(train, is_clean, pairs[24:32], pairs[32:])


def test_a_mixture_is_what_its_windows_hold(base: Path, scenario: Scenario) -> None:
    def kinds(mixture: ablation_methods.Mixture, share: float | None = None) -> list[set[bool]]:
        data = ScenarioData(scenario, base, mixture, 8, 4, seed=0, meta_share=share)
        data.setup("fit")
        data.load_samples("pair")
        return [{i >= 24 for i in data.window(w).inner.sample_ids.tolist()} for w in range(4)]

    assert kinds("train") == [{False}] * 4
    assert kinds("meta") == [{True}] * 4
    assert kinds("train then meta") == [{False}, {False}, {True}, {True}]
    assert kinds("union", 0.0) == [{False}] * 4
    assert kinds("union", 1.0) == [{True}] * 4
    assert set().union(*kinds("union")) == {False, True}


def test_meta_pairs_set_aside_are_the_last_and_whole_questions(base: Path, scenario: Scenario) -> None:
    data = ScenarioData(scenario, base, "train", 8, 4, seed=0, holds_out=True)
    data.setup("fit")
    data.load_samples("pair")
    assert isinstance(data.held_out, PairDataset)
    assert (len(data.meta_set), len(data.held_out)) == (6, 2)


@pytest.mark.usefixtures("short")
def test_every_method_trains_and_an_interrupted_study_goes_on(
    scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ablation, "make", lambda pools, name, seed: scenario)
    output = tmp_path / "runs.jsonl"
    ablation.Study(output).run("flipped domains", 0, ablation_conditions.EVERY[:-2])
    ablation.Study(output).run("flipped domains", 0, ablation_conditions.EVERY)
    runs = ablation_report.read_runs(output)
    assert [run.condition for run in runs] == [f"flipped domains / {name}" for name in ablation_conditions.EVERY]
    assert all(len(run.loss_aucs) == ablation_methods.NUM_LOOKS for run in runs)
    stopped = {run.condition.split(" / ")[1]: run.window for run in runs}
    assert stopped.pop("table, stopped early") == 5, "the only look of eight windows"
    assert set(stopped.values()) == {8}
    capsys.readouterr()
    ablation_report.report(runs)
    shown = capsys.readouterr().out
    assert "| table, permuted | 1 |" in shown
    assert "minus those at look" in shown
    ablation_report.write_csv(runs, tmp_path / "runs.csv")
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 1 + len(runs)


@pytest.mark.usefixtures("short")
def test_a_run_that_stops_early_leaves_its_best_state(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation_methods, "MEASURED_EVERY", 7)
    method = Method(InstanceTable, ablation_methods.OUTER["table"], stops_early=True)
    of_eight = ablation_methods.train(scenario, method, 0)
    monkeypatch.setattr(ablation_methods, "NUM_WINDOWS", 7)
    of_seven = ablation_methods.train(scenario, method, 0)
    assert (of_eight.window, of_seven.window) == (7, 7)
    assert of_eight.weights == of_seven.weights
    assert len(set(of_seven.weights)) > 1


@pytest.mark.usefixtures("short")
def test_under_kto_both_responses_of_a_pair_share_its_truth(scenario: Scenario) -> None:
    outcome = ablation_methods.train(scenario, Method(InstanceTable), 0, KTO(beta=1.0))
    assert len(outcome.weights) == 48
    turned = replace(outcome, weights=[float(true) for true in scenario.is_clean for _ in range(2)])
    assert ablation_report.run_of("c", 0, scenario, turned).weight_auc == 1.0


@pytest.mark.usefixtures("short")
def test_table_4_has_every_objective(scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "make", lambda pools, name, seed: scenario)
    monkeypatch.setattr(ablation_methods, "NUM_WINDOWS", 6)
    monkeypatch.setattr(ablation, "GROUP_SIZE", 2)
    monkeypatch.setattr(ablation, "RESPONSE_TOKENS", 4)
    ablation.Study(tmp_path / "runs.jsonl").objectives("flipped domains", 0)
    runs = ablation_report.read_runs(tmp_path / "runs.jsonl")
    weights = ("none", "domain", "table", "net")
    wanted = [f"{objective} {method}" for objective in ablation_conditions.OBJECTIVES for method in weights]
    assert [run.condition.split(" / ")[1] for run in runs] == wanted
