"""LoRA adapters on disk, each version under a name and a path that nothing else ever had.

vLLM keys its prefix cache by an adapter's name and path: whoever overwrites a path gets rollouts from the
old policy, silently and several nats off.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from pathlib import Path
from typing import NamedTuple

from peft import LoraConfig, PeftModel
from transformers import PreTrainedModel

from daj_lightning.rollout.engine import RolloutError

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for its max_lora_rank."""


class Adapter(NamedTuple):
    """One version of the policy, as files."""

    name: str
    path: Path
    version: int


class AdapterStore:
    """Writes and deletes the versions of one run.

    Args:
        directory: where; a resumed run may be given it again, for names hold a random run id. None: a temporary one,
            which goes at `close`.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        self.run = uuid.uuid4().hex[:12]  # of the system's randomness: training draws as if this were not here
        self.is_temporary = directory is None
        self.directory = Path(tempfile.mkdtemp(prefix="daj-rollout-") if directory is None else directory).resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.written: list[Adapter] = []
        self._count = 0

    def place(self, version: int) -> Adapter:
        """A name and a path that are new, with nothing there yet."""
        self._count += 1
        name = f"daj-{self.run}-{self._count}-v{version}"
        return Adapter(name, self.directory / name, version)

    def write(self, model: PeftModel, version: int) -> Adapter:
        """The adapters as they are now. Whole or not at all: a server never sees half of one.

        Raises:
            RolloutError: they cannot be written.
        """
        adapter = self.place(version)
        beside = adapter.path.with_name(adapter.path.name + ".part")
        try:
            model.save_pretrained(str(beside), save_embedding_layers=False)  # "auto" would ask the hub
            beside.rename(adapter.path)
        except OSError as error:
            shutil.rmtree(beside, ignore_errors=True)
            raise RolloutError(
                f"the adapters of version {version} cannot be written to {str(adapter.path)!r}: {error}. Free some "
                f"space, or name another directory for the rollout engine."
            ) from error
        self.written.append(adapter)
        return adapter

    def renew(self, adapter: Adapter) -> Adapter:
        """The same files under a new name and path; the old ones are gone."""
        fresh = self.place(adapter.version)
        adapter.path.rename(fresh.path)
        self.written.remove(adapter)
        self.written.append(fresh)
        return fresh

    def delete(self, adapter: Adapter) -> None:
        """Once no server has it: one that is asked for an adapter whose files are gone ends, with all its requests."""
        shutil.rmtree(adapter.path, ignore_errors=True)
        self.written.remove(adapter)

    def close(self) -> None:
        """Delete every adapter of this run; a second call does nothing."""
        for adapter in list(self.written):
            self.delete(adapter)
        if self.is_temporary:
            shutil.rmtree(self.directory, ignore_errors=True)


def needed_rank(model: PreTrainedModel | PeftModel) -> int | None:
    """The least max_lora_rank of vLLM that takes the model's adapters; None: it has none.

    Raises:
        RolloutError: the adapters are none that vLLM takes.
    """
    if not isinstance(model, PeftModel):
        return None
    config = model.peft_config.get("default")
    if not isinstance(config, LoraConfig) or config.use_dora or config.modules_to_save:
        raise RolloutError(
            f"vLLM takes plain LoRA adapters named 'default', without DoRA and modules_to_save; got {config}. "
            f"Use TransformersEngine."
        )
    rank = max([config.r, *(config.rank_pattern or {}).values()])
    if rank > VLLM_RANKS[-1]:
        raise RolloutError(f"vLLM takes LoRA ranks up to {VLLM_RANKS[-1]}, got {rank}. Use TransformersEngine.")
    return next(allowed for allowed in VLLM_RANKS if allowed >= rank)
