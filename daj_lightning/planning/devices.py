"""What a device can do, from its vendor's data sheet, and what a plan assumes besides.

Rates are peaks of dense bfloat16 products; nothing reaches them. The assumptions below have names so that a plan can
say them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from daj_lightning.planning.layer import DeviceType
from daj_lightning.records import DajError

GIB = 2**30
UTILISATION = 0.4
"""Share of the peak rate that training reaches; a guess that `--utilisation` replaces once a run has been timed."""
OUTSIDE_GIB = 1.0
"""Of a device's memory, what no tensor gets: the CUDA context, or on a CPU the process, libraries and workspaces."""
FRAGMENTATION = 0.05
"""Of the bytes alive, what the allocator needs besides to place them."""
HOST_GB_S = 20.0
"""Between page-locked host memory and a GPU, one way: PCIe 4.0 x16, of 32 on paper."""


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator, or the CPU."""

    name: str
    kind: DeviceType
    gib: float
    """Of memory."""
    tflops: float
    """Peak rate of dense bfloat16 products, 1e12 operations a second."""
    gb_s: float
    """Memory bandwidth, 1e9 bytes a second."""
    link_gb_s: float
    """To other devices of the node, 1e9 bytes a second one way."""

    def usable_bytes(self, reserved: float = 0.0) -> int:
        """For tensors alive at once, where others have reserved a share of the memory."""
        return int((self.gib * (1 - reserved) - OUTSIDE_GIB) * GIB / (1 + FRAGMENTATION))


# NVIDIA's data sheets: A100 (2021), H100 (2023), H200 (2024), L40S (2023), RTX 4090 (Ada whitepaper, 2022: tensor
# rate with float32 accumulation). NVLink: half of the two-way figure; PCIe 4.0 x16 where there is none.
DEVICES = {
    device.name: device
    for device in (
        Device("a100-40gb", "cuda", 40, 312, 1555, 300),
        Device("a100-80gb", "cuda", 80, 312, 2039, 300),
        Device("h100", "cuda", 80, 989, 3350, 450),
        Device("h200", "cuda", 141, 989, 4800, 450),
        Device("l40s", "cuda", 48, 362, 864, 32),
        Device("rtx4090", "cuda", 24, 165, 1008, 32),
        Device("cpu", "cpu", 16, 0.1, 20, 1),
    )
}


def find_device(name: str, gib: float | None = None) -> Device:
    """The device of a name, its memory replaced where `gib` is given; "cpu-64gb" is a CPU with 64 GiB.

    Raises:
        DajError: an unknown name, or memory that is no positive number.
    """
    cpu = re.fullmatch(r"cpu-(\d+)gb", name)
    device = replace(DEVICES["cpu"], name=name, gib=float(cpu[1])) if cpu else DEVICES.get(name)
    if device is None:
        raise DajError(f"no device {name!r}; there are {', '.join(DEVICES)} and cpu-Ngb. Add --gib for other memory.")
    if gib is not None:
        device = replace(device, gib=gib)
    if not device.gib > OUTSIDE_GIB:
        raise DajError(f"a device of {device.gib:g} GiB leaves nothing to plan with; it must have more than 1.")
    return device
