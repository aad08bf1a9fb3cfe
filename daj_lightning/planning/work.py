"""Tokens, operations and the least time of a bi-level step.

A frozen layer's backward costs what its forward did: gradients go to activations alone, and only the adapters, which
are small, get gradients of their own. So a sample is 2 forwards, not 3; 3 with checkpointing, which runs each layer's
forward again. Not counted: reference log-probabilities, which are computed once before training, `validate`, and
groups that are skipped or drawn again.
Letters: K samples in a window, M meta samples, T tokens of a row, N scored tokens of a row, P adapter parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

from daj_lightning.planning.devices import HOST_GB_S, Device
from daj_lightning.planning.run import Choices, Sizes

FLASH_BACKWARD = 2.5
"""Of attention's forward: its five products against two, one of them computed again."""
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Work:
    """Of one window on one device of `Choices.devices`."""

    tokens: int
    """Through the judge with a backward."""
    flops: dict[str, float]
    """By part of the step; a multiply-add is two."""
    transfer_s: dict[str, float]
    """Least seconds of what the device does not compute: generated tokens and shards on their way."""
    utilisation: float
    tflops: float

    @property
    def compute_s(self) -> float:
        return sum(self.flops.values()) / (self.tflops * 1e12 * self.utilisation)

    @property
    def seconds(self) -> float:
        """Of a window, nothing overlapped but the bank's rows on their way to the host."""
        return self.compute_s + sum(self.transfer_s.values())


def forward_flops(sizes: Sizes, tokens: int, scored: int) -> dict[str, float]:
    """Of one row: products with frozen weights and with adapters, attention over all pairs of tokens, the head."""
    return {
        "frozen": 2.0 * sizes.linear_numbers * tokens,
        "adapters": 2.0 * sizes.adapters * tokens,
        "attention": 4.0 * sizes.attention_width * tokens**2 * sizes.num_layers,
        # Logits and u: both products of one pass over the vocabulary; the backward has none.
        "head": 4.0 * sizes.vocabulary * sizes.hidden * scored,
    }


def work(sizes: Sizes, choices: Choices, device: Device, tokens: int, utilisation: float) -> Work:
    """What a window asks for with rows of `tokens` tokens, the response's share of them as in the longest row."""
    scored = max(1, round(choices.scored * tokens / choices.length))
    forward = forward_flops(sizes, tokens, scored)
    causal = choices.rows == 1  # without padding, attention skips the upper half
    forward["attention"] *= 0.5 if causal else 1.0
    once = sum(forward.values())
    passes = (
        once
        + forward["frozen"]
        + 2 * forward["adapters"]
        + FLASH_BACKWARD * forward["attention"]
        + (once - forward["head"] if choices.checkpointing else 0.0)
    )
    inner = -(-sizes.num_inner // choices.devices) * sizes.rows_per_sample
    meta = -(-sizes.num_meta // choices.devices) * sizes.rows_per_sample / sizes.meta_every
    if choices.keeps == "nothing":
        meta = 0.0
    flops = {"inner samples": inner * passes, "meta samples": meta * passes}
    again = {"directions": 2.0, "differences": 2.0}.get(choices.keeps, 0.0)
    if again:  # a tangent beside every product, or two forwards
        flops["recomputed for the credit"] = again * inner / sizes.meta_every * once
    if sizes.reference_rows:
        flops["without a graph"] = sizes.reference_rows * (inner + meta) * once
    transfer = {}
    if sizes.new_tokens:
        # Each token of a batch reads the base once; what it computes is little beside. Another engine: one batch.
        drawn = sizes.num_inner * sizes.rows_per_sample / choices.devices
        batches = -(-drawn // choices.sequences) if choices.sequences else 1
        transfer["generation"] = batches * sizes.new_tokens * sizes.base_bytes / (device.gb_s * 1e9)
    if choices.sharded:
        gathered = sizes.num_layers * sizes.layer_bytes * (1 - 1 / choices.devices)
        num_passes = (inner + meta) / choices.rows * (3 if choices.checkpointing else 2)
        transfer["shards"] = num_passes * gathered / (device.link_gb_s * 1e9)
    return Work(round((inner + meta) * tokens), flops, transfer, utilisation, device.tflops)


def offload_seconds(sizes: Sizes, choices: Choices) -> float:
    """Least seconds a window in which rows, the window gradient and directions travel between device and host."""
    rows = -(-sizes.num_inner // choices.devices) * sizes.adapters * choices.bank_itemsize
    vectors = (1 + 2 / sizes.meta_every) * sizes.adapters * sizes.adapter_itemsize
    return (rows + vectors) / (HOST_GB_S * 1e9)
