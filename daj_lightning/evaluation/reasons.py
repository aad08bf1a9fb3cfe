"""Why a row of a preference file deserves a look: what can be read off its text, without any model.

A reason is a fact about the row, with its number; it does not say that the row is wrong.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from typing import NamedTuple

from daj_lightning.data.duplicates import similar_sets, word_grams
from daj_lightning.data.preferences import Preference

NEAR = 0.9
"""Similarity from which on two texts are nearly the same: what they share of their word 3-grams."""
UNEVEN = 5
"""Times as long as the other answer."""


class Reason(NamedTuple):
    """One fact about a row."""

    kind: str
    """The same for all rows that have it."""
    text: str
    """With this row's own numbers."""


def reasons_in_text(rows: Sequence[Preference], meta: Sequence[Preference]) -> list[list[Reason]]:
    """Of every row, in order."""
    found: list[list[Reason]] = [[] for _ in rows]
    for other, name in ((rows, "row"), (meta, "meta row")):
        same, opposite = _index(other), _index(other, turned=True)
        for k, row in enumerate(rows):
            key = _key(row)
            twins = [o.row for o in opposite.get(key, ())]
            if twins:
                found[k].append(
                    Reason(
                        f"a {name} has the opposite preference",
                        f"{name} {_listed(twins)} has the same prompt and answers with the opposite preference",
                    )
                )
            copies = [o.row for o in same.get(key, ()) if o is not row]
            if copies:
                found[k].append(Reason(f"a {name} is the same", f"{name} {_listed(copies)} is the same"))
    for k, reason in _near_duplicates(rows).items():
        found[k].append(reason)
    for k, row in enumerate(rows):
        if row.chosen.split() == row.rejected.split():
            text = "chosen and rejected differ in white space alone"
            found[k].append(Reason(text, text))
    return found


def _key(row: Preference, turned: bool = False) -> tuple[str, str, str]:
    first, second = (row.rejected, row.chosen) if turned else (row.chosen, row.rejected)
    return row.prompt_text, first, second


def _index(rows: Sequence[Preference], turned: bool = False) -> Mapping[tuple[str, str, str], Sequence[Preference]]:
    index: dict[tuple[str, str, str], list[Preference]] = {}
    for row in rows:
        index.setdefault(_key(row, turned), []).append(row)
    return index


def _listed(numbers: Sequence[int]) -> str:
    more = f" (and {len(numbers) - 1} more)" if len(numbers) > 1 else ""
    return f"{numbers[0]}{more}"


def _near_duplicates(rows: Sequence[Preference]) -> dict[int, Reason]:
    """Index of a row -> the row that it repeats most closely, if not to the letter.

    Prompts must be alike, and answers too, each for itself: rows of one prompt have a right to answers of their own.
    """
    numbers: dict[tuple[str, ...], int] = {}  # of each gram, so that sets of many rows are small
    prompts = [_numbered(word_grams(row.prompt_text), numbers) for row in rows]
    answers = [_numbered(word_grams(row.chosen) | word_grams(row.rejected), numbers) for row in rows]
    # Of two parts that share no number: where both are alike, so are the wholes.
    wholes = {k: {2 * g for g in prompts[k]} | {2 * g + 1 for g in answers[k]} for k in range(len(rows))}
    best: dict[int, tuple[float, int]] = {}
    for a, b, _ in similar_sets(wholes, NEAR):
        score = min(_similarity(prompts[a], prompts[b]), _similarity(answers[a], answers[b]))
        equal = _key(rows[a]) in (_key(rows[b]), _key(rows[b], turned=True))
        if score >= NEAR and not equal:
            for one, other in ((a, b), (b, a)):
                best[one] = max(best.get(one, (0.0, -1)), (score, other))
    found = {}
    for k, (score, other) in best.items():
        turned = _is_turned(rows[k], rows[other])
        kind = "near-duplicate of a row" + (" with the opposite preference" if turned else "")
        text = f"near-duplicate of row {rows[other].row}{' with the opposite preference' if turned else ''}"
        found[k] = Reason(kind, f"{text} (similarity {score:.2f})")
    return found


def _is_turned(a: Preference, b: Preference) -> bool:
    """One's chosen answer is more like the other's rejected one."""
    chosen, rejected = (word_grams(text) for text in (a.chosen, a.rejected))
    along = _similarity(chosen, word_grams(b.chosen)) + _similarity(rejected, word_grams(b.rejected))
    across = _similarity(chosen, word_grams(b.rejected)) + _similarity(rejected, word_grams(b.chosen))
    return across > along


def _numbered(grams: Iterable[tuple[str, ...]], numbers: dict[tuple[str, ...], int]) -> set[int]:
    """Every gram's number in `numbers`, which takes in new ones."""
    return {numbers.setdefault(gram, len(numbers)) for gram in grams}


def _similarity(a: Set[Hashable], b: Set[Hashable]) -> float:
    return len(a & b) / len(a | b)


def reasons_in_length(chosen: int, rejected: int, cut: int, longest: bool) -> list[Reason]:
    """Of one row.

    Args:
        chosen, rejected: tokens of the answers.
        cut: tokens of both together that the length limit took.
        longest: the row is among the longest hundredth.
    """
    found = []
    if max(chosen, rejected) >= UNEVEN * min(chosen, rejected):
        longer = "chosen" if chosen > rejected else "rejected"
        found.append(
            Reason(
                f"the {longer} answer is {UNEVEN} times as long as the other, or longer",
                f"chosen has {chosen} tokens, rejected {rejected}",
            )
        )
    if longest:
        found.append(Reason("among the longest 1 %", f"among the longest 1 %: {chosen} and {rejected} tokens"))
    if cut:
        found.append(Reason("cut to max_length", f"max_length cut {cut} tokens from the middle of its answers"))
    return found
