"""DuST, the second paper: a model learns from ranking its own programs."""

from daj_lightning.selftrain.ranking import is_mixed, ndcg, parse_ranking, ranking_reward

__all__ = ["is_mixed", "ndcg", "parse_ranking", "ranking_reward"]
