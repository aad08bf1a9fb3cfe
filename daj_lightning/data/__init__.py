"""Everything before a tensor: sources, preparation, pairs, batches."""

from daj_lightning.data.bigcodebench import BCB_DOMAINS, problem_from_task
from daj_lightning.data.bigcodebench_source import BigCodeBenchSource
from daj_lightning.data.comparisons import mixed_comparisons, voting_comparisons
from daj_lightning.data.datamodule import LCB_DOMAINS, JudgeData
from daj_lightning.data.dataset import PairDataset, corrupt
from daj_lightning.data.jsonl import read_jsonl
from daj_lightning.data.judged import read_judged
from daj_lightning.data.livecodebench import candidate_from_row, problem_from_row
from daj_lightning.data.pairs import preference_pairs
from daj_lightning.data.preparation import Preparation
from daj_lightning.data.prepare import check_prepared, prepare, prepare_pairs
from daj_lightning.data.responses import ResponseSource, SampledResponses, TemplatedResponses
from daj_lightning.data.sanitize import sanitize
from daj_lightning.data.schedule import BilevelLoader, SampleStream
from daj_lightning.data.sources import BankSource, LiveCodeBenchSource, Source

__all__ = [
    "BCB_DOMAINS",
    "LCB_DOMAINS",
    "BankSource",
    "BigCodeBenchSource",
    "BilevelLoader",
    "JudgeData",
    "LiveCodeBenchSource",
    "PairDataset",
    "Preparation",
    "ResponseSource",
    "SampleStream",
    "SampledResponses",
    "Source",
    "TemplatedResponses",
    "candidate_from_row",
    "check_prepared",
    "corrupt",
    "mixed_comparisons",
    "preference_pairs",
    "prepare",
    "prepare_pairs",
    "problem_from_row",
    "problem_from_task",
    "read_jsonl",
    "read_judged",
    "sanitize",
    "voting_comparisons",
]
