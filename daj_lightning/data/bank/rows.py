"""The bank's problems as LiveCodeBench rows.

Each turn takes one row of every family, on the other platform than the turn before. The instances of a
family all differ, so none of one period is met again in another. Five turns take a family through the
periods train, meta, train, test, train: 60, 20 and 20 %; ten do so on each platform. Rows of unseen
families are all of the test period.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from random import Random
from typing import Any

from daj_lightning.data.bank.family import Args, Family, Params
from daj_lightning.data.bank.platforms import PLATFORMS, encode_input, encode_output, starter_code, statement
from daj_lightning.records import DajError

NUM_PUBLIC_TESTS = 2
NUM_HIDDEN_TESTS = 14

# The paper's splits (section 5.1), with a few days of distance to every boundary.
_PERIODS = {
    "train": (date(2023, 5, 4), date(2024, 7, 28)),
    "meta": (date(2024, 8, 4), date(2025, 1, 28)),
    "test": (date(2025, 2, 4), date(2025, 4, 27)),
}
_PERIOD_OF_TURN = ("train", "meta", "train", "test", "train")


def make_rows(
    families: Sequence[Family], num_problems: int, seed: int, *, unseen: bool = False
) -> list[dict[str, str]]:
    """`num_problems` rows, spread evenly over families and platforms; depends only on its arguments.

    Args:
        unseen: all rows are of the test period, and their metadata say that training has no such family.
    Raises:
        DajError: a family has fewer different instances than that asks for.
    """
    instances = {family.name: _shuffled_instances(family, seed) for family in families}
    rows = []
    for number in range(num_problems):
        turn, place = divmod(number, len(families))
        family = families[place]
        if turn >= len(instances[family.name]):
            raise DajError(
                f"family {family.name!r} has {turn} different problems; {num_problems} over {len(families)} "
                f"families need more. Ask for {turn * len(families)} or fewer."
            )
        platform = PLATFORMS[(turn + place) % len(PLATFORMS)]
        period = "test" if unseen else _PERIOD_OF_TURN[(turn + place) % len(_PERIOD_OF_TURN)]
        entry = {"family": family.name, "parameters": dict(instances[family.name][turn])}
        rows.append(_row(family, platform, {**entry, "unseen": True} if unseen else entry, turn, period, seed))
    return rows


def _shuffled_instances(family: Family, seed: int) -> list[Params]:
    instances = family.instances()
    Random(f"{family.name}/{seed}").shuffle(instances)
    return instances


def _row(family: Family, platform: str, entry: dict[str, Any], turn: int, period: str, seed: int) -> dict[str, str]:
    params: Params = entry["parameters"]
    name = f"{family.name}-{turn:03d}-{platform[0]}"
    rng = Random(f"{name}/{seed}")
    first, last = _PERIODS[period]
    day = first + timedelta(days=rng.randint(0, (last - first).days))
    inputs = _inputs(family, params, rng)
    metadata: dict[str, object] = {"bank": entry}
    if platform == "leetcode":
        metadata["func_name"] = family.method
    return {
        "question_title": family.title,
        "question_content": statement(family, params, platform),
        "platform": platform,
        "question_id": name,
        "contest_id": f"bank-{day:%Y-%m}",
        "contest_date": f"{day.isoformat()}T00:00:00",
        "starter_code": starter_code(family, platform),
        "difficulty": family.difficulty,
        "public_test_cases": _tests(family, params, platform, inputs[:NUM_PUBLIC_TESTS]),
        "private_test_cases": _tests(family, params, platform, inputs[NUM_PUBLIC_TESTS:]),
        "metadata": json.dumps(metadata),
    }


def _inputs(family: Family, params: Params, rng: Random) -> list[Args]:
    """Two small public inputs, then hidden ones: the edges, then larger and larger draws; no two alike."""
    inputs: list[Args] = []

    def draw_until(count: int, sizes: Sequence[int]) -> None:
        for attempt in range(200):
            if len(inputs) >= count:
                return
            drawn = family.draw(params, rng, sizes[attempt % len(sizes)])
            if drawn not in inputs:
                inputs.append(drawn)

    draw_until(NUM_PUBLIC_TESTS, (2, 3))
    for edge in family.edges(params):
        if edge not in inputs:
            inputs.append(edge)
    draw_until(NUM_PUBLIC_TESTS + NUM_HIDDEN_TESTS, (4, 6, 7, 8, 9, 10))
    return inputs


def _tests(family: Family, params: Params, platform: str, inputs: Sequence[Args]) -> str:
    testtype = "stdin" if platform == "atcoder" else "functional"
    tests: list[Mapping[str, str]] = [
        {
            "input": encode_input(family, args, platform),
            "output": encode_output(family, family.solve(params, *args), platform),
            "testtype": testtype,
        }
        for args in inputs
    ]
    return json.dumps(tests)
