"""How often the selected program passes, and how much of what selection could gain it gains.

pass@1 of a judge says as much of the candidates as of the judge. The gap recovered does not: 0 is a judge that picks at
random, 1 one that picks a right program whenever there is one; problems where all candidates agree tell nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from daj_lightning.evaluation.rows import Row, RowMetric, code, level_code
from daj_lightning.evaluation.score import LEVELS, Score, bootstrap_ratio


class PassAt1(RowMetric):
    """Mean over problems of whether (or how probably) the selected program passes, overall and by difficulty."""

    num_keys, num_values = 2, 1

    def update(self, problem_ids: Sequence[str], levels: Sequence[str], values: Sequence[float]) -> None:
        """One entry a problem; several of one problem are drawn together.

        Args:
            levels: the problems' difficulties.
            values: 1 passed, 0 failed, between them where the selection is a matter of chance.
        """
        named = zip(problem_ids, levels, values, strict=True)
        self.add(((code(name), level_code(level)), (value,)) for name, level, value in named)

    def measure(self) -> dict[str, Score]:
        """ "overall" and each difficulty that occurs."""
        return by_level(self.rows(), lambda values: (values[0], 1.0))


class GapRecovered(RowMetric):
    """(judge - random) / (oracle - random), summed over problems with right and wrong candidates; the headline."""

    num_keys, num_values = 2, 3

    def update(
        self,
        problem_ids: Sequence[str],
        levels: Sequence[str],
        judge: Sequence[float],
        random: Sequence[float],
        oracle: Sequence[float],
    ) -> None:
        """pass@1 of each problem: of the judge's selection, of a random one and of the best one."""
        named = zip(problem_ids, levels, judge, random, oracle, strict=True)
        self.add(
            ((code(name), level_code(level)), (of_judge, of_random, of_oracle))
            for name, level, of_judge, of_random, of_oracle in named
            if of_oracle > of_random
        )

    def measure(self) -> dict[str, Score]:
        """ "overall" and each difficulty that occurs among problems with mixed candidates; "overall" always."""
        return by_level(self.rows(), lambda values: (values[0] - values[1], values[2] - values[1]))


def by_level(rows: Iterable[Row], parts: Callable[[tuple[float, ...]], tuple[float, float]]) -> dict[str, Score]:
    """Ratio of two sums over the rows, all together and of each difficulty.

    Args:
        rows: keys (problem, level).
        parts: a row's values -> what it adds above and below.
    """
    sums: dict[str, dict[int, list[float]]] = {"overall": {}}
    for (problem, level), values in rows:
        above, below = parts(values)
        for name in ("overall", *LEVELS[level : level + 1] * (level >= 0)):
            entry = sums.setdefault(name, {}).setdefault(problem, [0.0, 0.0])
            entry[0] += above
            entry[1] += below
    return {
        name: bootstrap_ratio([a for a, _ in sums[name].values()], [b for _, b in sums[name].values()])
        for name in ("overall", *LEVELS)
        if name in sums
    }
