"""Every shipped configuration parses against the real classes, and the paper's runs on a tiny judge."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from conftest import Prepared
from daj_lightning.cli import Cli, load
from daj_lightning.rollout import VllmServer
from daj_lightning.training import ShardedBase

CONFIGS = Path(__file__).parents[1] / "configs"
BASES = sorted(CONFIGS.glob("*.yaml"))
ABLATIONS = sorted(CONFIGS.glob("ablation/*.yaml"))
QWEN = Path(__file__).with_name("qwen2.5-coder-14b")


@pytest.mark.parametrize("path", BASES, ids=lambda path: path.name)
def test_every_configuration_builds(path: Path) -> None:
    load([str(path)])


def test_the_studys_overlay_builds_on_the_quickstart() -> None:
    assert load([str(CONFIGS / "quickstart.yaml"), str(CONFIGS / "study" / "short.yaml")]).datamodule.num_inner == 8


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.name)
def test_every_ablation_builds_on_the_papers_configuration(path: Path) -> None:
    named = yaml.safe_load(path.read_text())["model"]["reweighter"]["class_path"]
    cli = load([str(CONFIGS / "lcb.yaml"), str(path)])
    assert f"{type(cli.model.reweighter).__module__}.{type(cli.model.reweighter).__name__}".endswith(
        named.split(".")[-1]
    )


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("objective/*.yaml")), ids=lambda path: path.name)
def test_every_objective_builds_on_the_papers_configuration(path: Path) -> None:
    named = yaml.safe_load(path.read_text())["model"]["objective"]["class_path"]
    objective = load([str(CONFIGS / "lcb.yaml"), str(path)]).model.objective
    assert type(objective).__name__ == named.split(".")[-1]
    assert getattr(objective, "beta", 0.1) == 0.1


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("rollout/*.yaml")), ids=lambda path: path.name)
def test_every_rollout_engine_builds_on_grpo_and_leaves_the_rest(path: Path) -> None:
    named = yaml.safe_load(path.read_text())["model"]["rollouts"]["init_args"]["engine"]["class_path"]
    rollouts = load([str(CONFIGS / "grpo.yaml"), str(path)]).model.rollouts
    assert type(rollouts.engine).__name__ == named.split(".")[-1]
    assert (rollouts.group_size, rollouts.flat_groups) == (16, "skip")


@pytest.mark.parametrize(
    ("name", "strategy", "processes"),
    [("single", SingleDeviceStrategy, 1), ("ddp", DDPStrategy, 2), ("fsdp2", ShardedBase, 2)],
)
def test_every_strategy_builds_on_the_papers_configuration(
    tmp_path: Path, name: str, strategy: type, processes: int
) -> None:
    (tmp_path / "cpu.yaml").write_text("trainer: {accelerator: cpu}\n")
    paths = [CONFIGS / "lcb.yaml", CONFIGS / "strategy" / f"{name}.yaml", tmp_path / "cpu.yaml"]
    trainer = load([str(path) for path in paths]).trainer
    assert (type(trainer.strategy), trainer.world_size) == (strategy, processes)


def test_grpo_is_the_papers_setting() -> None:
    """App. B, number by number; one GPU for rollouts and one for training is configuration alone."""
    cli = load([str(CONFIGS / "grpo.yaml")])
    model, data = cli.model, cli.datamodule
    assert (model.inner.lr, model.outer.lr) == (1e-6, 1e-4)
    assert (data.num_inner, data.num_meta, data.max_windows) == (16, 8, 20_000)
    assert (model.judge.lora.r, model.judge.lora.lora_alpha, model.judge.base_dtype) == (32, 64, "bfloat16")
    assert (model.judge.base, model.rollouts.group_size) == ("Qwen/Qwen3-1.7B", 16)
    assert isinstance(model.rollouts.engine, VllmServer)
    assert model.rollouts.engine.environment == {"CUDA_VISIBLE_DEVICES": "1"}
    assert yaml.safe_load((CONFIGS / "grpo.yaml").read_text())["trainer"]["devices"] == 1


def test_lcb_is_the_papers_setting() -> None:
    """App. B, number by number."""
    cli = load([str(CONFIGS / "lcb.yaml")])
    model, data = cli.model, cli.datamodule
    assert (model.inner.lr, model.outer.lr) == (1e-6, 1e-4)
    assert (model.inner.optimizer, model.inner.optimizer_args) == ("adam", None)
    assert (data.num_inner, data.num_meta, data.max_windows) == (16, 8, 20_000)
    assert (model.judge.lora.r, model.judge.lora.lora_alpha, model.judge.lora.lora_dropout) == (32, 64, 0.0)
    assert model.objective.beta == 0.1
    assert data.preparation.voting.rounds == 8
    assert model.judge.base_dtype == "bfloat16"


def test_the_14b_judge_builds_on_the_meta_device_with_the_papers_adapters() -> None:
    judge = load([str(CONFIGS / "lcb.yaml")]).model.judge
    with torch.device("meta"):
        judge.build_empty(str(QWEN))
    adapters = judge.trained_parameters()
    assert sum(p.numel() for p in adapters) == 137_625_600
    assert {p.dtype for p in adapters} == {torch.float32}
    assert judge.causal_lm.get_output_embeddings().weight.dtype is torch.bfloat16


def overlay(path: Path, prepared: Prepared, directory: Path) -> Path:
    """A tiny judge and the toy data in place of 14 billion parameters and LiveCodeBench."""
    path.write_text(
        yaml.safe_dump(
            {
                "trainer": {
                    "accelerator": "cpu",
                    "default_root_dir": str(directory),
                    "logger": False,
                    "callbacks": [],
                    "limit_val_batches": 0,
                },
                "model": {
                    "judge": {"class_path": "daj_lightning.judge.Judge", "init_args": {"base": str(prepared.base)}}
                },
                "data": {
                    "source": {"class_path": "tiny.ToySource"},
                    "responses": {"class_path": "daj_lightning.data.TemplatedResponses"},
                    "root": str(prepared.root),
                    "template": "compact",
                    "domains": ["atcoder-easy", "atcoder-hard"],
                    "max_windows": 7,
                    "num_workers": 2,
                },
            }
        )
    )
    return path


def test_lcb_takes_two_bilevel_steps_on_a_tiny_judge(prepared: Prepared, tmp_path: Path) -> None:
    """Windows 6 and 7 lie behind the warm-up: bfloat16 base and bank, float32 adapters, both optimizers."""
    tiny = overlay(tmp_path / "tiny.yaml", prepared, tmp_path)
    cli = Cli(["fit", "--config", str(CONFIGS / "lcb.yaml"), "--config", str(tiny)])
    assert (cli.model.num_windows, cli.model.num_outer_steps) == (7, 2)
    assert cli.model.store.rows.dtype is torch.bfloat16
    assert cli.model.reweighter.raw.detach().abs().max() > 0


def test_grpo_takes_bilevel_steps_on_a_tiny_judge(prepared: Prepared, tmp_path: Path) -> None:
    """The paper's file with rollouts by transformers: a bfloat16 base, chunked forwards, skipped groups."""
    tiny = overlay(tmp_path / "tiny.yaml", prepared, tmp_path)
    named = yaml.safe_load(tiny.read_text())
    short = {"max_new_tokens": 8}
    named["model"] |= {"rollouts": {"class_path": "daj_lightning.training.Rollouts", "init_args": short}}
    named["data"] |= {"max_length": 256, "num_inner": 2, "num_meta": 2}
    tiny.write_text(yaml.safe_dump(named))
    overlays = [CONFIGS / "grpo.yaml", CONFIGS / "rollout" / "transformers.yaml", tiny]
    cli = Cli(["fit", *(part for path in overlays for part in ("--config", str(path)))])
    assert (cli.model.num_windows, cli.model.num_outer_steps) == (7, 2)
    assert cli.model.rollouts.log["rollout/mismatch"] < 0.1
