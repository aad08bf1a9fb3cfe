"""The final tag decides; everything else is a format error."""

from __future__ import annotations

import pytest

from daj_lightning.judge import parse_selection, reward, selection_tag


@pytest.mark.parametrize(
    ("response", "selection"),
    [
        ("Step 1 ... <selection>2</selection>", 1),
        ("<selection>1</selection>\n  ", 0),
        ("first <selection>1</selection>, on second thought <selection>2</selection>", 1),
        ("<selection> 2 </selection>", 1),
        ("no tag", None),
        ("<selection>3</selection>", None),
        ("<selection>0</selection>", None),
        ("<selection>one</selection>", None),
        ("<selection>1</selection> because it is right", None),
        ("<selection>1", None),
        ("", None),
    ],
)
def test_a_response_selects_what_its_last_word_says(response: str, selection: int | None) -> None:
    assert parse_selection(response, num_candidates=2) == selection


def test_the_tag_we_write_is_the_tag_we_read() -> None:
    assert [parse_selection(selection_tag(k), 5) for k in range(5)] == list(range(5))


def test_rewards_are_the_papers_equation_1() -> None:
    passed = (False, True)
    assert (reward(1, passed), reward(0, passed), reward(None, passed)) == (1.0, 0.5, 0.0)
