"""An audit for readers: audit.md, audit.parquet, and the short of it on the screen."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from daj_lightning.data.jsonl import write_whole
from daj_lightning.evaluation.influence import LOSS_BEFORE, AuditedRow, Measured, by_domain, is_harmful, ranked

MAX_TEXT = 1500
"""Characters of a prompt or an answer that audit.md shows."""
ON_SCREEN = 5
MEANING = """\
Influence is by how much the mean loss on the meta rows would have fallen soon after, had the row weighed one unit more
in a window of training that saw it: the derivative of the meta loss by the row's weight, through the optimizer, mean
over the windows that saw the row (its looks). Positive rows help the meta set, negative rows harm it; a row near 0 says
little to it. `z` is the influence over its standard error between looks; with two or three looks it is a rough number.

It does not say that a row is right or wrong, only whether its preference agrees with what the meta rows teach; with
mistakes in the meta set it points at the wrong rows. It is the effect of a small change of one row's weight in a short
training run of this model with this learning rate, not that of leaving the row out of a long one. Rows that repeat each
other share their effect, and a row of a kind that the meta set does not hold may be good and still be near 0."""


@dataclass(frozen=True, slots=True)
class AuditFacts:
    """How the audit was made."""

    facts: Mapping[str, str]
    """Name -> value, in the order shown."""
    unusable_meta: Mapping[int, str]
    """Row of the meta file -> why it was not used."""
    num_meta: int
    """Rows of it that were used."""
    meta_loss: float
    """Mean over those, after training."""


def write_report(rows: Sequence[AuditedRow], facts: AuditFacts, data: str, output: Path, show: int) -> None:
    """audit.md and audit.parquet in `output`.

    Args:
        data: name of the file.
        show: rows shown with their text, of either end.
    """
    write_whole(output / "audit.md", markdown(rows, facts, data, show))
    beside = output / "audit.parquet.part"
    pq.write_table(pa.Table.from_pylist([_columns(row) for row in rows], _SCHEMA), beside)
    beside.replace(output / "audit.parquet")


def markdown(rows: Sequence[AuditedRow], facts: AuditFacts, data: str, show: int) -> str:
    in_order = ranked(rows)
    parts = [
        f"# Audit of {_inline(data)}",
        MEANING,
        _table(("fact", ""), [(_inline(name), _inline(value)) for name, value in facts.facts.items()]),
        "## Summary",
        "\n".join(f"- {line}" for line in summary(rows, facts)),
        "## By domain",
        _table(_DOMAIN_HEADER, _domain_rows(rows)),
        "## Reasons to look",
        "A reason is a fact about a row, with its number. Mean influence is that of the rows that have it.",
        _table(("reason", "rows", "mean influence"), _reason_rows(in_order)),
        "## Most harmful",
        *(_shown(row, len(in_order)) for row in in_order[::-1][:show]),
        "## Most helpful",
        *(_shown(row, len(in_order)) for row in in_order[:show]),
    ]
    lost = [("data", row.preference.row, row.preference.problem) for row in rows if row.measured is None]
    lost += [("meta", number, problem) for number, problem in facts.unusable_meta.items()]
    if lost:
        parts += [
            "## Rows that cannot be used",
            _table(("file", "row", "why"), [(f, r, _inline(w)) for f, r, w in lost]),
        ]
    return "\n\n".join(parts) + "\n"


def summary(rows: Sequence[AuditedRow], facts: AuditFacts) -> list[str]:
    """Sentences."""
    measured = [row.measured for row in rows if row.measured is not None]
    harmful = sum(is_harmful(m) for m in measured)
    negative = sum(m.influence < 0 for m in measured)
    losses = statistics.fmean(m.loss_after for m in measured)
    fell = "fell" if facts.meta_loss < LOSS_BEFORE else "did not fall"
    lines = [
        f"{len(rows)} rows, {len(measured)} audited, {len(rows) - len(measured)} that cannot be used; "
        f"{facts.num_meta} meta rows, {len(facts.unusable_meta)} more that cannot be used.",
        f"{negative} rows ({negative / len(measured):.1%}) have an influence below 0; for {harmful} "
        f"({harmful / len(measured):.1%}) it is so in every look and by more than two standard errors.",
        f"The meta loss {fell}: {LOSS_BEFORE:.4f} before training, {facts.meta_loss:.4f} after; the audited rows' "
        f"own {LOSS_BEFORE:.4f} and {losses:.4f}.",
    ]
    if facts.meta_loss >= LOSS_BEFORE:
        lines.append(
            "Training on these rows did not help the meta set. Either the two teach different things, or the learning "
            "rate is wrong for this model: then the ranking means little."
        )
    return lines


def print_report(rows: Sequence[AuditedRow], facts: AuditFacts, output: Path, console: Console) -> None:
    """Domains, the most harmful rows, and where the rest is."""
    for line in summary(rows, facts):
        console.print(line, highlight=False)
    table = Table(*_DOMAIN_HEADER)
    for cells in _domain_rows(rows):
        table.add_row(*map(str, cells))
    console.print(table)
    table = Table("rank", "row", "id", "domain", "influence", "z", "reason to look", title="most harmful")
    for row in ranked(rows)[::-1][:ON_SCREEN]:
        assert row.measured is not None
        own = row.preference
        first = row.reasons[0].kind if row.reasons else ""
        cells = (row.measured.rank, own.row, own.id, own.domain, *_numbers(row.measured), first)
        table.add_row(*(escape(str(cell)) for cell in cells))
    console.print(table)
    console.print(f"wrote {output / 'audit.md'} and {output / 'audit.parquet'}", highlight=False)


_DOMAIN_HEADER = ("domain", "rows", "mean influence", "below 0", "the meta set wants the opposite", "mean loss after")


def _domain_rows(rows: Sequence[AuditedRow]) -> list[tuple[object, ...]]:
    table: list[tuple[object, ...]] = []
    for domain, own in by_domain(rows).items():
        table.append(
            (
                _inline(domain),
                len(own),
                f"{statistics.fmean(m.influence for m in own):+.2e}",
                f"{sum(m.influence < 0 for m in own) / len(own):.1%}",
                sum(is_harmful(m) for m in own),
                f"{statistics.fmean(m.loss_after for m in own):.4f}",
            )
        )
    return table


def _reason_rows(rows: Sequence[AuditedRow]) -> list[tuple[object, ...]]:
    kinds: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        assert row.measured is not None
        for kind in {reason.kind for reason in row.reasons}:
            kinds[kind].append(row.measured.influence)
    kinds_in_order = sorted(kinds.items(), key=lambda item: (statistics.fmean(item[1]), item[0]))
    without = [row.measured.influence for row in rows if row.measured is not None and not row.reasons]
    table: list[tuple[object, ...]] = [(k, len(own), f"{statistics.fmean(own):+.2e}") for k, own in kinds_in_order]
    return [*table, ("none", len(without), f"{statistics.fmean(without):+.2e}" if without else "")]


def _numbers(measured: Measured) -> tuple[str, str]:
    return f"{measured.influence:+.2e}", "" if measured.z is None else f"{measured.z:+.1f}"


def _shown(row: AuditedRow, number: int) -> str:
    own, m = row.preference, row.measured
    assert m is not None
    influence, z = _numbers(m)
    error = "one look" if m.standard_error is None else f"± {m.standard_error:.1e}, z = {z}"
    facts = [
        f"influence {influence} ({error}; below 0 in {m.num_harmful} of {m.num_looks} looks), cosine to the meta "
        f"gradient {m.cosine:+.3f}",
        f"loss {LOSS_BEFORE:.3f} before, {m.loss_after:.3f} after; margin {m.margin:+.3f} after; the base prefers "
        f"{'chosen' if m.base_margin > 0 else 'rejected'} by {abs(m.base_margin):.2f} nats",
        *(f"**{_inline(reason.text)}**" for reason in row.reasons),
    ]
    texts = [("prompt", own.prompt_text), ("chosen", own.chosen), ("rejected", own.rejected)]
    parts = [
        f"### Rank {m.rank} of {number}: row {own.row}, id {_inline(own.id)}, domain {_inline(own.domain)}",
        "\n".join(f"- {fact}" for fact in facts),
        *(f"{name}:\n\n{fenced(shortened(text))}" for name, text in texts),
    ]
    return "\n\n".join(parts)


def shortened(text: str, length: int = MAX_TEXT) -> str:
    """The beginning and the end of a long text, and how much is left out between them."""
    if len(text) <= length:
        return text
    head, tail = text[: length // 2], text[len(text) - length // 2 :]
    return f"{head}\n[... {len(text) - len(head) - len(tail):,} characters left out ...]\n{tail}"


def fenced(text: str) -> str:
    """A Markdown code block that nothing in the text can end."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _inline(text: str) -> str:
    """One line of plain text inside Markdown: nothing in it is mark-up."""
    line = " ".join(text.split())
    for letter in "\\`*_{}[]<>#|":
        line = line.replace(letter, "\\" + letter)
    return line


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def _columns(row: AuditedRow) -> dict[str, object]:
    own, m = row.preference, row.measured
    columns: dict[str, object] = {
        "row": own.row,
        "id": own.id,
        "domain": own.domain,
        "prompt": own.prompt_text,
        "chosen": own.chosen,
        "rejected": own.rejected,
        "problem": own.problem or None,
        "reasons": [reason.text for reason in row.reasons],
    }
    if m is None:
        return columns
    names = [name for name in _SCHEMA.names if hasattr(m, name)]
    return columns | {
        **{name: getattr(m, name) for name in names},
        "loss_before": LOSS_BEFORE,
        "prompt_tokens": row.prompt_tokens,
        "chosen_tokens": row.chosen_tokens,
        "rejected_tokens": row.rejected_tokens,
        "cut_tokens": row.cut,
    }


_SCHEMA = pa.schema(
    [
        ("rank", pa.int64()),
        ("row", pa.int64()),
        ("id", pa.string()),
        ("domain", pa.string()),
        ("influence", pa.float64()),
        ("standard_error", pa.float64()),
        ("z", pa.float64()),
        ("num_looks", pa.int64()),
        ("num_harmful", pa.int64()),
        ("cosine", pa.float64()),
        ("loss_before", pa.float64()),
        ("loss_after", pa.float64()),
        ("margin", pa.float64()),
        ("base_margin", pa.float64()),
        ("opposed", pa.int64()),
        ("opposed_influence", pa.float64()),
        ("prompt_tokens", pa.int64()),
        ("chosen_tokens", pa.int64()),
        ("rejected_tokens", pa.int64()),
        ("cut_tokens", pa.int64()),
        ("reasons", pa.list_(pa.string())),
        ("problem", pa.string()),
        ("prompt", pa.string()),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
    ]
)
"""One row for each row of the file, in its order; null where a row cannot be used."""
