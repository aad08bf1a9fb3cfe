"""What a run will ask of a device, before it runs: memory, work, time, and which knob to turn."""

from daj_lightning.planning.devices import DEVICES, Device, find_device
from daj_lightning.planning.layer import Passes, walk
from daj_lightning.planning.live_bytes import LiveBytes
from daj_lightning.planning.memory import Memory, memory
from daj_lightning.planning.plan import Plan, make_plan, write_plan
from daj_lightning.planning.run import Choices, Sizes, read_run
from daj_lightning.planning.tables import print_plan

__all__ = [
    "DEVICES",
    "Choices",
    "Device",
    "LiveBytes",
    "Memory",
    "Passes",
    "Plan",
    "Sizes",
    "find_device",
    "make_plan",
    "memory",
    "print_plan",
    "read_run",
    "walk",
    "write_plan",
]
