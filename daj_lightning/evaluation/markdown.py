"""A document as Markdown: the page's text, tables and, in place of figures, their numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from daj_lightning.evaluation.document import (
    Block,
    Document,
    Facts,
    Failures,
    Figure,
    Headline,
    Paragraph,
    Sample,
    Samples,
    Section,
    Table,
)
from daj_lightning.evaluation.hostile import Line, Quote, visible


def as_markdown(document: Document) -> str:
    """GitHub's dialect; texts from outside stand in fences or are escaped."""
    parts = [f"# {_inline(document.title)}"]
    for section in document.sections:
        parts += _section(section)
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(section: Section) -> Iterator[str]:
    yield f"## {_inline(section.title)}"
    for block in section.blocks:
        yield from _block(block)


def _block(block: Block) -> Iterator[str]:
    match block:
        case Paragraph():
            yield _inline(block.text)
        case Headline():
            yield f"**{_inline(block.number)}** oracle gap recovered. {_inline(block.interval)}."
            yield _inline(block.sentence)
        case Facts():
            yield "\n".join(
                f"- {_inline(key)}: {_inline(value.text)} {value.note}".rstrip() for key, value in block.entries.items()
            )
        case Table():
            yield from _table(block)
        case Figure():
            yield f"*{_inline(block.caption)}* {_inline(block.alt)}"
            if block.numbers is not None:
                yield from _table(block.numbers)
        case Samples():
            yield f"### {_inline(block.title)}"
            for sample in block.entries:
                yield from _sample(sample)
        case Failures():
            for failure in block.entries:
                yield f"### {_inline(failure.name)}"
                yield _inline(failure.summary)
                yield from _quote("Problem", failure.statement)
                for program in failure.programs:
                    verdict = "passes all tests" if program.passed else "fails a test"
                    choice = ", the judge's choice" if program.selected else ""
                    yield from _quote(f"{program.name}: {verdict}{choice}", program.code, "python")
                yield from _quote("The judge's reasoning", failure.response)


def _table(table: Table) -> Iterator[str]:
    yield f"**{_inline(table.caption)}**"
    heads = [
        " ".join(part for part in (c.group, c.name, f"({c.detail})" if c.detail else "") if part) for c in table.columns
    ]
    lines = [_line(heads), "|" + "|".join("---:" if column.numeric else "---" for column in table.columns) + "|"]
    for row in table.rows:
        label = _inline(str(row.label))
        if not row.cells:
            lines.append(f"| *{label}* |" + " |" * (len(table.columns) - 1))
        else:
            cells = [_inline(str(cell)) for cell in row.cells]
            bold = [f"**{cell}**" if row.strong and cell else cell for cell in (label, *cells)]
            lines.append("| " + " | ".join(bold) + " |")
    yield "\n".join(lines)
    yield _inline(table.note)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(_inline(cell) for cell in cells) + " |"


def _sample(sample: Sample) -> Iterator[str]:
    yield f"#### {_inline(sample.name)}"
    yield _inline(f"{sample.summary}. {sample.note}".rstrip())
    if sample.chosen.text:
        yield from _compared("Chosen response", sample.chosen_lines, sample.chosen, "+")
    if sample.rejected.text:
        yield from _compared("Rejected response", sample.rejected_lines, sample.rejected, "-")
    yield from _quote("Prompt", sample.prompt)


def _compared(title: str, lines: Sequence[Line], whole: Quote, sign: str) -> Iterator[str]:
    text = "\n".join(f"{sign if line.marked else ' '} {line.text}" for line in lines)
    yield from _quote(title, Quote(text, whole.left_out), "diff")


def _quote(title: str, quote: Quote, language: str = "") -> Iterator[str]:
    text = visible(quote.text)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    yield f"{_inline(title)}:"
    yield f"{fence}{language}\n{text}\n{fence}"
    yield quote.note


def _inline(text: str) -> str:
    """On one line, and nothing of it Markdown or HTML; brackets of intervals stay as they are."""
    text = " ".join(visible(text).split())
    text = re.sub(r"[\\`*|~$]|\](?=[(\[:])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"^([#+-]|\d+[.)])(?=\s)", r"\\\1", text)
