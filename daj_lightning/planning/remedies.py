"""Which knob to turn when a run does not fit, what it costs, and how far to turn it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from daj_lightning.planning.devices import Device
from daj_lightning.planning.memory import Memory, memory
from daj_lightning.planning.run import Choices, Sizes
from daj_lightning.planning.work import offload_seconds, work

SHORTEST = 512
"""Tokens; a plan suggests no shorter rows."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """One knob, turned."""

    name: str
    setting: str
    """In the configuration, or on the command line."""
    cost: str
    """Beyond time."""
    seconds: float
    """A window, more than without."""
    saved: int
    """Bytes of the peak, from where the knobs before it left it."""
    choices: Choices


@dataclass(frozen=True, slots=True)
class _Knob:
    name: str
    setting: str
    cost: str
    turned: Choices | None
    """None where it is turned already, or does not apply."""
    loses: bool = False
    """Changes what is learned: after those that cost time alone."""


def remedies(
    sizes: Sizes, choices: Choices, device: Device, tokens: int, utilisation: float, spare_devices: int
) -> tuple[list[Remedy], Memory]:
    """The cheapest knobs, in order of their cost, with which the run fits; and its memory with them.

    Knobs that turned out to be unneeded once a dearer one was turned are turned back. If nothing is enough, all that
    help are returned, and the memory does not fit.

    Args:
        spare_devices: over which the base may be sharded.
    """
    start, usable = choices, device.usable_bytes(sizes.reserved)

    def peak(of: Choices) -> int:
        return memory(sizes, of, device.kind).peak

    def added(of: Choices, before: Choices) -> float:
        own, other = (work(sizes, c, device, min(tokens, c.length), utilisation).seconds for c in (of, before))
        return own - other + (offload_seconds(sizes, of) if of.offload and not before.offload else 0.0)

    def price(knob: _Knob) -> tuple[bool, float]:
        assert knob.turned is not None
        return knob.loses, added(knob.turned, start)

    offered = [knob for knob in _knobs(sizes, choices, device, spare_devices) if knob.turned is not None]
    turned: list[_Knob] = []
    for knob in sorted(offered, key=price):
        if peak(choices) <= usable:
            break
        candidate = _apply(choices, start, knob)
        if peak(candidate) < peak(choices):
            choices, turned = candidate, [*turned, knob]
    if peak(choices) > usable:
        shorter = _shorter(choices, lambda c: peak(c) <= usable)
        if shorter is not None:
            setting = f"data.max_length: {shorter.length}"
            cost = "longer responses lose their middle, longer prompts too"
            turned.append(_Knob("shorter rows", setting, cost, replace(start, length=shorter.length), loses=True))
            choices = shorter
    if peak(choices) <= usable:
        for knob in reversed(turned[:-1]):
            without = start
            for other in turned:
                without = without if other is knob else _apply(without, start, other)
            if peak(without) <= usable:
                turned.remove(knob)
    found, here = [], start
    for knob in turned:
        there = _apply(here, start, knob)
        saved = peak(here) - peak(there)
        found.append(Remedy(knob.name, knob.setting, knob.cost, added(there, here), saved, there))
        here = there
    return found, memory(sizes, here, device.kind)


def _apply(choices: Choices, start: Choices, knob: _Knob) -> Choices:
    """The choices with those fields that the knob changes."""
    assert knob.turned is not None
    changed = {
        name: getattr(knob.turned, name)
        for name in Choices.__slots__
        if getattr(knob.turned, name) != getattr(start, name)
    }
    if "length" in changed:
        changed["scored"] = min(choices.scored, changed["length"] - 1)
    return replace(choices, **changed)


def _knobs(sizes: Sizes, choices: Choices, device: Device, spare_devices: int) -> Sequence[_Knob]:
    banked = choices.keeps == "rows"
    offloadable = banked and not choices.offload and device.kind == "cuda"
    narrow = banked and choices.bank_itemsize > 2
    shards = spare_devices if spare_devices > 1 and not choices.sharded else 0
    prompts = _prompts_at_once(sizes, choices, device)
    fewer = prompts * sizes.rows_per_prompt
    rounding = "rows rounded to 8 bits; below the noise of a bfloat16 base's gradients"
    recomputed = "every sample passes again with tangents; attention in its math form, T^2 numbers a head"
    return (
        _Knob(
            "bfloat16 rows",
            "model.engine.init_args.dtype: bfloat16",
            rounding if sizes.base_itemsize == 2 else f"{rounding}, above that of this float32 base",
            replace(choices, bank_itemsize=2) if narrow else None,
            loses=sizes.base_itemsize > 2,
        ),
        _Knob(
            "fewer rows a forward",
            "model.objective.init_args.rows_per_forward: 1",
            "small products; none at long rows",
            replace(choices, rows=1) if sizes.new_tokens and choices.rows > 1 else None,
        ),
        _Knob(
            "samples one by one",
            "model.micro_batch_size: 1",
            "small products; none at long rows",
            replace(choices, rows=sizes.rows_per_sample) if choices.rows > sizes.rows_per_sample else None,
        ),
        _Knob(
            "bank on the host",
            "model.engine.init_args.offload: true",
            "as much page-locked host memory for each device; a row travels while the next sample runs",
            replace(choices, offload=True) if offloadable else None,
        ),
        _Knob(
            "activation checkpointing",
            "model.judge.init_args.gradient_checkpointing: true",
            "every layer's forward runs twice",
            replace(choices, checkpointing=True) if not choices.checkpointing else None,
        ),
        _Knob(
            "no bank, tangents instead",
            "model.engine: JvpEngine",
            recomputed,
            replace(choices, keeps="directions", offload=False, unroll_windows=1) if banked and choices.exact else None,
            loses=choices.unroll_windows > 1,
        ),
        _Knob(
            f"frozen layers sharded over {shards} devices",
            f"configs/strategy/fsdp2.yaml on top, trainer.devices: {shards}",
            "layers are gathered in every pass; adapters, embedding and head stay whole everywhere",
            replace(choices, sharded=True, devices=shards) if shards else None,
        ),
        _Knob(
            "fewer sequences at once",
            f"model.rollouts.init_args.engine.init_args.batch_size: {prompts}",
            "generation in more batches",
            replace(choices, sequences=fewer) if fewer < choices.sequences else None,
        ),
    )


def _prompts_at_once(sizes: Sizes, choices: Choices, device: Device) -> int:
    """As many as leave room for what stays beside their caches; 1 at least. 0 where nothing is generated here."""
    prompts = choices.sequences // max(sizes.rows_per_prompt, 1)
    while prompts > 1:
        here = memory(sizes, replace(choices, sequences=prompts * sizes.rows_per_prompt), device.kind)
        if sum(here.stays.values()) + here.moments["generation"] <= device.usable_bytes(sizes.reserved):
            break
        prompts //= 2
    return prompts


def _shorter(choices: Choices, fits: Callable[[Choices], bool]) -> Choices | None:
    """The longest rows, to a multiple of 256 tokens, that fit; None if SHORTEST do not."""

    def of(length: int) -> Choices:
        return replace(choices, length=length, scored=min(choices.scored, length - 1))

    low, high = SHORTEST // 256, choices.length // 256
    if low > high or not fits(of(low * 256)):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(of(middle * 256)) else (low, middle - 1)
    return of(low * 256)
