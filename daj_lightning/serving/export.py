"""An exported judge on disk: written from a checkpoint, read for whoever asks it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from peft.utils.save_and_load import load_peft_weights
from transformers import PreTrainedTokenizerBase

from daj_lightning.data.frozen import frozen_policy
from daj_lightning.judge import PromptTemplate, load_tokenizer
from daj_lightning.records import DajError
from daj_lightning.rollout import Policy, Sampling

if TYPE_CHECKING:
    from daj_lightning.data import JudgeData
    from daj_lightning.training import DataReweightedJudge

_NOTE = "daj.json"
_TEMPLATE = "template.txt"


class Exported(NamedTuple):
    """What `export` wrote, ready for an engine."""

    policy: Policy
    tokenizer: PreTrainedTokenizerBase
    template: PromptTemplate
    sampling: Sampling
    context: int | None
    """Tokens of prompt and answer; None: the architecture has no limit."""


def export_judge(module: DataReweightedJudge, data: JudgeData, ckpt_path: str, output: str | Path) -> None:
    """Write the adapters of a checkpoint as a PEFT adapter that plain transformers and peft load, or the whole model.

    Tokenizer, prompt template and decoding lie beside it, so that `select` needs nothing else but the base.
    """
    output = Path(output)
    state = torch.load(ckpt_path, map_location="cpu", weights_only=True)["state_dict"]
    module.judge.load()
    own = {name.removeprefix("judge."): value for name, value in state.items() if name.startswith("judge.")}
    missing = {n for n, p in module.judge.named_parameters() if p.requires_grad} - set(own)
    if missing:
        raise DajError(
            f"{ckpt_path} lacks {len(missing)} trained tensors of this configuration; it is of another judge."
        )
    module.judge.load_state_dict(own, strict=False)
    module.judge.export(output)
    load_tokenizer(data.tokenizer_name).save_pretrained(output)
    (output / _TEMPLATE).write_text(PromptTemplate(data.preparation.template).text, encoding="utf-8")
    note = {
        "base": module.judge.base,
        "base_dtype": module.judge.base_dtype,
        "trains": module.judge.trains,
        "max_new_tokens": module.sampling.max_new_tokens,
        "temperature": module.sampling.temperature,
    }
    (output / _NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")


def load_exported(directory: str | Path, with_weights: bool) -> Exported:
    """The judge of a directory that `export` wrote.

    Args:
        with_weights: of the base; without them it is on the meta device, for an engine elsewhere. Adapters are there.
    Raises:
        DajError: no such judge, or its base cannot be reached.
    """
    directory = Path(directory)
    if not (directory / _NOTE).is_file():
        raise DajError(f"{str(directory)!r} is no exported judge: it has no {_NOTE}. Make one with `export`.")
    note = json.loads((directory / _NOTE).read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(str(directory))
    whole = note.get("trains") == "everything"
    name = str(directory.resolve()) if whole else note["base"]
    policy = frozen_policy(name, tokenizer, note["base_dtype"], with_weights)
    context = getattr(policy.model.config, "max_position_embeddings", None)  # some architectures have none
    if not whole:
        policy = policy._replace(model=_adapted(policy, directory, with_weights))
    sampling = Sampling(note["max_new_tokens"], note["temperature"])
    return Exported(policy, tokenizer, PromptTemplate(str(directory / _TEMPLATE)), sampling, context)


def _adapted(policy: Policy, directory: Path, with_weights: bool) -> PeftModel:
    assert not isinstance(policy.model, PeftModel)
    if with_weights:
        return PeftModel.from_pretrained(policy.model, directory)
    # from_pretrained would put the adapters where the base is: on the meta device, without their values.
    model = get_peft_model(policy.model, PeftConfig.from_pretrained(str(directory)))
    assert isinstance(model, PeftModel)
    weights = load_peft_weights(str(directory), device="cpu")
    named = {f"{name.removesuffix('.weight')}.default.weight": value for name, value in weights.items()}
    unknown = model.load_state_dict(named, strict=False, assign=True).unexpected_keys
    if unknown:
        raise DajError(f"{str(directory)!r} has adapters for {unknown[:3]}, which {policy.base!r} has not.")
    return model
