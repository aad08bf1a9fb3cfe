"""GRPO through the trainer: groups, whose rollouts they are, and what a failure leaves."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback
from peft import PeftModel

from conftest import Prepared
from daj_lightning.bilevel import BankEngine, FiniteDifferenceEngine, InstanceNet, JvpEngine, Uniform
from daj_lightning.judge import Judge, Reward
from daj_lightning.objectives import DPO, GRPO, KTO
from daj_lightning.records import DajError, JudgeBatch, Judgment
from daj_lightning.rollout import Policy, Rollout, RolloutError, Sampling, TransformersEngine, VllmServer
from daj_lightning.training import DataReweightedJudge, Level, Rollouts, WindowCheckpoint, last_checkpoint
from tiny import Vowels, toy_data, toy_module, toy_trainer


def grpo(prepared: Prepared, **overrides: Any) -> DataReweightedJudge:
    rollouts = {"group_size": 4, "max_new_tokens": 12, "reward": Vowels(), **overrides.pop("rollouts", {})}
    arguments = {"objective": GRPO(beta=0.05), "rollouts": Rollouts(**rollouts)}
    return toy_module(prepared.base, **{**arguments, **overrides})


def fit(
    prepared: Prepared, directory: Path, ckpt_path: str | None = None, data: dict[str, Any] | None = None, **module: Any
) -> DataReweightedJudge:
    trained = grpo(prepared, **module)
    callbacks = [WindowCheckpoint(str(directory / "checkpoints"), every_n_windows=2)]
    toy_trainer(directory, callbacks).fit(
        trained, toy_data(prepared.root, prepared.base, **(data or {})), ckpt_path=ckpt_path, weights_only=False
    )
    return trained


def state(module: DataReweightedJudge) -> torch.Tensor:
    trained = [*module.judge.trained_parameters(), *module.reweighter.parameters()]
    return torch.cat([p.detach().flatten() for p in trained])


@pytest.mark.parametrize("meta", ["reweighted", "fresh"])
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(prepared: Prepared, tmp_path: Path, meta: str) -> None:
    options = {"rollouts": {"meta": meta}, "data": {"max_windows": 5, "both_orders": True}}
    unbroken = fit(prepared, tmp_path / "unbroken", **options)
    halfway = tmp_path / "unbroken" / "checkpoints" / "window-000004.ckpt"
    resumed = fit(prepared, tmp_path / "resumed", str(halfway), **options)
    assert resumed.num_windows == unbroken.num_windows == 5
    assert torch.equal(state(resumed), state(unbroken))
    assert not torch.equal(unbroken.reweighter.raw, torch.zeros(2)), "the weights moved"


def test_the_log_says_what_was_drawn_and_how_well_engine_and_judge_agree(prepared: Prepared, tmp_path: Path) -> None:
    log = fit(prepared, tmp_path).rollouts.log
    assert 0 <= log["rollout/reward"] <= 1
    assert 0 <= log["rollout/flat_groups"] <= 1
    assert 1 <= log["rollout/response_tokens"] <= 12
    assert log["rollout/mismatch"] <= log["rollout/mismatch_max"] < 1e-4
    assert log["rollout/staleness"] == 0
    assert 0 <= log["meta/reward"] <= 1


class Stale(TransformersEngine):
    """Says that it took the new policy, and goes on with the first one it saw."""

    def sync(self, version: int) -> None:
        super().sync(version)
        if version == 0:
            self.first = [p.detach().clone() for p in self.model.parameters()]

    def generate(self, prompts: Any, sampling: Sampling) -> list[list[Rollout]]:
        now = [p.detach().clone() for p in self.model.parameters()]
        self._load(self.first)
        try:
            return super().generate(prompts, sampling)
        finally:
            self._load(now)

    @torch.no_grad()
    def _load(self, values: list[torch.Tensor]) -> None:
        for parameter, value in zip(self.model.parameters(), values, strict=True):
            parameter.copy_(value)


def test_rollouts_of_a_stale_policy_stop_the_run_at_the_next_window_and_the_state_is_saved(
    prepared: Prepared, tmp_path: Path
) -> None:
    fast = Level(lr=1e-2)
    with pytest.raises(RolloutError, match=r"policy identity: the rollouts stamped version 1 .* resume"):
        fit(prepared, tmp_path, rollouts={"engine": Stale()}, inner=fast)
    saved = last_checkpoint(tmp_path / "checkpoints")
    assert saved.name == "window-000001.ckpt"
    recovered = fit(prepared, tmp_path / "again", str(saved), inner=fast)
    assert torch.equal(state(recovered), state(fit(prepared, tmp_path / "unbroken", inner=fast))), "nothing was lost"


class Fails(TransformersEngine):
    """Breaks at one call of `generate`."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def generate(self, prompts: Any, sampling: Sampling) -> list[list[Rollout]]:
        self.left -= 1
        if self.left < 0:
            raise RolloutError("the engine is gone")
        return super().generate(prompts, sampling)


def test_a_failure_between_the_judges_step_and_the_weights_step_saves_the_moved_judge(
    prepared: Prepared, tmp_path: Path
) -> None:
    """Fresh meta rollouts of window 1 fail: its inner step stands, its outer step is left out, window 2 is next."""
    with pytest.raises(RolloutError, match="gone"):
        fit(prepared, tmp_path, rollouts={"meta": "fresh", "engine": Fails(at=2)})
    saved = last_checkpoint(tmp_path / "checkpoints")
    assert saved.name == "window-000002.ckpt"
    recovered = fit(prepared, tmp_path / "again", str(saved), rollouts={"meta": "fresh"})
    assert (recovered.num_windows, recovered.num_outer_steps) == (6, 4)


class Gives(Reward):
    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, judgment: Judgment) -> float:
        return self.value


@pytest.mark.parametrize("value", [math.nan, None, "1", math.inf])
def test_a_reward_that_is_no_finite_number_is_one_error_and_the_state_is_saved(
    prepared: Prepared, tmp_path: Path, value: Any
) -> None:
    with pytest.raises(RolloutError, match=r"Gives gave .* wanted a finite number"):
        fit(prepared, tmp_path, rollouts={"reward": Gives(value)})
    assert last_checkpoint(tmp_path / "checkpoints").name == "window-000000.ckpt"


class Silent(TransformersEngine):
    def generate(self, prompts: Any, sampling: Sampling) -> list[list[Rollout]]:
        return [[replace(r, token_ids=(), logps=()) for r in group] for group in super().generate(prompts, sampling)]


def test_an_empty_completion_is_one_error(prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(RolloutError, match="an empty completion for"):
        fit(prepared, tmp_path, rollouts={"engine": Silent()})


def test_prompts_longer_than_the_model_are_refused_at_the_door(prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(DajError, match=r"max_length=4096 .* reads 512 tokens"):
        fit(prepared, tmp_path, data={"max_length": 4096})


def test_prompts_that_leave_no_room_are_left_out_and_none_left_is_an_error(prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(DajError, match=r"none of \d+ prompts fits: the shortest has \d+ tokens"):
        fit(prepared, tmp_path, data={"max_length": 20})


@pytest.mark.parametrize(
    ("rollouts", "data", "message"),
    [
        ({"overlap": True}, {}, "TransformersEngine cannot generate while the judge trains"),
        ({"group_size": 5}, {"both_orders": True}, "group_size=5 has to be even"),
        ({"consistency_reward": 0.5}, {}, "needs data.both_orders"),
        ({"group_size": 1}, {}, "group_size >= 2"),
        ({"temperature": 0.0}, {}, "temperature > 0"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    prepared: Prepared, tmp_path: Path, rollouts: dict[str, Any], data: dict[str, Any], message: str
) -> None:
    with pytest.raises(DajError, match=message):
        fit(prepared, tmp_path, rollouts=rollouts, data=data)


def test_fresh_meta_rollouts_and_overlap_do_not_go_together() -> None:
    with pytest.raises(DajError, match="in the middle of a window"):
        Rollouts(engine=Snapshot(), overlap=True, meta="fresh")


def test_rollouts_without_an_objective_of_prompts_are_refused(prepared: Prepared) -> None:
    with pytest.raises(DajError, match="DPO learns from responses that are there already"):
        grpo(prepared, objective=DPO())


def test_an_instance_net_that_asks_for_rewards_needs_an_objective_that_has_them(
    prepared: Prepared, tmp_path: Path
) -> None:
    net = InstanceNet(features=["loss", "reward_mean", "reward_spread", "response_length"])
    assert fit(prepared, tmp_path / "grpo", reweighter=net).num_outer_steps == 5
    with pytest.raises(DajError, match="asks for rewards as features, and a sample of DPO has none"):
        toy_trainer(tmp_path).fit(
            toy_module(prepared.base, reweighter=net), toy_data(prepared.root, prepared.base, max_windows=2)
        )


def test_an_engine_is_closed_when_a_run_ends_and_when_it_breaks(prepared: Prepared, tmp_path: Path) -> None:
    class Closes(Fails):
        num_closed = 0

        def close(self) -> None:
            Closes.num_closed += 1

    fit(prepared, tmp_path / "ends", rollouts={"engine": Closes(at=1000)}, data={"max_windows": 2})
    assert Closes.num_closed == 1
    with pytest.raises(RolloutError):
        fit(prepared, tmp_path / "breaks", rollouts={"engine": Closes(at=0)}, data={"max_windows": 2})
    assert Closes.num_closed == 2


class Snapshot(TransformersEngine):
    """Rolls out a copy taken at `sync`, as a server does: it may generate while the judge trains."""

    overlaps = True

    def connect(self, policy: Policy) -> None:
        super().connect(policy)
        self.policy = policy

    def sync(self, version: int) -> None:
        super().sync(version)
        self.model = copy.deepcopy(self.policy.model)


class Ages(Callback):
    """Staleness of every window's rollouts, and whether its ratios were away from 1."""

    def __init__(self) -> None:
        self.stale: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.stale.append(pl_module.rollouts.log["rollout/staleness"])


def test_overlapping_rollouts_are_one_window_old_and_known_to_be(prepared: Prepared, tmp_path: Path) -> None:
    ages = Ages()
    module = grpo(prepared, rollouts={"engine": Snapshot(), "overlap": True}, inner=Level(lr=1e-2))
    seen: list[torch.Tensor | None] = []
    prepare_batch = module.objective.prepare

    def record(judge: Any, batch: JudgeBatch) -> JudgeBatch:
        seen.append(batch.old_logp)
        return prepare_batch(judge, batch)

    module.objective.prepare = record  # type: ignore[method-assign]
    toy_trainer(tmp_path, [ages]).fit(module, toy_data(prepared.root, prepared.base, max_windows=4))
    assert ages.stale == [0, 1, 1, 1]
    assert seen[0] is None, "the first window is on policy: ratios of 1"
    assert seen[1] is not None, "the second refers to the version that drew it"
    assert state(module).isfinite().all()


class FlatFor(Vowels):
    """The same reward for every response about some problems."""

    def __init__(self, problems: set[str]) -> None:
        self.problems = problems

    def __call__(self, judgment: Judgment) -> float:
        return 0.5 if judgment.comparison.problem_id in self.problems else super().__call__(judgment)


@pytest.fixture
def flat_for(prepared: Prepared) -> FlatFor:
    """Half of the training problems."""
    data = toy_data(prepared.root, prepared.base)
    data.setup("fit")
    data.load_samples("prompt")
    problems = sorted({group[0].problem_id for group in data.train_set.comparisons})
    return FlatFor(set(problems[::2]))


class Windows(Callback):
    def __init__(self) -> None:
        self.reports: list[Any] = []
        self.logs: list[dict[str, float]] = []
        self.problems: list[set[str]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.reports.append(pl_module.report)
        self.logs.append(pl_module.rollouts.log)
        trained_on = pl_module.data.train_set.batch(pl_module.report.sample_ids.tolist()).comparisons
        self.problems.append({group[0].problem_id for group in trained_on})


def windows_of(prepared: Prepared, directory: Path, **rollouts: Any) -> Windows:
    windows = Windows()
    toy_trainer(directory, [windows]).fit(
        grpo(prepared, rollouts=rollouts), toy_data(prepared.root, prepared.base, max_windows=4)
    )
    return windows


def test_flat_groups_are_counted_and_kept_with_their_pull_to_the_reference(
    prepared: Prepared, tmp_path: Path, flat_for: FlatFor
) -> None:
    kept = windows_of(prepared, tmp_path, reward=flat_for)
    assert sum(log["rollout/flat_groups"] for log in kept.logs) > 0
    assert all((report.losses != 0).all() for report in kept.reports[2:]), "beta > 0: away from the reference"


def test_skipped_groups_have_no_loss_at_all(prepared: Prepared, tmp_path: Path, flat_for: FlatFor) -> None:
    skipped = windows_of(prepared, tmp_path, reward=flat_for, flat_groups="skip")
    for log, report in zip(skipped.logs[2:], skipped.reports[2:], strict=True):
        assert int((report.losses == 0).sum()) == round(log["rollout/flat_groups"] * 4)
    assert sum(log["rollout/flat_groups"] for log in skipped.logs[2:]) > 0


def test_replaced_groups_are_of_other_prompts_and_have_a_spread(
    prepared: Prepared, tmp_path: Path, flat_for: FlatFor
) -> None:
    kept = windows_of(prepared, tmp_path / "kept", reward=flat_for)
    replaced = windows_of(prepared, tmp_path / "replaced", reward=flat_for, flat_groups="replace", max_replacements=8)
    assert all(kept_problems & flat_for.problems for kept_problems in kept.problems)
    assert not any(problems & flat_for.problems for problems in replaced.problems)
    first = [windows.reports[0].sample_ids.tolist() for windows in (kept, replaced)]
    num_flat = round(kept.logs[0]["rollout/flat_groups"] * 4)
    assert sum(a != b for a, b in zip(*first, strict=True)) == num_flat > 0
    assert replaced.logs[0]["rollout/replaced"] >= num_flat


def test_a_kto_window_of_one_is_refused_at_the_door(prepared: Prepared, tmp_path: Path) -> None:
    module = toy_module(prepared.base, objective=KTO())
    with pytest.raises(DajError, match=r"KTO compares the samples of a window .*num_inner=1 .*>= 2"):
        toy_trainer(tmp_path).fit(module, toy_data(prepared.root, prepared.base, num_inner=1))


class OfTheBase(TransformersEngine):
    """Takes every new version, and rolls out the base: the adapter is never applied."""

    def generate(self, prompts: Any, sampling: Sampling) -> list[list[Rollout]]:
        assert isinstance(self.model, PeftModel)
        with self.model.disable_adapter():
            return super().generate(prompts, sampling)


def test_rollouts_of_the_base_are_noticed_where_the_judge_is_within_the_tolerance_of_it(
    prepared: Prepared, tmp_path: Path
) -> None:
    """A tenth of a nat would pass a bfloat16 base; but the reference is nearer than noise explains."""
    with pytest.raises(RolloutError, match="off the reference's, as if no adapter were in use"):
        fit(prepared, tmp_path, rollouts={"engine": OfTheBase(), "tolerance": 0.1}, inner=Level(lr=1e-3))


def test_under_overlap_the_window_that_is_drawn_on_the_spot_is_checked_too(prepared: Prepared, tmp_path: Path) -> None:
    """A run of one window never draws ahead."""

    class Wrong(Snapshot):
        def generate(self, prompts: Any, sampling: Sampling) -> list[list[Rollout]]:
            groups = super().generate(prompts, sampling)
            return [[replace(r, logps=tuple(p - 3 for p in r.logps)) for r in group] for group in groups]

    with pytest.raises(RolloutError, match="policy identity"):
        fit(
            prepared,
            tmp_path,
            rollouts={"engine": Wrong(), "overlap": True},
            data={"max_windows": 1},
            reweighter=Uniform(),
        )


def test_an_engine_that_fails_to_close_does_not_hide_what_broke_nor_lose_the_state(
    prepared: Prepared, tmp_path: Path
) -> None:
    class Sticks(Fails):
        def close(self) -> None:
            raise RolloutError("cannot close either")

    with pytest.warns(UserWarning, match="did not close"), pytest.raises(RolloutError, match="the engine is gone"):
        fit(prepared, tmp_path, rollouts={"engine": Sticks(at=3)})
    assert last_checkpoint(tmp_path / "checkpoints").name == "window-000003.ckpt"


ENGINES = [BankEngine(), JvpEngine(), FiniteDifferenceEngine()]


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: type(engine).__name__)
def test_every_engine_credits_nothing_to_a_skipped_group(
    prepared: Prepared, tmp_path: Path, flat_for: FlatFor, engine: Any
) -> None:
    windows = Windows()
    judge = Judge(str(prepared.base), "float32", lora_r=4, lora_alpha=8, attention="eager")
    module = grpo(prepared, judge=judge, engine=engine, rollouts={"reward": flat_for, "flat_groups": "skip"})
    toy_trainer(tmp_path, [windows]).fit(module, toy_data(prepared.root, prepared.base, max_windows=4))
    skipped = [report.hypergradient[report.losses == 0] for report in windows.reports[2:]]
    assert sum(map(len, skipped)) > 0
    assert all((derivative == 0).all() for derivative in skipped)


def test_dropout_is_refused_since_ratios_would_be_noise(prepared: Prepared, tmp_path: Path) -> None:
    judge = Judge(str(prepared.base), "float32", lora_r=4, lora_alpha=8, lora_dropout=0.1)
    with pytest.raises(DajError, match=r"GRPO compares the judge with itself .* dropout"):
        fit(prepared, tmp_path, judge=judge)


def test_a_judge_that_trains_everything_learns_by_grpo_and_needs_an_engine_without_adapters(
    prepared: Prepared, tmp_path: Path
) -> None:
    judge = Judge(str(prepared.base), "float32", trains="everything")
    trained = fit(prepared, tmp_path / "here", judge=judge, inner=Level(lr=1e-3), data={"max_windows": 3})
    assert trained.num_windows == 3
    with pytest.raises(DajError, match="VllmServer is told of a new policy by its adapters"):
        fit(prepared, tmp_path / "there", judge=judge, rollouts={"engine": VllmServer()})
