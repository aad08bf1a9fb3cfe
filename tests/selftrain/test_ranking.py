"""DuST's reward: NDCG of the listed order."""

from __future__ import annotations

import math

import pytest

from daj_lightning.records import DajError
from daj_lightning.selftrain import is_mixed, ndcg, parse_ranking, ranking_reward


def test_ndcg_is_one_iff_every_pass_stands_before_every_failure() -> None:
    passed = (False, True, True)
    assert ndcg([1, 2, 0], passed) == ndcg([2, 1, 0], passed) == 1.0
    worst = (1 / math.log2(3) + 1 / math.log2(4)) / (1 / math.log2(2) + 1 / math.log2(3))
    assert ndcg([0, 1, 2], passed) == pytest.approx(worst)


def test_only_a_permutation_of_all_candidates_is_a_ranking() -> None:
    assert parse_ranking("so <ranking>3, 1,2</ranking>", 3) == [2, 0, 1]
    for bad in ("<ranking>1,2</ranking>", "<ranking>1,1,2</ranking>", "<ranking>1,2,4</ranking>", "1,2,3"):
        assert parse_ranking(bad, 3) is None


def test_a_format_error_earns_nothing() -> None:
    assert ranking_reward("2 first", (False, True)) == 0.0
    assert ranking_reward("<ranking>2,1</ranking>", (False, True)) == 1.0


def test_only_mixed_groups_can_teach() -> None:
    assert is_mixed((True, False))
    assert not is_mixed((True, True))
    with pytest.raises(DajError, match="mixed"):
        ndcg([0, 1], (False, False))
