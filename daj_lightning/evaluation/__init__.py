"""Only reads results: metrics, baselines, tables, figures."""

from daj_lightning.evaluation.callbacks import BeforeAfter, DrawWeights, Scoreboard
from daj_lightning.evaluation.metrics import Score, best_of_n_scores, bootstrap, selection_scores
from daj_lightning.evaluation.plots import draw_weights

__all__ = [
    "BeforeAfter",
    "DrawWeights",
    "Score",
    "Scoreboard",
    "best_of_n_scores",
    "bootstrap",
    "draw_weights",
    "selection_scores",
]
