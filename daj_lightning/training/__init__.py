"""All state changes: the module (Algorithm 1), checkpoints, the cold start, callbacks."""

from daj_lightning.training.answer import answer
from daj_lightning.training.auditor import Auditor
from daj_lightning.training.callbacks import InfluenceRecorder, WindowCheckpoint
from daj_lightning.training.checkpoint import AtomicCheckpointIO, UnwrittenError, is_whole, last_checkpoint, last_or_new
from daj_lightning.training.checks import NonFiniteError, check_strategy
from daj_lightning.training.cold_start import ColdStart
from daj_lightning.training.failures import failure
from daj_lightning.training.levels import Level
from daj_lightning.training.measured import mean_loss, mean_reward
from daj_lightning.training.meta_validation import MetaValidation
from daj_lightning.training.module import DataReweightedJudge
from daj_lightning.training.preemption import StopRequests
from daj_lightning.training.rollouts import Rollouts
from daj_lightning.training.step import StepReport
from daj_lightning.training.strategies import ShardedBase

__all__ = [
    "AtomicCheckpointIO",
    "Auditor",
    "ColdStart",
    "DataReweightedJudge",
    "InfluenceRecorder",
    "Level",
    "MetaValidation",
    "NonFiniteError",
    "Rollouts",
    "ShardedBase",
    "StepReport",
    "StopRequests",
    "UnwrittenError",
    "WindowCheckpoint",
    "answer",
    "check_strategy",
    "failure",
    "is_whole",
    "last_checkpoint",
    "last_or_new",
    "mean_loss",
    "mean_reward",
]
