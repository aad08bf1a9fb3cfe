"""From the judge's text to its selection, and from the selection to its reward."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence

from daj_lightning.records import Comparison, Judgment

REWARD_CORRECT = 1.0
REWARD_WRONG = 0.5
REWARD_FORMAT_ERROR = 0.0

_FINAL_TAG = re.compile(r"<selection>\s*([0-9]{1,4})\s*</selection>\s*\Z")


def selection_tag(selection: int) -> str:
    """The tag that ends a response which selects the candidate at 0-based index `selection`."""
    return f"<selection>{selection + 1}</selection>"


def parse_selection(response: str, num_candidates: int) -> int | None:
    """0-based index of the selected candidate, None for a format error.

    The tag must end the response: an answer that goes on after its selection, or that only quotes
    the tag on the way, has not followed the protocol. Of several tags the last one counts.
    """
    match = _FINAL_TAG.search(response)
    if match is None:
        return None
    index = int(match.group(1)) - 1
    return index if 0 <= index < num_candidates else None


def reward(selection: int | None, passed: Sequence[bool]) -> float:
    """The verifiable reward of one response (paper, Eq. 1): 1 correct, 0.5 wrong, 0 format error."""
    if selection is None:
        return REWARD_FORMAT_ERROR
    return REWARD_CORRECT if passed[selection] else REWARD_WRONG


def judge_response(comparison: Comparison, response: str) -> Judgment:
    selection = parse_selection(response, len(comparison.candidate_ids))
    return Judgment(comparison, response, selection, reward(selection, comparison.passed))


class Reward(ABC):
    """The seam: what a response earns in reinforcement learning, above its neighbours in the group or below."""

    @abstractmethod
    def __call__(self, judgment: Judgment) -> float:
        """A finite number."""


class SelectionReward(Reward):
    """The verifiable reward (paper, Eq. 1): 1 for a correct selection, 0.5 for a wrong one, 0 for a format error."""

    def __call__(self, judgment: Judgment) -> float:
        return judgment.reward
