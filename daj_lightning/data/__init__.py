"""Everything before a tensor: sources, preparation, pairs, batches.

Names are found when they are asked for: whoever only reads rows does not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daj_lightning.data.bigcodebench import BCB_DOMAINS as BCB_DOMAINS, problem_from_task as problem_from_task
    from daj_lightning.data.bigcodebench_source import BigCodeBenchSource as BigCodeBenchSource
    from daj_lightning.data.comparisons import (
        mixed_comparisons as mixed_comparisons,
        voting_comparisons as voting_comparisons,
    )
    from daj_lightning.data.datamodule import LCB_DOMAINS as LCB_DOMAINS, JudgeData as JudgeData
    from daj_lightning.data.dataset import PairDataset as PairDataset, corrupt as corrupt
    from daj_lightning.data.jsonl import read_jsonl as read_jsonl
    from daj_lightning.data.judged import read_judged as read_judged
    from daj_lightning.data.largest import LargestNumberSource as LargestNumberSource
    from daj_lightning.data.livecodebench import (
        candidate_from_row as candidate_from_row,
        problem_from_row as problem_from_row,
    )
    from daj_lightning.data.pairs import preference_pairs as preference_pairs
    from daj_lightning.data.preparation import Preparation as Preparation
    from daj_lightning.data.prepare import check_prepared as check_prepared, prepare_pairs as prepare_pairs
    from daj_lightning.data.prompts import PromptDataset as PromptDataset
    from daj_lightning.data.responses import (
        NoResponses as NoResponses,
        ResponseSource as ResponseSource,
        SampledResponses as SampledResponses,
        TemplatedResponses as TemplatedResponses,
    )
    from daj_lightning.data.schedule import BilevelLoader as BilevelLoader, SampleStream as SampleStream
    from daj_lightning.data.sources import (
        BankSource as BankSource,
        LiveCodeBenchSource as LiveCodeBenchSource,
        Source as Source,
    )
    from daj_lightning.data.windows import BilevelData as BilevelData

_HOME = {
    "bigcodebench": "BCB_DOMAINS problem_from_task",
    "bigcodebench_source": "BigCodeBenchSource",
    "comparisons": "mixed_comparisons voting_comparisons",
    "datamodule": "JudgeData LCB_DOMAINS",
    "dataset": "PairDataset corrupt",
    "jsonl": "read_jsonl",
    "judged": "read_judged",
    "largest": "LargestNumberSource",
    "livecodebench": "candidate_from_row problem_from_row",
    "pairs": "preference_pairs",
    "preparation": "Preparation",
    "prepare": "check_prepared prepare_pairs",
    "prompts": "PromptDataset",
    "responses": "NoResponses ResponseSource SampledResponses TemplatedResponses",
    "schedule": "BilevelLoader SampleStream",
    "sources": "BankSource LiveCodeBenchSource Source",
    "windows": "BilevelData",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
