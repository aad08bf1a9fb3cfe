"""pass@1 and the gap recovered, counted by hand; tests of two judges against exact counts."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from daj_lightning.evaluation.paired_tests import mcnemar, paired_bootstrap
from daj_lightning.evaluation.pass_at_1 import GapRecovered, PassAt1
from daj_lightning.evaluation.score import Score


def test_pass_at_1_is_split_by_difficulty_and_another_difficulty_counts_overall() -> None:
    metric = PassAt1()
    metric.update(["p", "q", "r"], ["easy", "hard", "brutal"], [1.0, 0.5, 0.0])
    assert {level: (s.value, s.num_problems) for level, s in metric.scores().items()} == {
        "overall": (0.5, 3),
        "easy": (1.0, 1),
        "hard": (0.5, 1),
    }


def test_the_gap_recovered_is_a_ratio_of_sums_over_mixed_problems() -> None:
    """p: judge right where random is 1/2; q: judge wrong where random is 1/4; r and s have nothing to choose.

    ((1 - 1/2) + (0 - 1/4)) / ((1 - 1/2) + (1 - 1/4)) = 0.2
    """
    metric = GapRecovered()
    metric.update(list("pqrs"), ["easy", "hard", "easy", "easy"], [1, 0, 1, 0], [0.5, 0.25, 1, 0], [1, 1, 1, 0])
    found = metric.scores()
    assert found["overall"].value == pytest.approx(0.2)
    assert found["overall"].num_problems == 2
    assert found["easy"] == Score(1, 1, 1, 1)
    assert found["hard"].value == pytest.approx(-1 / 3)


def test_a_random_judge_recovers_nothing_and_the_oracle_all() -> None:
    for judge, wanted in (([0.5, 0.25], 0), ([1, 1], 1)):
        metric = GapRecovered()
        metric.update(["p", "q"], ["easy", "easy"], judge, [0.5, 0.25], [1, 1])
        assert metric.scores()["overall"] == Score(wanted, wanted, wanted, 2)


def test_without_a_mixed_problem_there_is_no_gap() -> None:
    metric = GapRecovered()
    metric.update(["p"], ["easy"], [1], [1], [1])
    assert metric.scores()["overall"].num_problems == 0
    assert math.isnan(metric.scores()["overall"].value)


problem = st.tuples(
    st.text(max_size=3), st.sampled_from(["easy", "medium", "hard", "x"]), st.sampled_from([0, 0.25, 1])
)


@settings(max_examples=25, deadline=None)
@given(st.lists(problem, min_size=1, max_size=10, unique_by=lambda p: p[0]), st.randoms(use_true_random=False))
def test_problems_in_any_order_and_any_pieces_give_the_same_numbers(drawn: list, rng: random.Random) -> None:
    whole, pieces, gap, gaps = PassAt1(), PassAt1(), GapRecovered(), GapRecovered()
    names, levels, values = (list(column) for column in zip(*drawn, strict=True))
    whole.update(names, levels, values)
    gap.update(names, levels, values, [0.5] * len(names), [1.0] * len(names))
    for name, level, value in rng.sample(drawn, len(drawn)):
        pieces.update([name], [level], [value])
        gaps.update([name], [level], [value], [0.5], [1.0])
    assert whole.scores() == pieces.scores()
    assert gap.scores() == gaps.scores()


@pytest.mark.parametrize(("first", "second", "wanted"), [(0, 0, 1), (1, 0, 1), (5, 0, 2 / 32), (8, 1, 20 / 512)])
def test_mcnemar_is_a_two_sided_fair_coin(first: int, second: int, wanted: float) -> None:
    """8 to 1: (1 + 9) sequences of 512 are as uneven on one side."""
    assert mcnemar(first, second) == mcnemar(second, first) == wanted


def test_mcnemar_is_exact_for_thousands() -> None:
    tail = sum(Fraction(math.comb(3000, k)) for k in range(1401)) * 2 / Fraction(2) ** 3000
    assert mcnemar(1400, 1600) == pytest.approx(float(tail), rel=1e-12)


def test_the_bootstrap_of_differences_finds_one_that_is_there_and_none_that_is_not() -> None:
    rng = np.random.default_rng(0)
    better = [[float(x)] for x in rng.choice([-1, 0, 1], p=[0.1, 0.5, 0.4], size=100)]
    alike = [[float(x)] for x in rng.choice([-1, 0, 1], p=[0.25, 0.5, 0.25], size=100)]
    score, p_value = paired_bootstrap(better)
    assert p_value is not None
    assert score.low > 0
    assert p_value < 0.01
    score, p_value = paired_bootstrap(alike)
    assert p_value is not None
    assert score.low < 0 < score.high
    assert p_value > 0.05


def test_the_bootstrap_rejects_a_true_null_as_often_as_it_says() -> None:
    """300 experiments of 60 problems without a difference: p < 0.05 in about 5 % (4 standard errors: 5 %)."""
    rng = np.random.default_rng(1)
    draws = rng.choice([-1.0, 0.0, 1.0], p=[0.25, 0.5, 0.25], size=(300, 60))
    small = [p for row in draws if (p := paired_bootstrap([[x] for x in row])[1]) is not None and p < 0.05]
    assert 0.01 <= len(small) / 300 <= 0.1


def test_judges_without_a_difference_or_a_common_problem_are_not_told_apart() -> None:
    assert paired_bootstrap([[0.0]] * 5) == (Score(0, 0, 0, 5), 1.0)
    assert paired_bootstrap([])[1] is None
