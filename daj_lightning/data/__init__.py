"""Everything before a tensor: sources, preparation, pairs, batches."""

from daj_lightning.data.comparisons import mixed_comparisons, voting_comparisons
from daj_lightning.data.datamodule import LCB_DOMAINS, JudgeData
from daj_lightning.data.dataset import PairDataset, corrupt
from daj_lightning.data.jsonl import read_jsonl
from daj_lightning.data.livecodebench import candidate_from_row, problem_from_row
from daj_lightning.data.pairs import preference_pairs
from daj_lightning.data.preparation import Preparation
from daj_lightning.data.prepare import check_prepared, prepare
from daj_lightning.data.responses import ResponseSource, SampledResponses, TemplatedResponses
from daj_lightning.data.schedule import BilevelLoader, SampleStream
from daj_lightning.data.sources import BankSource, LiveCodeBenchSource, Source

__all__ = [
    "LCB_DOMAINS",
    "BankSource",
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
    "problem_from_row",
    "read_jsonl",
    "voting_comparisons",
]
