"""`plan` says what a run will take: against measured windows, the paper's figures, and its own advice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from check_plan import CASES, LIMIT, Case, RandomData, adapt, make_module, measured, predicted, tiny
from daj_lightning.__main__ import main
from daj_lightning.bilevel import BankEngine
from daj_lightning.cli import load
from daj_lightning.judge import Judge
from daj_lightning.planning import DEVICES, LiveBytes, Plan, find_device, make_plan, memory, read_run, walk
from daj_lightning.planning.devices import FRAGMENTATION, OUTSIDE_GIB
from daj_lightning.planning.remedies import remedies
from daj_lightning.planning.work import forward_flops, work
from daj_lightning.records import DajError

ROOT = Path(__file__).parents[2]
QWEN_14B, QWEN_17B = (str(ROOT / "tests" / name) for name in ("qwen2.5-coder-14b", "qwen3-1.7b"))
QUICK = (
    "64x4, eager",
    "128x4, checkpointing",
    "128x4, bf16",
    "128x2, mostly adapters",
    "128x2, mostly adapters, shortened by fours",
)
"""Of tools/check_plan.py's cases; it runs all of them."""
GIB = 2**30


def of_config(name: str, base: str, device: str = "a100-80gb", **options: Any) -> Plan:
    cli = load([str(ROOT / "configs" / name)])
    return make_plan(cli.model, cli.datamodule, base, find_device(device, options.pop("gib", None)), **options)


@pytest.mark.parametrize("case", [case for case in CASES["cpu"] if case.name in QUICK], ids=lambda case: case.name)
def test_the_predicted_peak_is_the_measured_one_within_15_percent(case: Case) -> None:
    """Whole bi-level windows through Lightning, weights and moments included."""
    assert predicted(case, "cpu").peak == pytest.approx(measured(case, "cpu"), rel=LIMIT)


@pytest.mark.gpu
@pytest.mark.usefixtures("cuda")
def test_on_a_gpu_too() -> None:
    case = Case("512x4", tiny(512, 4), 1024, BankEngine(dtype="bfloat16"), "bfloat16", num_inner=16, lora_r=32)
    assert predicted(case, "cuda").peak == pytest.approx(measured(case, "cuda"), rel=LIMIT)


def test_the_bank_of_the_papers_judges() -> None:
    """r = 32, K = 16: 1.04 GiB for Qwen3-1.7B, 4.10 for Qwen2.5-Coder-14B in bfloat16; twice that in float32."""
    for config, base, adapters, gib in (
        ("grpo.yaml", QWEN_17B, 34_865_152, 1.04),
        ("lcb.yaml", QWEN_14B, 137_625_600, 4.10),
    ):
        plan = of_config(config, base)
        assert plan.sizes.adapters == adapters
        assert plan.memory.stays["bank"] / GIB == pytest.approx(gib, abs=0.005)
        assert plan.banks["float32"] == 2 * plan.banks["bfloat16"] == 2 * plan.memory.stays["bank"]


def test_the_papers_14b_run_fits_its_a100_with_checkpointing_alone() -> None:
    plan = of_config("lcb.yaml", QWEN_14B)
    assert plan.fits
    assert plan.memory.peak == plan.with_checkpointing < plan.usable < plan.without_checkpointing
    assert plan.memory.stays["base"] / GIB == pytest.approx(27.5, abs=0.1)
    assert plan.memory.moment == "backward of a meta sample"
    assert plan.remedies == []


def test_what_a_layer_keeps_is_what_autograd_saves() -> None:
    """The walk on shapes against a real layer's storages."""
    shape = tiny(64, 1)
    config = AutoConfig.for_model(shape.pop("model_type"), **shape)
    kept = []
    for device in ("meta", "cpu"):
        judge = Judge("x", "bfloat16", lora_r=8)
        with torch.device(device):
            judge.adapt(AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa"))
        if device == "meta":
            kept.append(walk(judge, 2, 48, "cpu", padded=False).layer.kept)
            continue
        decoder = judge.causal_lm.get_decoder()
        storages: dict[int, int] = {}
        own = {p.untyped_storage()._cdata for p in judge.parameters()}

        def keep(tensor: torch.Tensor, storages: dict[int, int] = storages) -> torch.Tensor:
            storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
            return tensor

        hidden = torch.randn(2, 48, 64, dtype=torch.bfloat16).requires_grad_().clone()
        rotations = decoder.rotary_emb(hidden, torch.arange(48)[None])
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = decoder.layers[0](hidden, position_embeddings=rotations, attention_mask=None)
        shared = {t.untyped_storage()._cdata for t in rotations}
        kept.append(sum(size for key, size in storages.items() if key not in own | shared))
        del output
    assert kept[0] == pytest.approx(kept[1], rel=0.01)


@pytest.mark.parametrize(
    ("changes", "less", "same"),
    [
        ({"bank_itemsize": 2}, "bank", "optimizer state"),
        ({"offload": True}, "bank", "base"),
        ({"sharded": True, "devices": 4}, "base", "adapters"),
        ({"keeps": "directions"}, "bank", "optimizer state"),
    ],
    ids=lambda value: str(value),
)
def test_a_knob_moves_what_it_says(changes: dict[str, Any], less: str, same: str) -> None:
    module = make_module(case := Case("x", tiny(64, 4), 64, BankEngine(), num_inner=16))
    adapt(module.judge, case, "meta")
    sizes, choices = read_run(module, RandomData(case, "unused"), "x")
    before, after = (memory(sizes, own, "cuda") for own in (choices, replace(choices, **changes)))
    assert after.stays.get(less, 0) < before.stays[less]
    assert after.stays[same] == before.stays[same]
    assert (after.host > 0) == ("offload" in changes)


def test_advice_makes_it_fit_cheapest_first_and_no_knob_is_in_vain() -> None:
    """The 14B judge without checkpointing and with a float32 bank, on an A100 of 80 GB."""
    cli = load([str(ROOT / "configs" / "lcb.yaml")])
    cli.model.judge.gradient_checkpointing = False
    cli.model.engine.dtype = "float32"
    plan = make_plan(cli.model, cli.datamodule, QWEN_14B, DEVICES["a100-80gb"])
    assert not plan.fits
    assert plan.remedied.peak <= plan.usable
    names = [remedy.name for remedy in plan.remedies]
    assert "activation checkpointing" in names
    assert "no bank, tangents instead" not in names, "far dearer"
    for remedy in plan.remedies:
        assert remedy.saved > 0
    assert plan.remedied_work.seconds > plan.work.seconds


def test_sharding_and_shorter_rows_come_last_and_only_what_is_needed_is_turned() -> None:
    plan = of_config("lcb.yaml", QWEN_14B, "a100-40gb", devices=4)
    names = [remedy.name for remedy in plan.remedies]
    assert names[-2:] == ["frozen layers sharded over 4 devices", "shorter rows"]
    assert plan.remedied.peak <= plan.usable
    longer = replace(plan.remedies[-1].choices, length=plan.remedies[-1].choices.length + 256)
    assert memory(plan.sizes, longer, "cuda").peak > plan.usable, "no longer rows fit"


def test_tangents_take_the_place_of_a_bank_that_nothing_else_makes_room_for() -> None:
    """On a CPU, whose own memory an offloaded bank would fill, and with rows in bfloat16 already."""
    module = make_module(
        case := Case("x", tiny(256, 4), 96, BankEngine(dtype="bfloat16"), num_inner=64, lora_r=64, checkpointing=True)
    )
    adapt(module.judge, case, "meta")
    sizes, choices = read_run(module, RandomData(case, "unused"), "x")
    bank, tangents = (memory(sizes, own, "cpu").peak for own in (choices, replace(choices, keeps="directions")))
    assert tangents < bank
    room = replace(DEVICES["cpu"], gib=(bank + tangents) / 2 / GIB * (1 + FRAGMENTATION) + OUTSIDE_GIB)
    (remedy,), after = remedies(sizes, choices, room, case.length, 0.4, spare_devices=1)
    assert remedy.setting == "model.engine: JvpEngine"
    assert remedy.choices.keeps == "directions"
    assert remedy.saved == bank - tangents == bank - after.peak
    assert remedy.seconds > 0


def test_a_configuration_that_shards_is_planned_sharded(tmp_path: Path) -> None:
    """Half of 48 layers, and the two that are whole at a time; each device has half of the bank's rows."""
    overlay, output = tmp_path / "fsdp2.yaml", tmp_path / "plan.json"
    strategy = {"class_path": "daj_lightning.training.ShardedBase"}
    overlay.write_text(json.dumps({"trainer": {"accelerator": "cpu", "devices": 2, "strategy": strategy}}))
    config = ["--config", str(ROOT / "configs" / "lcb.yaml"), "--config", str(overlay)]
    assert main(["plan", *config, "--base", QWEN_14B, "--output", str(output)]) == 0
    record, whole = json.loads(output.read_text()), of_config("lcb.yaml", QWEN_14B)
    assert record["choices"]["devices"] == 2
    assert record["memory"]["stays"]["base"] == whole.sizes.base_bytes - (24 - 2) * whole.sizes.layer_bytes
    assert record["memory"]["stays"]["bank"] == whole.memory.stays["bank"] // 2
    assert record["work"]["transfer_s"]["shards"] > 0


def test_a_run_that_nothing_can_save_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", "--config", str(ROOT / "configs" / "lcb.yaml"), "--base", QWEN_14B, "--device", "rtx4090"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "does not fit" in printed
    assert "use a larger device" in " ".join(printed.split())


def test_a_backward_through_a_frozen_base_costs_a_forward() -> None:
    """Next to no adapters, next to no attention: 2 forwards a sample, 3 with checkpointing."""
    module = make_module(case := Case("x", tiny(512, 4, vocabulary=64), 8, BankEngine(), lora_r=1, num_meta=1))
    adapt(module.judge, case, "meta")
    sizes, choices = read_run(module, RandomData(case, "unused"), "x")
    forward = 2 * 4 * sum(forward_flops(sizes, 8, choices.scored).values())  # 4 samples of 2 rows
    for checkpointing, times in ((False, 2), (True, 3)):
        done = work(sizes, replace(choices, checkpointing=checkpointing), DEVICES["h100"], 8, 0.4)
        assert done.flops["inner samples"] / forward == pytest.approx(times, rel=0.03)
    assert work(sizes, choices, DEVICES["h100"], 8, 0.4).tokens == (4 + 1) * 2 * 8
    slower = work(sizes, choices, DEVICES["h100"], 8, 0.2)
    assert slower.seconds == pytest.approx(2 * work(sizes, choices, DEVICES["h100"], 8, 0.4).seconds)


def test_generation_in_this_process_is_counted_and_cut_to_size() -> None:
    """8 prompts at once, each order of a group of 16 with 8 responses: 64 sequences of 16384 tokens in the cache."""
    cli = load([str(ROOT / "configs" / name) for name in ("grpo.yaml", "rollout/transformers.yaml")])
    plan = make_plan(cli.model, cli.datamodule, QWEN_17B, DEVICES["a100-80gb"])
    assert plan.memory.moments["generation"] == 28 * 2 * 8 * 128 * 2 * 16384 * plan.choices.sequences
    assert plan.choices.sequences == 64
    assert not plan.fits
    assert [remedy.name for remedy in plan.remedies] == ["fewer sequences at once"]
    assert plan.remedied.peak <= plan.usable


def test_the_command_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The quickstart's base is not there yet: its cold start says what it will be."""
    output = tmp_path / "plan.json"
    config = str(ROOT / "configs" / "quickstart.yaml")
    assert main(["plan", "--config", config, "--device", "cpu-8gb", "--output", str(output)]) == 0
    record = json.loads(output.read_text())
    assert record["fits"]
    assert record["memory"]["peak_bytes"] == sum(record["memory"]["stays"].values()) + max(
        record["memory"]["moments"].values()
    )
    assert f"{record['memory']['peak_bytes'] / GIB:.2f} GiB of 6.7 GiB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--device", "a1000"], "no device 'a1000'; there are a100-40gb"),
        (["--gib", "0.5"], "must have more than 1"),
        (["--utilisation", "1.5"], r"must be in (0, 1]"),
        (["--devices", "9"], "--devices 9"),
        (["--base", "nowhere/at/all"], "Give --base a directory"),
    ],
)
def test_what_makes_no_sense_is_one_line(arguments: list[str], wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    base = [] if "--base" in arguments else ["--base", QWEN_17B]
    assert main(["plan", "--config", str(ROOT / "configs" / "lcb.yaml"), *base, *arguments]) == 2
    error = capsys.readouterr().err
    assert wanted in error
    assert len(error.strip().splitlines()) == 1


def test_live_bytes_forget_what_is_freed() -> None:
    with LiveBytes() as count:
        first = torch.empty(1000)
        assert count.live == count.peak == 4000
        del first
        second = torch.empty(500)
        assert (count.live, count.peak) == (2000, 4000)
        count.restart()
        assert count.peak == 2000
    assert second.numel() == 500


def test_every_device_is_known_by_its_memory() -> None:
    with pytest.raises(DajError, match="cpu-Ngb"):
        find_device("cpu-lots")
    assert find_device("cpu-64gb").gib == 64
    assert find_device("h100", gib=94).gib == 94
    for device in DEVICES.values():
        assert 0 < device.usable_bytes(0.3) <= device.usable_bytes() < device.gib * GIB
