"""Every family of the bank, eight of each difficulty."""

from __future__ import annotations

from daj_lightning.data.bank.families.easy_numbers import EASY_NUMBERS
from daj_lightning.data.bank.families.easy_order import EASY_ORDER
from daj_lightning.data.bank.families.easy_strings import EASY_STRINGS
from daj_lightning.data.bank.families.hard_choice import HARD_CHOICE
from daj_lightning.data.bank.families.hard_costs import HARD_COSTS
from daj_lightning.data.bank.families.hard_ways import HARD_WAYS
from daj_lightning.data.bank.families.medium_counts import MEDIUM_COUNTS
from daj_lightning.data.bank.families.medium_shapes import MEDIUM_SHAPES
from daj_lightning.data.bank.families.medium_sums import MEDIUM_SUMS
from daj_lightning.data.bank.family import Family

FAMILIES_BY_NAME: dict[str, Family] = {
    family.name: family
    for family in (
        *EASY_NUMBERS,
        *EASY_ORDER,
        *EASY_STRINGS,
        *MEDIUM_SUMS,
        *MEDIUM_COUNTS,
        *MEDIUM_SHAPES,
        *HARD_WAYS,
        *HARD_COSTS,
        *HARD_CHOICE,
    )
}
