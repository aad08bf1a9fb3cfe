"""The paper's Tables 1 to 4 with ours beside them, in the rows where we have something.

A row is ours where its words stand in a judge's name: "DPO, instance net" is the row "Instance net" under "DPO",
"Skywork-o1-Open-PRM" the row "Skywork-o1 PRM". The first judge is DaJ, the baseline "random" is Random.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from daj_lightning.evaluation.document import Cell, Column, Paragraph, Row, Table, number, score_cell
from daj_lightning.evaluation.hostile import name
from daj_lightning.evaluation.paper_figures import PAPER_TABLES, ZERO_SHOT, PaperTable
from daj_lightning.evaluation.results import ByLevel, Evaluation

_Beside = tuple[str, str, ByLevel]
"""(block heading, row name, ours)"""


def paper_tables(evaluation: Evaluation) -> Sequence[Paragraph | Table]:
    """All of the paper's, whether or not we have something beside it."""
    return [Paragraph(comparability(evaluation)), *(_table(table, evaluation) for table in PAPER_TABLES)]


def comparability(evaluation: Evaluation) -> str:
    """What may be concluded from two columns that stand side by side."""
    benchmark, policy = _benchmark(evaluation), evaluation.facts.get("policy", "")
    intervals = "The paper states no intervals; ours are 95 %, in brackets."
    if benchmark is None:
        named = evaluation.facts.get("benchmark")
        ours = f"Ours is of the data set “{name(named)}”" if named else "The facts name no benchmark of ours"
        return (
            f"{ours}; the paper's figures are of LiveCodeBench and BigCodeBench. The columns stand side by side for "
            f"their shape; their numbers are not comparable. {intervals}"
        )
    by = f" with candidates by “{name(policy)}”" if policy else " with candidates of its own"
    return (
        f"Ours is of {benchmark}{by}. It is comparable with the paper's as far as problems and candidates are the "
        f"same; the paper's candidates are not public. {intervals}"
    )


def _benchmark(evaluation: Evaluation) -> str | None:
    """The paper's benchmark that the evaluation says to be of, by the fact "benchmark"."""
    named = _words(evaluation.facts.get("benchmark", ""))
    return next((table for table in ("LiveCodeBench", "BigCodeBench") if _words(table) <= named), None)


def _note(table: PaperTable, evaluation: Evaluation, measured: Sequence[str]) -> str:
    benchmark, named = _benchmark(evaluation), evaluation.facts.get("benchmark")
    if benchmark not in (None, table.benchmark):
        return f"Ours: nothing, since this evaluation is of {benchmark}."
    if not measured:
        return f"Ours: nothing. {_WANTED[table.number]}"
    if benchmark:
        return ""
    if named:
        return f"Not comparable: ours is of the data set “{name(named)}”, not of {table.benchmark}."
    return f"Not comparable: nothing says that ours is of {table.benchmark}."


def _table(table: PaperTable, evaluation: Evaluation) -> Table:
    benchmark = _benchmark(evaluation)
    beside = list(_beside(table, evaluation)) if benchmark in (None, table.benchmark) else []
    ours = {(heading, row): levels for heading, row, levels in beside}
    measured = [level for level in table.levels if any(level in levels for levels in ours.values())]
    rows: list[Row] = []
    for block in table.blocks:
        rows.append(Row(Cell(block.heading)))
        for row in block.rows:
            paper = [Cell(number(value, 1)) for value in row.values]
            levels = ours.get((block.heading, row.name), {})
            cells = [*paper, *(score_cell(levels.get(level)) for level in measured)]
            rows.append(Row(Cell(row.name), cells, strong=row.name == "DaJ"))
    in_paper = {block.heading for block in table.blocks}
    added = [entry for entry in beside if entry[0] not in in_paper]
    for heading in dict.fromkeys(entry[0] for entry in added):
        rows.append(Row(Cell(heading)))
        for where, row_name, levels in added:
            if where == heading:
                cells = [Cell()] * len(table.levels) + [score_cell(levels.get(level)) for level in measured]
                rows.append(Row(Cell(row_name), cells))
    whose = "ours, other data" if evaluation.facts.get("benchmark") and not benchmark else "ours"
    columns = [
        Column("", numeric=False),
        *(Column(level, "paper") for level in table.levels),
        *(Column(level, whose) for level in measured),
    ]
    caption = f"Table {table.number}. {table.title}. pass@1, percent{'; bold: DaJ' * (table.number < '4')}."
    return Table(caption, columns, rows, _note(table, evaluation, measured))


_WANTED = {
    **dict.fromkeys(("1", "2", "3"), "It takes a judge's answers (see the last section)."),
    **dict.fromkeys(
        ("4 (a)", "4 (b)"),
        "It takes judges whose names say objective and weights, such as “DPO, instance net” or “GRPO, none”.",
    ),
}


def _beside(table: PaperTable, evaluation: Evaluation) -> Iterator[_Beside]:
    if table.number.startswith("4"):
        yield from _ablation(table, evaluation)
        return
    judges = [judge for judge in evaluation.judges if judge.pass_at_1]
    bounds = evaluation.baselines
    policy = evaluation.facts.get("policy", "")
    of_judges = [block for block in table.blocks if block.heading != ZERO_SHOT]  # the others pick nothing
    blocks = [block for block in of_judges if table.number != "3" or _words(block.heading) == _words(policy)]
    own = f"Ours: {name(policy)}" if table.number == "3" and policy else "Ours only"
    placed = set()
    for block in blocks:
        for row in block.rows:
            if row.name == "Random" and "random" in bounds:
                placed.add("random")
                yield block.heading, row.name, bounds["random"]
            elif row.name == "DaJ" and judges:
                placed.add(judges[0].name)
                yield block.heading, row.name, judges[0].pass_at_1
            else:
                found = [judge for judge in judges[1:] if _words(row.name) <= _words(judge.name)]
                if found and found[0].name not in placed:
                    placed.add(found[0].name)
                    yield block.heading, row.name, found[0].pass_at_1
    for bound in ("random", "oracle"):
        if bound in bounds and bound not in placed:
            yield own, bound.capitalize(), bounds[bound]
    for judge in judges:
        if judge.name not in placed:
            yield own, name(judge.name), judge.pass_at_1


def _ablation(table: PaperTable, evaluation: Evaluation) -> Iterator[_Beside]:
    for block in table.blocks:
        for row in block.rows:
            weights = {"none"} if row.name == "No reweighting" else {row.name.casefold().split()[-1]}
            for judge in evaluation.judges:
                words = _words(judge.name) | ({"none"} if "no reweighting" in judge.name.casefold() else set())
                if judge.pass_at_1 and words >= _words(block.heading) | weights:
                    yield block.heading, row.name, judge.pass_at_1
                    break


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9.]+", text.casefold()))
