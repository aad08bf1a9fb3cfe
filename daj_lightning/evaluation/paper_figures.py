"""Tables 1 to 4 of the paper (arXiv 2601.22230), number by number: pass@1 in percent.

Figures 4 to 6 are not here: the paper draws them without stating their numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class PaperRow(NamedTuple):
    name: str
    values: tuple[float, ...]
    """In the order of the table's levels."""


class PaperBlock(NamedTuple):
    heading: str
    rows: Sequence[PaperRow]


class PaperTable(NamedTuple):
    number: str
    title: str
    benchmark: str
    levels: tuple[str, ...]
    blocks: Sequence[PaperBlock]


ZERO_SHOT = "Zero-shot methods"
"""Models that answer once; nobody judges their programs."""
_LEVELS = ("overall", "easy", "medium", "hard")


def _block(heading: str, *rows: tuple[str, float] | tuple[str, float, float, float, float]) -> PaperBlock:
    return PaperBlock(heading, [PaperRow(row[0], row[1:]) for row in rows])


TABLE_1 = PaperTable(
    "1",
    "Performance comparison on BigCodeBench",
    "BigCodeBench",
    ("overall",),
    [
        _block(
            ZERO_SHOT,
            ("o3-mini (medium)", 33.1),
            ("o1 (high)", 32.4),
            ("o3-mini (high)", 32.4),
            ("Claude-3.7-Sonnet", 32.4),
        ),
        _block("Test-time scaling methods", ("Skywork-o1 PRM", 35.2), ("DeepSeek GRM", 33.8), ("DaJ", 35.9)),
    ],
)

TABLE_2 = PaperTable(
    "2",
    "Performance comparison on LiveCodeBench",
    "LiveCodeBench",
    _LEVELS,
    [
        _block(
            ZERO_SHOT,
            ("o4-mini (high)", 77.1, 100.0, 89.7, 57.4),
            ("Gemini-2.5-Pro-06-05", 72.5, 100.0, 82.1, 52.5),
            ("o4-mini (medium)", 71.8, 96.8, 79.5, 54.1),
        ),
        _block(
            "Test-time scaling methods",
            ("Random", 76.0, 100.0, 89.7, 54.9),
            ("Skywork-o1 PRM", 68.7, 100.0, 84.6, 42.6),
            ("DeepSeek GRM", 83.2, 100.0, 94.9, 67.2),
            ("DaJ", 84.7, 100.0, 89.7, 73.8),
        ),
    ],
)

TABLE_3 = PaperTable(
    "3",
    "Performance comparison across policy models on LiveCodeBench",
    "LiveCodeBench",
    _LEVELS,
    [
        _block(
            "o4-mini (high)",
            ("Random", 75.8, 98.4, 80.8, 61.1),
            ("Skywork-o1 PRM", 74.1, 96.8, 82.1, 57.4),
            ("DeepSeek GRM", 75.6, 100.0, 79.5, 60.7),
            ("DaJ", 76.3, 100.0, 79.5, 62.3),
        ),
        _block(
            "DeepSeek V3.2 Speciale",
            ("Random", 76.0, 100.0, 89.7, 54.9),
            ("Skywork-o1 PRM", 68.7, 100.0, 84.6, 42.6),
            ("DeepSeek GRM", 83.2, 100.0, 94.9, 67.2),
            ("DaJ", 84.7, 100.0, 89.7, 73.8),
        ),
        _block(
            "Qwen2.5-Coder-32B",
            ("Random", 23.3, 75.4, 14.4, 2.5),
            ("Skywork-o1 PRM", 25.2, 80.7, 20.5, 0.0),
            ("DeepSeek GRM", 25.2, 77.4, 23.1, 0.0),
            ("DaJ", 25.2, 80.6, 17.9, 1.6),
        ),
        _block(
            "Average over all policy models",
            ("Random", 58.4, 91.3, 61.6, 39.5),
            ("Skywork-o1 PRM", 56.0, 92.5, 62.4, 33.3),
            ("DeepSeek GRM", 61.3, 92.5, 65.8, 42.6),
            ("DaJ", 62.1, 93.5, 62.4, 45.9),
        ),
    ],
)

TABLE_4A = PaperTable(
    "4 (a)",
    "Ablation study on training objectives and data reweighting: preference optimization",
    "LiveCodeBench",
    _LEVELS,
    [
        _block(
            "DPO",
            ("No reweighting", 81.7, 100.0, 92.3, 65.6),
            ("Domain", 83.2, 100.0, 94.9, 67.2),
            ("Instance table", 82.4, 100.0, 94.9, 65.6),
            ("Instance net", 83.2, 100.0, 92.3, 68.9),
        ),
        _block(
            "KTO",
            ("No reweighting", 83.2, 100.0, 94.9, 67.2),
            ("Domain", 83.2, 100.0, 92.3, 68.9),
            ("Instance table", 84.0, 100.0, 92.3, 70.5),
            ("Instance net", 84.0, 100.0, 94.9, 68.9),
        ),
        _block(
            "ORPO",
            ("No reweighting", 81.7, 100.0, 92.3, 65.6),
            ("Domain", 82.4, 100.0, 89.7, 68.9),
            ("Instance table", 83.2, 100.0, 89.7, 70.5),
            ("Instance net", 83.2, 100.0, 94.9, 67.2),
        ),
        _block(
            "Average over all preference optimization methods",
            ("No reweighting", 82.2, 100.0, 93.2, 66.1),
            ("Domain", 82.9, 100.0, 92.3, 68.3),
            ("Instance table", 83.2, 100.0, 92.3, 68.9),
            ("Instance net", 83.5, 100.0, 94.0, 68.3),
        ),
    ],
)

TABLE_4B = PaperTable(
    "4 (b)",
    "Ablation study on training objectives and data reweighting: reinforcement learning",
    "LiveCodeBench",
    _LEVELS,
    [_block("GRPO", ("No reweighting", 84.0, 100.0, 89.7, 72.1), ("Domain", 84.7, 100.0, 89.7, 73.8))],
)

PAPER_TABLES = (TABLE_1, TABLE_2, TABLE_3, TABLE_4A, TABLE_4B)
