"""Every family of the bank."""

from daj_lightning.data.bank.families.easy_numbers import EASY_NUMBERS
from daj_lightning.data.bank.families.easy_order import EASY_ORDER
from daj_lightning.data.bank.families.hard_choice import HARD_CHOICE
from daj_lightning.data.bank.families.hard_counting import HARD_COUNTING
from daj_lightning.data.bank.families.medium_numbers import MEDIUM_NUMBERS
from daj_lightning.data.bank.families.medium_shapes import MEDIUM_SHAPES

FAMILIES_BY_NAME = {
    family.name: family
    for family in (*EASY_NUMBERS, *EASY_ORDER, *MEDIUM_NUMBERS, *MEDIUM_SHAPES, *HARD_COUNTING, *HARD_CHOICE)
}
