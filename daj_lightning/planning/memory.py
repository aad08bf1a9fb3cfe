"""Bytes on one device: what stays there through a window, and the moments that ask for most.

    activations = L kept + the most of:                       kept: by autograd, of a layer (layer.py)
        the last layer's forward - kept                       with checkpointing, in place of L kept: L inputs of
        the head: last norm, N hidden states and their u,     R T H numbers, and once a layer's forward or backward
            the tile of logits                                on top
        the last layer's backward - kept
    peak = what stays + the most of:
        a sample's passes, inner or meta; beside a meta sample's stand the window (its gradient, the optimizer's
            moments before the step) and the gradients of both halves of the meta batch
        the inner step: combined gradient, moments, Adam's own temporaries
        the credit: the window, both halves, the direction; for engines that go back, a sample's passes again

Letters: L layers, R rows of a forward, T tokens, N scored tokens, H hidden size, V vocabulary, P adapter parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from daj_lightning.judge import Judge
from daj_lightning.kernels.dispatch import multiplies_bfloat16
from daj_lightning.kernels.vocabulary_pass import CPU_ROWS, CPU_TILE_BYTES, CUDA_TILE
from daj_lightning.planning.layer import DeviceType, Passes, walk
from daj_lightning.planning.run import Choices, Sizes

WORK = 4
"""Bytes of a number in the pass over the vocabulary."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one device, by name."""

    stays: Mapping[str, int]
    """Through a window."""
    moments: Mapping[str, int]
    """Beside what stays, at their most."""
    parts: Mapping[str, int]
    """Of a sample's passes, for the reader: they overlap in `moments`."""
    host: int
    """Of host memory, for an offloaded bank."""

    @property
    def peak(self) -> int:
        return sum(self.stays.values()) + max(self.moments.values())

    @property
    def moment(self) -> str:
        """When the peak is reached."""
        return max(self.moments, key=lambda name: self.moments[name])


def memory(sizes: Sizes, choices: Choices, device: DeviceType, *, padded: bool = True) -> Memory:
    """What a window asks for.

    Args:
        padded: rows of a forward differ in length, as a pair's do.
    """
    passes = walked(sizes.judge, choices, device, padded)
    vector = sizes.adapters * sizes.adapter_itemsize
    vectors = _vectors(sizes, choices, device)
    stays = _stays(sizes, choices, vector)
    activations = _activations(sizes, choices, passes, device)
    passes_bytes = max(activations.values())
    moments = {
        "backward of an inner sample": passes_bytes,
        "inner step": vectors["inner step"],
    }
    if choices.keeps != "nothing":
        moments["backward of a meta sample"] = passes_bytes + vectors["meta"]
        moments["credit"] = vectors["credit"] + _going_back(sizes, choices, passes, device)
    if choices.sequences:
        per_token = sizes.num_layers * sizes.cache_width * sizes.base_itemsize
        moments["generation"] = per_token * choices.length * choices.sequences
    host = bank_bytes(sizes, choices) if choices.keeps == "rows" and choices.offload else 0
    if device == "cpu" and host:  # which is its own host
        stays["bank on the host"] = host
    return Memory(stays, moments, activations, host)


def bank_bytes(sizes: Sizes, choices: Choices) -> int:
    """Of the rows of a device's samples in all windows that the engine follows."""
    rows = choices.unroll_windows * _own(sizes.num_inner, choices)
    return rows * sizes.adapters * choices.bank_itemsize


def walked(judge: Judge, choices: Choices, device: DeviceType, padded: bool) -> Passes:
    """One layer's bytes under these choices."""
    padded = padded and choices.rows > 1
    return _walked(judge, choices.rows, choices.length, device, padded, choices.keeps == "directions")


@cache
def _walked(judge: Judge, rows: int, length: int, device: DeviceType, padded: bool, tangents: bool) -> Passes:
    return walk(judge, rows, length, device, padded=padded, tangents=tangents)


def _own(samples: int, choices: Choices) -> int:
    """Of a window's samples, on the device that has most."""
    return -(-samples // choices.devices)


def _stays(sizes: Sizes, choices: Choices, vector: int) -> dict[str, int]:
    """Vectors of P numbers and the base."""
    base = sizes.base_bytes
    if choices.sharded:
        layers = sizes.num_layers * sizes.layer_bytes
        # Two layers are whole at a time: the one in use, and the next on its way.
        base += -layers + -(-layers // choices.devices) + 2 * sizes.layer_bytes
    stays = {
        "base": base,
        "adapters": vector,
        "optimizer state": sizes.moments * vector,
        "weights and their optimizer": 4 * sizes.weights * 4,
    }
    samples = max(choices.rows // sizes.rows_per_sample, 1)  # of a micro-batch
    staging = vector if choices.bank_itemsize != sizes.adapter_itemsize else 0
    if choices.keeps == "rows":
        row = sizes.adapters * choices.bank_itemsize
        stays["rows on their way" if choices.offload else "bank"] = (
            2 * samples * row if choices.offload else bank_bytes(sizes, choices)
        )
        stays["row being written"] = staging
        stays["windows before"] = (choices.unroll_windows - 1) * (1 + sizes.moments) * vector
    elif choices.keeps == "tangents":
        stays["sums and tangents of domains"] = sizes.num_domains * (2 + sizes.moments) * vector
    else:
        stays["gradient sum"] = 2 * vector
    if choices.keeps != "nothing":
        stays["meta gradient"] = vector
    if sizes.shortens_samples:  # of inner samples without weights, of meta samples with them
        stays["rows to be shortened"] = (samples - (choices.keeps == "nothing")) * vector
    return {name: own for name, own in stays.items() if own}


def _vectors(sizes: Sizes, choices: Choices, device: DeviceType) -> dict[str, int]:
    """Vectors of P numbers that come and go with a window; counted in bilevel/ and training/module.py."""
    vector = sizes.adapters * sizes.adapter_itemsize
    goes_back = choices.keeps in ("directions", "differences")
    step = (1 + sizes.moments + goes_back) * vector  # combined gradient, moments before the step, adapters before it
    clipped = vector
    own = sizes.largest_adapter * sizes.adapter_itemsize
    # Adam by one call over all parameters (CUDA) writes its denominators down; one by one, a parameter's at a time.
    optimizer = 2 * vector if device == "cuda" else 3 * own
    halves = min(2, _own(sizes.num_meta, choices)) * vector
    window = 0 if choices.keeps == "tangents" else step
    pushed = 8 * sizes.num_domains * vector if choices.keeps == "tangents" else 0
    return {
        "inner step": step + max(clipped + optimizer, pushed),
        "meta": window + halves,
        # Halves times their shares and the sum of both; or what the engine writes down.
        "credit": window + halves + max(halves + vector, _direction(choices) * vector),
    }


def _direction(choices: Choices) -> int:
    """Vectors that an engine writes down on the way from a meta gradient to what it multiplies the rows with."""
    if choices.keeps in ("directions", "differences"):
        return 7 + (choices.keeps == "differences")
    if choices.keeps != "rows":
        return 0
    if not choices.exact:
        return 5  # J is a short formula
    if choices.unroll_windows > 1:
        return 14  # adjoints of the adapters and both moments, before and after a step, and their Jacobians
    return 12 if choices.offload else 0  # one window beside the judge: a single pass over the rows


def _activations(sizes: Sizes, choices: Choices, passes: Passes, device: DeviceType) -> dict[str, int]:
    """The moments of one forward and backward of R rows."""
    layer, norm = passes.layer, passes.norm
    kept = sizes.num_layers * (layer.output if choices.checkpointing else layer.kept)
    last = 0 if choices.checkpointing else layer.kept
    scored = min(choices.rows * choices.scored, choices.rows * choices.length)
    hidden = scored * sizes.hidden * sizes.base_itemsize
    tile = tile_bytes(sizes, scored, device)
    here = passes.shared + kept
    return {
        "forward of the last layer": here - last + layer.forward,
        "log-probabilities": here + norm.kept + norm.output + 2 * hidden + tile,
        "backward of the head": here + max(norm.backward, norm.kept + norm.output + 2 * hidden + hidden),
        # Checkpointing's forward runs beside the gradient of its output.
        "backward of the last layer": here - last + max(layer.backward, layer.forward + layer.output),
    }


def tile_bytes(sizes: Sizes, scored: int, device: DeviceType) -> int:
    """Most at once in `vocabulary_pass` beside hidden states and u: the tile of logits and what stands around it."""
    if device == "cuda":
        rows, columns = CUDA_TILE
    else:
        rows = min(CPU_ROWS, scored)
        columns = max(CPU_TILE_BYTES // (WORK * max(rows, sizes.hidden)), 64)
    rows, columns = min(rows, scored), min(columns, sizes.vocabulary)
    half = sizes.base_itemsize < WORK
    narrows = half and (device == "cuda" or multiplies_bfloat16())
    narrowed = rows * columns * 2 if narrows else 0
    widened = (columns + rows) * sizes.hidden * WORK if half and not narrows else 0
    accumulator = rows * sizes.hidden * WORK if half else 0
    targets_rows = rows * sizes.hidden * (WORK + (sizes.base_itemsize if half else 0))
    return rows * columns * WORK + narrowed + widened + accumulator + targets_rows


def _going_back(sizes: Sizes, choices: Choices, passes: Passes, device: DeviceType) -> int:
    """A sample's passes without a graph, at the adapters before the step."""
    if choices.keeps not in ("directions", "differences"):
        return 0
    scored = choices.rows * choices.scored
    hidden = scored * sizes.hidden * sizes.base_itemsize
    twice = 2 if choices.keeps == "directions" else 1
    head = twice * (passes.norm.output + hidden) + hidden + tile_bytes(sizes, scored, device)
    return passes.shared + max(passes.tangent or passes.layer.forward, head)
