"""A plan: what a configuration asks of a device, and what to change where it does not fit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from daj_lightning.data import BilevelData
from daj_lightning.planning.devices import UTILISATION, Device
from daj_lightning.planning.memory import Memory, memory
from daj_lightning.planning.remedies import Remedy, remedies
from daj_lightning.planning.run import Choices, Sizes, read_run
from daj_lightning.planning.work import DAY_S, Work, work
from daj_lightning.records import DajError
from daj_lightning.training import DataReweightedJudge


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that `plan` prints."""

    base: str
    """Whose architecture it is of."""
    device: Device
    sizes: Sizes
    choices: Choices
    """As configured."""
    memory: Memory
    without_checkpointing: int
    """Peak bytes as configured but for checkpointing."""
    with_checkpointing: int
    tokens: int
    """Of a row, that the work is counted with."""
    work: Work
    remedies: Sequence[Remedy]
    """Empty where the run fits."""
    remedied: Memory
    remedied_work: Work

    @property
    def usable(self) -> int:
        """Bytes for tensors alive at once."""
        return self.device.usable_bytes(self.sizes.reserved)

    @property
    def fits(self) -> bool:
        return self.memory.peak <= self.usable

    @property
    def banks(self) -> dict[str, int]:
        """Bytes of the rows of all samples that the engine follows, by their type."""
        numbers = self.choices.unroll_windows * self.sizes.num_inner * self.sizes.adapters
        return {"bfloat16": 2 * numbers, "float32": 4 * numbers}

    def record(self) -> dict[str, Any]:
        """As JSON; bytes, seconds and operations."""
        sizes = {f.name: getattr(self.sizes, f.name) for f in fields(self.sizes) if f.name != "judge"}
        worked, after = (_worked(w, self.sizes.max_windows) for w in (self.work, self.remedied_work))
        return {
            "base": self.base,
            "device": asdict(self.device),
            "usable_bytes": self.usable,
            "fits": self.fits,
            "sizes": sizes,
            "choices": asdict(self.choices),
            "memory": _memory_record(self.memory),
            "bank_bytes": self.banks,
            "peak_bytes_without_checkpointing": self.without_checkpointing,
            "peak_bytes_with_checkpointing": self.with_checkpointing,
            "tokens_of_a_row": self.tokens,
            "work": worked,
            "remedies": [asdict(remedy) for remedy in self.remedies],
            "remedied": {"memory": _memory_record(self.remedied), "work": after},
        }


def _memory_record(of: Memory) -> dict[str, Any]:
    named = {"stays": dict(of.stays), "moments": dict(of.moments), "passes": dict(of.parts)}
    return named | {"host_bytes": of.host, "peak_bytes": of.peak, "peak_moment": of.moment}


def _worked(of: Work, max_windows: int) -> dict[str, Any]:
    times = {"seconds_of_a_window": of.seconds, "days": of.seconds * max_windows / DAY_S}
    return asdict(of) | {"compute_s": of.compute_s} | times


def make_plan(
    module: DataReweightedJudge,
    data: BilevelData,
    base: str,
    device: Device,
    *,
    devices: int = 1,
    sharded: bool = False,
    length: int | None = None,
    utilisation: float = UTILISATION,
) -> Plan:
    """What the run of a configuration asks of a device.

    Args:
        base: directory, config.json or hub name of the judge's architecture.
        devices: that share a window's samples; also over how many the base may be sharded.
        sharded: it is.
        length: tokens of a typical row, for the work; None: those of the longest.
        utilisation: share of the device's peak rate that the run will reach.
    Raises:
        DajError: the architecture cannot be read, or a number makes no sense.
    """
    if not 0 < utilisation <= 1 or (length is not None and length < 2):
        raise DajError(f"--utilisation {utilisation} must be in (0, 1], and --length {length} 2 or more.")
    sizes, choices = read_run(module, data, base, devices, sharded)
    tokens = min(length or choices.length, choices.length)
    needed = memory(sizes, choices, device.kind)
    either = [memory(sizes, replace(choices, checkpointing=on), device.kind).peak for on in (False, True)]
    found: list[Remedy] = []
    remedied, after = needed, choices
    if needed.peak > device.usable_bytes(sizes.reserved):
        found, remedied = remedies(sizes, choices, device, tokens, utilisation, devices)
        after = found[-1].choices if found else choices
    return Plan(
        base=base,
        device=device,
        sizes=sizes,
        choices=choices,
        memory=needed,
        without_checkpointing=either[0],
        with_checkpointing=either[1],
        tokens=tokens,
        work=work(sizes, choices, device, tokens, utilisation),
        remedies=found,
        remedied=remedied,
        remedied_work=work(sizes, after, device, min(tokens, after.length), utilisation),
    )


def write_plan(plan: Plan, path: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(plan.record(), indent=1) + "\n", encoding="utf-8")
