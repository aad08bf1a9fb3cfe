"""Adapters on disk: no name or path is ever used again, and nothing half written is seen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import Qwen3Config, Qwen3ForCausalLM

from daj_lightning.rollout import RolloutError
from daj_lightning.rollout.adapters import AdapterStore, needed_rank
from tiny import make_judge, randomize_adapters


@pytest.fixture
def model(tiny_config: Qwen3Config) -> PeftModel:
    judge = make_judge(tiny_config)
    randomize_adapters(judge)
    assert isinstance(judge.policy, PeftModel)
    return judge.policy


def test_no_version_shares_a_name_or_a_path_with_another_or_with_another_run(model: PeftModel, tmp_path: Path) -> None:
    stores = [AdapterStore(tmp_path), AdapterStore(tmp_path)]
    first = [store.write(model, 3) for store in stores for _ in range(3)]  # a resumed run begins with an old number
    second = [store.renew(store.written[0]) for store in stores]
    assert len({a.name for a in first + second}) == len({a.path for a in first + second}) == 8
    assert {a.version for a in first + second} == {3}


def test_the_files_are_the_adapters_as_they_are_now(model: PeftModel, tiny_config: Qwen3Config, tmp_path: Path) -> None:
    adapter = AdapterStore(tmp_path).write(model, 0)
    torch.manual_seed(0)
    loaded = PeftModel.from_pretrained(Qwen3ForCausalLM(tiny_config), str(adapter.path))
    ids = torch.randint(0, 64, (2, 9))
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits, rtol=0, atol=0)


def test_a_renewed_adapter_has_the_old_files_under_the_new_path_alone(model: PeftModel, tmp_path: Path) -> None:
    store = AdapterStore(tmp_path)
    old = store.write(model, 1)
    files = {file.name: file.read_bytes() for file in old.path.iterdir()}
    fresh = store.renew(old)
    assert {file.name: file.read_bytes() for file in fresh.path.iterdir()} == files
    assert not old.path.exists()


def test_writing_does_not_move_the_random_state_of_training(model: PeftModel, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    AdapterStore(tmp_path).write(model, 1)
    assert torch.equal(torch.get_rng_state(), state)


def test_adapters_that_cannot_be_written_say_where_and_leave_nothing(model: PeftModel, tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "adapters")
    (tmp_path / "adapters").rmdir()
    (tmp_path / "adapters").write_text("a file stands in the way")
    with pytest.raises(RolloutError, match=r"adapters of version 7 cannot be written to '.*adapters.*Free some"):
        store.write(model, 7)
    assert store.written == []


def test_closing_deletes_this_runs_adapters_and_no_others(model: PeftModel, tmp_path: Path) -> None:
    mine, other = AdapterStore(tmp_path), AdapterStore(tmp_path)
    mine.write(model, 0)
    kept = other.write(model, 0)
    mine.close()
    mine.close()
    assert list(tmp_path.iterdir()) == [kept.path]
    temporary = AdapterStore()
    temporary.write(model, 0)
    temporary.close()
    assert not temporary.directory.exists()


@pytest.mark.parametrize(("rank", "needed"), [(1, 1), (4, 8), (8, 8), (9, 16), (32, 32), (512, 512)])
def test_vllm_is_started_with_the_least_rank_that_it_knows(tiny_config: Qwen3Config, rank: int, needed: int) -> None:
    with torch.device("meta"):
        model = get_peft_model(Qwen3ForCausalLM(tiny_config), LoraConfig(r=rank, target_modules=["q_proj"]))
    assert needed_rank(model) == needed


def test_a_single_layer_of_higher_rank_counts(tiny_config: Qwen3Config) -> None:
    config = LoraConfig(r=4, rank_pattern={"q_proj": 20}, target_modules=["q_proj", "v_proj"])
    assert needed_rank(get_peft_model(Qwen3ForCausalLM(tiny_config), config)) == 32


def test_a_model_without_adapters_needs_no_rank(tiny_config: Qwen3Config) -> None:
    assert needed_rank(Qwen3ForCausalLM(tiny_config)) is None


@pytest.mark.parametrize("unfit", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"r": 600}])
def test_adapters_that_vllm_does_not_take_are_refused(tiny_config: Qwen3Config, unfit: dict[str, object]) -> None:
    with torch.device("meta"):
        model = get_peft_model(
            Qwen3ForCausalLM(tiny_config), LoraConfig(**{"r": 4, "target_modules": ["q_proj"], **unfit})
        )
    with pytest.raises(RolloutError, match=r"vLLM takes .* Use TransformersEngine"):
        needed_rank(model)
