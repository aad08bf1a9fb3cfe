"""alpha and d L_meta / d alpha: reweighters, what a window keeps, and hypergradient engines."""

from daj_lightning.bilevel.directional import FiniteDifferenceEngine, JvpEngine
from daj_lightning.bilevel.flat import FlatView
from daj_lightning.bilevel.hypergradient import (
    BankEngine,
    Credit,
    HypergradientEngine,
    Setting,
    mean_credits,
    split_half_correlation,
)
from daj_lightning.bilevel.instance_net import InstanceNet
from daj_lightning.bilevel.lazy_adam import LazyAdam
from daj_lightning.bilevel.meta_average import MetaAverage
from daj_lightning.bilevel.offload import OffloadedBank, bank_dot
from daj_lightning.bilevel.per_sample import PerSampleGradients
from daj_lightning.bilevel.recompute import RecomputedLoss
from daj_lightning.bilevel.reweighting import (
    DomainWeights,
    HierarchicalWeights,
    InstanceTable,
    Reweighter,
    TrainingSet,
    Uniform,
    shares,
)
from daj_lightning.bilevel.stores import DomainSums, GradientBank, GradientStore, GradientSum, SampleRows
from daj_lightning.bilevel.trace import TraceEngine
from daj_lightning.bilevel.update import (
    AdamUpdate,
    Preconditioner,
    SgdUpdate,
    Update,
    check_optimizer,
    clipped,
    snapshot,
)
from daj_lightning.bilevel.window import Window

__all__ = [
    "AdamUpdate",
    "BankEngine",
    "Credit",
    "DomainSums",
    "DomainWeights",
    "FiniteDifferenceEngine",
    "FlatView",
    "GradientBank",
    "GradientStore",
    "GradientSum",
    "HierarchicalWeights",
    "HypergradientEngine",
    "InstanceNet",
    "InstanceTable",
    "JvpEngine",
    "LazyAdam",
    "MetaAverage",
    "OffloadedBank",
    "PerSampleGradients",
    "Preconditioner",
    "RecomputedLoss",
    "Reweighter",
    "SampleRows",
    "Setting",
    "SgdUpdate",
    "TraceEngine",
    "TrainingSet",
    "Uniform",
    "Update",
    "Window",
    "bank_dot",
    "check_optimizer",
    "clipped",
    "mean_credits",
    "shares",
    "snapshot",
    "split_half_correlation",
]
