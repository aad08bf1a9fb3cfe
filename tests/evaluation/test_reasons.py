"""Reasons that stand in the text: each rule on the smallest file that shows it."""

from __future__ import annotations

from daj_lightning.data.preferences import Message, Preference
from daj_lightning.evaluation.reasons import reasons_in_length, reasons_in_text

WORDS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"


def rows(*texts: tuple[str, str, str]) -> list[Preference]:
    return [Preference(k, str(k), "d", *own) for k, own in enumerate(texts, start=1)]


def texts(found: list) -> list[list[str]]:
    return [[reason.text for reason in own] for own in found]


def test_the_opposite_preference_is_named_on_both_rows() -> None:
    found = reasons_in_text(rows(("q", "a", "b"), ("q", "b", "a"), ("q", "a", "c")), [])
    assert texts(found) == [
        ["row 2 has the same prompt and answers with the opposite preference"],
        ["row 1 has the same prompt and answers with the opposite preference"],
        [],
    ]


def test_copies_are_named_among_the_rows_and_in_the_meta_set() -> None:
    found = reasons_in_text(rows(("q", "a", "b"), ("q", "a", "b"), ("q", "a", "b")), rows(("q", "b", "a")))
    assert texts(found)[0] == [
        "row 2 (and 1 more) is the same",
        "meta row 1 has the same prompt and answers with the opposite preference",
    ]


def test_a_chat_and_its_text_are_the_same_prompt() -> None:
    (own,) = rows(("q", "a", "b"))
    chat = Preference(1, "1", "d", (Message("user", "q"),), "a", "b")
    assert texts(reasons_in_text([chat], [own])) == [["meta row 1 is the same"]]


def test_near_duplicates_have_a_prompt_and_answers_alike() -> None:
    """Row 2 changes a word of thirty; row 3 has the prompt of row 1 and answers of its own."""
    long = f"{WORDS} {WORDS[::-1]}"
    found = reasons_in_text(
        rows((long, f"yes {long}", "no"), (long, f"yes {long} indeed", "no"), (long, "perhaps", "never at all")), []
    )
    assert texts(found)[0] == ["near-duplicate of row 2 (similarity 0.97)"]
    assert texts(found)[1] == ["near-duplicate of row 1 (similarity 0.97)"]
    assert texts(found)[2] == []


def test_a_near_duplicate_may_have_the_opposite_preference() -> None:
    long = f"{WORDS} {WORDS[::-1]}"
    found = reasons_in_text(rows((WORDS, f"yes {long}", "no"), (WORDS, "no", f"yes {long} indeed")), [])
    assert texts(found)[0] == ["near-duplicate of row 2 with the opposite preference (similarity 0.97)"]


def test_answers_that_differ_in_white_space_alone() -> None:
    found = reasons_in_text(rows(("q", "a b", "a\n b "), ("q", "a b", "ab")), [])
    assert texts(found) == [["chosen and rejected differ in white space alone"], []]


def test_lengths_speak_when_they_are_extreme() -> None:
    assert [r.text for r in reasons_in_length(10, 2, 0, False)] == ["chosen has 10 tokens, rejected 2"]
    assert reasons_in_length(9, 2, 0, False) == []
    assert [r.text for r in reasons_in_length(4, 4, 7, True)] == [
        "among the longest 1 %: 4 and 4 tokens",
        "max_length cut 7 tokens from the middle of its answers",
    ]
