"""Every family of the bank: ten shared and two unseen ones of each difficulty."""

from __future__ import annotations

from daj_lightning.data.bank.families.easy_divisors import EASY_DIVISORS
from daj_lightning.data.bank.families.easy_numbers import EASY_NUMBERS
from daj_lightning.data.bank.families.easy_order import EASY_ORDER
from daj_lightning.data.bank.families.easy_strings import EASY_STRINGS
from daj_lightning.data.bank.families.hard_choice import HARD_CHOICE
from daj_lightning.data.bank.families.hard_costs import HARD_COSTS
from daj_lightning.data.bank.families.hard_pieces import HARD_PIECES
from daj_lightning.data.bank.families.hard_ways import HARD_WAYS
from daj_lightning.data.bank.families.medium_counts import MEDIUM_COUNTS
from daj_lightning.data.bank.families.medium_reach import MEDIUM_REACH
from daj_lightning.data.bank.families.medium_shapes import MEDIUM_SHAPES
from daj_lightning.data.bank.families.medium_sums import MEDIUM_SUMS
from daj_lightning.data.bank.families.unseen_easy import UNSEEN_EASY
from daj_lightning.data.bank.families.unseen_hard import UNSEEN_HARD
from daj_lightning.data.bank.families.unseen_medium import UNSEEN_MEDIUM
from daj_lightning.data.bank.family import Family

FAMILIES_BY_NAME: dict[str, Family] = {
    family.name: family
    for family in (
        *EASY_NUMBERS,
        *EASY_ORDER,
        *EASY_STRINGS,
        *EASY_DIVISORS,
        *MEDIUM_SUMS,
        *MEDIUM_COUNTS,
        *MEDIUM_SHAPES,
        *MEDIUM_REACH,
        *HARD_WAYS,
        *HARD_COSTS,
        *HARD_CHOICE,
        *HARD_PIECES,
    )
}
"""The shared families: train, meta and test periods have problems of each."""

UNSEEN_BY_NAME: dict[str, Family] = {family.name: family for family in (*UNSEEN_EASY, *UNSEEN_MEDIUM, *UNSEEN_HARD)}
"""Other tasks, which only the test period has."""
