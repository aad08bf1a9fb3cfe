"""alpha and d L_meta / d alpha: reweighters, the gradient bank and hypergradient engines."""

from daj_lightning.bilevel.flat import FlatView
from daj_lightning.bilevel.hypergradient import BankEngine, HypergradientEngine, split_half_correlation
from daj_lightning.bilevel.lazy_adam import LazyAdam
from daj_lightning.bilevel.reweighting import (
    DomainWeights,
    InstanceNet,
    InstanceTable,
    Reweighter,
    TrainingSet,
    Uniform,
    shares,
)
from daj_lightning.bilevel.update import AdamUpdate, Preconditioner, SgdUpdate, Update, check_optimizer, snapshot
from daj_lightning.bilevel.window import GradientBank, GradientSum, Window

__all__ = [
    "AdamUpdate",
    "BankEngine",
    "DomainWeights",
    "FlatView",
    "GradientBank",
    "GradientSum",
    "HypergradientEngine",
    "InstanceNet",
    "InstanceTable",
    "LazyAdam",
    "Preconditioner",
    "Reweighter",
    "SgdUpdate",
    "TrainingSet",
    "Uniform",
    "Update",
    "Window",
    "check_optimizer",
    "shares",
    "snapshot",
    "split_half_correlation",
]
