"""DuST: what a model can be rewarded for when it ranks its own programs.

Groups with both passes and failures are kept; the model lists the programs from most to least likely to
pass and is rewarded by the NDCG of that order. Generation itself is never rewarded. The reward feeds the
same module as any other verifiable reward.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from daj_lightning.records import DajError

_FINAL_RANKING = re.compile(r"<ranking>\s*([0-9][0-9,\s]*)</ranking>\s*\Z")


def is_mixed(passed: Sequence[bool]) -> bool:
    """Whether a group can teach ranking: some programs pass and some fail."""
    return any(passed) and not all(passed)


def parse_ranking(response: str, num_candidates: int) -> list[int] | None:
    """0-based candidates, best first, from a final `<ranking>2,1,3</ranking>`; None unless each appears once."""
    match = _FINAL_RANKING.search(response)
    if match is None:
        return None
    order = [int(word) - 1 for word in re.split(r"[,\s]+", match.group(1).strip()) if word]
    return order if sorted(order) == list(range(num_candidates)) else None


def ndcg(order: Sequence[int], passed: Sequence[bool]) -> float:
    """Normalized discounted cumulative gain of a ranking with binary relevance (Jarvelin and Kekalainen 2002).

    1 if every passing program stands before every failing one.

    Raises:
        DajError: no program passes, so that every order is equally good.
    """
    if not any(passed):
        raise DajError("NDCG needs a passing program; keep mixed groups only (is_mixed).")
    gain = sum(1 / math.log2(rank + 2) for rank, candidate in enumerate(order) if passed[candidate])
    ideal = sum(1 / math.log2(rank + 2) for rank in range(sum(passed)))
    return gain / ideal


def ranking_reward(response: str, passed: Sequence[bool]) -> float:
    """NDCG of the listed order; 0 for a format error."""
    order = parse_ranking(response, len(passed))
    return 0.0 if order is None else ndcg(order, passed)
