"""Only reads results: metrics, baselines, peers, tables, figures.

Names are found when they are asked for: whoever only counts judgments does not load what trains a judge.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daj_lightning.evaluation.callbacks import (
        BeforeAfter as BeforeAfter,
        DrawWeights as DrawWeights,
        Scoreboard as Scoreboard,
    )
    from daj_lightning.evaluation.metrics import (
        best_of_n_scores as best_of_n_scores,
        selection_scores as selection_scores,
    )
    from daj_lightning.evaluation.pairwise import PairwiseAccuracy as PairwiseAccuracy
    from daj_lightning.evaluation.pass_at_1 import GapRecovered as GapRecovered, PassAt1 as PassAt1
    from daj_lightning.evaluation.plots import draw_weights as draw_weights
    from daj_lightning.evaluation.ranking import Ndcg as Ndcg, Transitivity as Transitivity
    from daj_lightning.evaluation.score import Score as Score, bootstrap as bootstrap

_HOME = {
    "callbacks": "BeforeAfter DrawWeights Scoreboard",
    "metrics": "best_of_n_scores selection_scores",
    "pairwise": "PairwiseAccuracy",
    "pass_at_1": "GapRecovered PassAt1",
    "plots": "draw_weights",
    "ranking": "Ndcg Transitivity",
    "score": "Score bootstrap",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
