"""The command line: a mistake is one line that says what to do, before any training starts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM

from conftest import Prepared
from daj_lightning.__main__ import COMMANDS, as_options, main
from daj_lightning.kernels.dispatch import OPS
from tiny import TOY_DOMAINS, ToySource, toy_config

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture
def toy(prepared: Prepared, tmp_path: Path) -> dict[str, Any]:
    """A configuration of six windows that runs in seconds; each test spoils one thing in it."""
    return toy_config(prepared.root, prepared.base, tmp_path)


def save(config: dict[str, Any], tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """The one line of an error."""
    capsys.readouterr()
    assert main(list(args)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_a_misspelt_key_is_answered_with_its_neighbour(toy: dict, tmp_path: Path, capsys: Any) -> None:
    toy["data"]["max_window"] = toy["data"].pop("max_windows")
    assert "Did you mean 'max_windows'?" in refused(capsys, "fit", "--config", save(toy, tmp_path))


def test_a_misspelt_argument_of_a_class_is_answered_too(toy: dict, tmp_path: Path, capsys: Any) -> None:
    toy["model"]["judge"]["init_args"]["lorar"] = 8
    assert "Did you mean 'lora_r'?" in refused(capsys, "fit", "--config", save(toy, tmp_path))


def test_a_missing_configuration_file_is_named(capsys: Any) -> None:
    assert "nowhere.yaml" in refused(capsys, "fit", "--config", "nowhere.yaml")


def test_an_unknown_command_is_answered_with_all_of_them(capsys: Any) -> None:
    assert "prepare" in refused(capsys, "fti")


def test_a_command_needs_no_argument(capsys: Any) -> None:
    assert main(["kernels"]) == 0
    assert "grad_bank_dot" in capsys.readouterr().out


def test_lcb_before_prepare_says_to_prepare(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "Run `python -m daj_lightning prepare`" in refused(capsys, "fit", "--config", str(CONFIGS / "lcb.yaml"))


def test_preparing_lcb_without_its_files_names_the_missing_one(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no file 'data/livecodebench/test*.jsonl'" in refused(
        capsys, "prepare", "--config", str(CONFIGS / "lcb.yaml")
    )


def test_a_domain_absent_from_the_map_is_named(toy: dict, tmp_path: Path, capsys: Any) -> None:
    toy["data"]["domains"] = ["atcoder-easy"]
    assert "['atcoder-hard']" in refused(capsys, "fit", "--config", save(toy, tmp_path))


def test_an_empty_meta_set_is_an_error(toy: dict, tmp_path: Path, prepared: Prepared, capsys: Any) -> None:
    root = tmp_path / "data"
    shutil.copytree(prepared.root, root)
    (root / "meta.jsonl").write_text("")
    toy["data"]["root"] = str(root)
    assert "meta set is empty" in refused(capsys, "fit", "--config", save(toy, tmp_path))


def test_an_unreachable_model_says_where_it_was_looked_for(
    toy: dict, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    toy["model"]["judge"]["init_args"]["base"] = "nobody/no-such-judge"
    assert "cannot load the tokenizer of 'nobody/no-such-judge'" in refused(
        capsys, "fit", "--config", save(toy, tmp_path)
    )


def test_a_lora_target_that_matches_nothing_is_refused(toy: dict, tmp_path: Path, capsys: Any) -> None:
    toy["model"]["judge"]["init_args"]["lora_targets"] = ["query_key_value"]
    assert "['query_key_value'] match no linear layer" in refused(capsys, "fit", "--config", save(toy, tmp_path))


def test_bfloat16_adapters_are_refused_with_what_they_would_lose(toy: dict, tmp_path: Path, capsys: Any) -> None:
    toy["trainer"]["precision"] = "bf16-true"
    line = refused(capsys, "fit", "--config", save(toy, tmp_path))
    assert "they must be float32" in line
    assert "% of Adam's updates would round to nothing" in line


def test_an_optimizer_without_a_known_jacobian_is_refused(toy: dict, tmp_path: Path, capsys: Any) -> None:
    toy["model"]["inner"] = {"lr": 1e-3, "optimizer": "adam", "optimizer_args": {"weight_decay": 0.1}}
    assert "coupled weight decay" in refused(capsys, "fit", "--config", save(toy, tmp_path))


def test_last_with_nothing_to_resume_does_not_start_anew(toy: dict, tmp_path: Path, capsys: Any) -> None:
    config = save(toy, tmp_path)
    assert "no usable checkpoint" in refused(capsys, "fit", "--config", config, "--ckpt_path", "last")


def test_last_or_new_starts_goes_on_and_refuses_to_throw_a_run_away(toy: dict, tmp_path: Path, capsys: Any) -> None:
    toy["trainer"]["limit_val_batches"] = 0
    command = ["fit", "--config", save(toy, tmp_path), "--ckpt_path", "last-or-new"]
    assert main(command) == 0
    assert main(command) == 0, "it goes on"
    assert not (tmp_path / "checkpoints.1").exists(), "and starts nothing"
    for path in (tmp_path / "checkpoints").glob("*.ckpt"):
        path.write_bytes(b"")
    assert "no usable checkpoint" in refused(capsys, *command)
    assert "Use 'last'" in refused(capsys, "test", *command[1:])


def test_a_candidate_without_code_is_refused_before_the_judge_is_loaded(tmp_path: Path, capsys: Any) -> None:
    rows = tmp_path / "candidates.jsonl"
    rows.write_text(json.dumps({"problem_id": "p", "statement": "s", "candidates": ["print(1)", " "]}) + "\n")
    line = refused(capsys, "select", "--judge", "nowhere", "--candidates", str(rows), "--output", str(tmp_path / "out"))
    assert "candidate 1 has no code" in line


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ((), "which model?"),
        (("--model", "m", "--endpoint", "http://h:1/v1", "--engine", "vllm"), "Give one of the two."),
        (("--model", "m", "--vllm_python", "python3"), "of no use without --engine vllm"),
    ],
)
def test_sampling_from_nobody_from_two_or_with_an_option_of_another_is_refused(
    tmp_path: Path, capsys: Any, options: tuple[str, ...], wanted: str
) -> None:
    files = ["--problems", "nowhere.jsonl", "--output", str(tmp_path / "c.jsonl")]
    assert wanted in refused(capsys, "sample", *files, *options)


def test_sampling_from_vllm_where_it_is_not_installed_says_what_to_install(
    tmp_path: Path, prepared: Prepared, capsys: Any
) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    test = {"input": "1", "output": "1", "testtype": "stdin"}
    row = {"question_title": "A", "question_content": "Print n.", "platform": "atcoder", "question_id": "a"}
    row |= {"contest_date": "2024-03-01T00:00:00", "starter_code": "", "difficulty": "easy", "metadata": "{}"}
    row |= {"public_test_cases": json.dumps([test]), "private_test_cases": "[]"}
    (tmp_path / "p.jsonl").write_text(json.dumps(row) + "\n")
    files = ["--problems", str(tmp_path / "p.jsonl"), "--output", str(tmp_path / "c.jsonl")]
    model = ["--model", str(prepared.base), "--engine", "vllm", "--vllm-python", str(bare / "bin" / "python")]
    line = refused(capsys, "sample", *files, *model)
    assert f"Run {bare}/bin/python -m pip install 'vllm" in line


def test_a_strategy_that_cannot_serve_is_refused_before_its_library_is_missed(
    toy: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "fit", "--config", save(toy, tmp_path), "--trainer.strategy", "deepspeed_stage_2")
    assert "takes one optimizer" in line
    assert "configs/strategy/fsdp2.yaml" in line


def test_print_config_shows_every_key_with_overlays_on_top(toy: dict, tmp_path: Path) -> None:
    config = save(toy, tmp_path)
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("model: {meta_every: 3}\n")
    command = [
        sys.executable,
        "-m",
        "daj_lightning",
        "fit",
        "--config",
        config,
        "--config",
        str(overlay),
        "--print_config",
    ]
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(Path(__file__).parent)}
    )
    printed = yaml.safe_load(result.stdout)
    assert printed["model"]["meta_every"] == 3
    assert printed["model"]["inner"]["lr"] == 1e-3
    assert printed["data"]["num_inner"] == 4


def test_a_fresh_run_moves_an_earlier_ones_checkpoints_aside(toy: dict, tmp_path: Path) -> None:
    """Else "last" could mean the earlier run's, which may have gone further."""
    config = save(toy, tmp_path)
    assert main(["fit", "--config", config]) == 0
    toy["data"]["max_windows"] = 2
    assert main(["fit", "--config", save(toy, tmp_path)]) == 0
    assert [path.name for path in sorted((tmp_path / "checkpoints").glob("*.ckpt"))] == ["window-000002.ckpt"]
    assert (tmp_path / "checkpoints.1" / "window-000006.ckpt").exists()


def test_a_checkpoint_of_other_data_is_not_resumed(toy: dict, tmp_path: Path, capsys: Any) -> None:
    assert main(["fit", "--config", save(toy, tmp_path)]) == 0
    toy["data"]["corrupt"] = {"atcoder-easy": 1.0}
    line = refused(capsys, "fit", "--config", save(toy, tmp_path), "--ckpt_path", "last")
    assert "another training samples" in line


def test_a_named_checkpoint_that_is_missing_or_damaged_is_refused(toy: dict, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "half.ckpt").write_bytes(b"PK")
    for name in ("none.ckpt", "half.ckpt"):
        line = refused(capsys, "test", "--config", save(toy, tmp_path), "--ckpt_path", str(tmp_path / name))
        assert "is missing or damaged" in line


@pytest.mark.parametrize(
    ("key", "value"), [("meta_every", 0), ("max_norm", -1.0), ("max_sample_norm", 0.0), ("outer_warmup_windows", -1)]
)
def test_a_setting_out_of_range_is_refused(toy: dict, tmp_path: Path, capsys: Any, key: str, value: float) -> None:
    toy["model"][key] = value
    assert "must be >= 1" in refused(capsys, "fit", "--config", save(toy, tmp_path))


def test_a_table_with_an_optimizer_for_dense_gradients_is_refused(toy: dict, tmp_path: Path, capsys: Any) -> None:
    toy["model"]["reweighter"] = {"class_path": "daj_lightning.bilevel.InstanceTable"}
    toy["model"]["outer"] = {"lr": 1e-2, "optimizer": "adam"}
    assert "lazy_adam" in refused(capsys, "fit", "--config", save(toy, tmp_path))


def test_fit_resume_test_export_and_select_work_together(
    toy: dict, tmp_path: Path, prepared: Prepared, capsys: Any
) -> None:
    config = save(toy, tmp_path)
    assert main(["fit", "--config", config]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["windows"] == 6
    assert set(report["weights"]) == set(TOY_DOMAINS)
    assert main(["fit", "--config", config, "--ckpt_path", "last"]) == 0, "a finished run has nothing left to do"
    for command in ("validate", "test"):
        assert main([command, "--config", config, "--ckpt_path", "last"]) == 0
        scores = json.loads((tmp_path / f"{command}_scores.json").read_text())
        assert scores["best_of_n"]["oracle"]["overall"]["value"] == 1.0
        assert scores["best_of_n"]["random"]["overall"]["value"] == 0.5
        assert {"overall", "easy", "hard"} <= set(scores["best_of_n"]["judge"])

    exported = tmp_path / "judge"
    resolved = str(tmp_path / "resolved_config.yaml")
    assert main(["export", "--config", resolved, "--output", str(exported)]) == 0
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(prepared.base), exported)
    state = torch.load(sorted((tmp_path / "checkpoints").glob("*.ckpt"))[-1], weights_only=True)["state_dict"]
    trained = {n.removeprefix("judge.model."): v for n, v in state.items() if "lora_" in n}
    assert trained
    assert all(torch.equal(dict(plain.named_parameters())[name], value) for name, value in trained.items())

    problems, candidates = ToySource().load()
    rows = tmp_path / "candidates.jsonl"
    codes = [c.code for c in candidates if c.problem_id == problems[-1].problem_id]
    row = {"problem_id": "mine", "statement": problems[-1].statement, "candidates": codes}
    rows.write_text(json.dumps(row) + "\n")
    picked = tmp_path / "picked.jsonl"
    command = ["select", "--judge", str(exported), "--candidates", str(rows), "--output", str(picked)]
    assert main([*command, "--strategy", "Voting", "--strategy.rounds", "8"]) == 0
    answer = json.loads(picked.read_text())
    assert answer["code"] == codes[answer["selected"]]
    assert sum(answer["votes"]) + answer["num_invalid"] == answer["num_comparisons"] == 8

    # Another strategy would not go on with this file; the same one goes on with a problem that came later.
    assert main(command) == 2
    assert "holds selections of" in capsys.readouterr().err
    rows.write_text(rows.read_text() + json.dumps({**row, "problem_id": "later"}) + "\n")
    assert main([*command, "--strategy", "Voting", "--strategy.rounds", "8"]) == 0
    assert "selected for 1 problems (1 were done before, 0 abstained) with 8 comparisons" in capsys.readouterr().out
    assert [json.loads(line)["problem_id"] for line in picked.read_text().splitlines()] == ["mine", "later"]
    once, twice = tmp_path / "once.jsonl", tmp_path / "picked2.jsonl"
    assert main(["select", "--judge", str(exported), "--candidates", str(rows), "--output", str(once)]) == 0
    assert main(["select", "--judge", str(exported), "--candidates", str(rows), "--output", str(twice)]) == 0
    assert once.read_text() == twice.read_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_tells_every_option_once(command: str, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    told = re.findall(r"^ {8}(\w+): (.*)$", COMMANDS[command].__doc__ or "", flags=re.MULTILINE)
    assert "Args:" not in shown
    for name, text in told:
        if name not in ("config", "problems"):  # lists have a text of their own
            assert shown.count(" ".join(text.split()[:4])) >= 1, name
        assert f"{name}: {text[:20]}" not in shown


def test_options_of_commands_may_have_dashes_and_flags_need_no_value() -> None:
    flags = {"--unsafe_local", "--sanitize"}
    assert as_options(["--unsafe-local", "--num-workers", "2", "--sanitize", "false"], flags) == [
        "--unsafe_local", "true", "--num_workers", "2", "--sanitize", "false",
    ]  # fmt: skip
    assert as_options(["--sanitize=false", "--a-b=c-d", "-x", "e-f", "--unsafe_local"], flags) == [
        "--sanitize=false", "--a_b=c-d", "-x", "e-f", "--unsafe_local", "true",
    ]  # fmt: skip
    assert as_options([], flags) == []


def test_kernels_needs_no_option_and_names_every_op(capsys: Any) -> None:
    assert main(["kernels"]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^{op} +cpu +(ext|torch) +\S", shown, flags=re.MULTILINE) for op in OPS)
