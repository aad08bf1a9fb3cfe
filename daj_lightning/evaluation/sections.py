"""From an evaluation to the sections of its report. What was not measured has no section, but a line at the end."""

from __future__ import annotations

import math

from daj_lightning.evaluation.charts import DotChart
from daj_lightning.evaluation.document import (
    Block,
    Cell,
    Column,
    Document,
    Facts,
    Figure,
    Headline,
    Paragraph,
    Row,
    Section,
    Table,
    counted,
    interval,
    number,
    percent,
    score_cell,
    score_table,
)
from daj_lightning.evaluation.figure_sections import candidates, curves, score_point, weights
from daj_lightning.evaluation.galleries import failure_gallery, training_samples
from daj_lightning.evaluation.hostile import name, quote
from daj_lightning.evaluation.metrics import Score
from daj_lightning.evaluation.paper_comparison import paper_tables
from daj_lightning.evaluation.results import Evaluation

METRICS = {
    "single order": "right program chosen, each answer counted alone",
    "first order": "of answers with the one program first",
    "second order": "of answers with the other first",
    "both correct": "right program chosen in both orders",
    "consistency": "same answer in both orders; a coin: 50",
    "consistent and valid": "same program chosen in both orders",
    "JudgeBench official": "right in one order, not wrong in the other",
    "ties counted half": "as single order, a tie is half right",
    "first position": "answers that name the first program; unbiased: 50",
    "null rate": "answers that name no program",
    "transitivity": "triples of programs without a cycle",
    "NDCG": "of the order by votes, 0 to 1",
}
"""What each pairwise metric counts, in the order of the table."""

BASELINES = {
    "random": "mean over candidates",
    "oracle": "a right candidate wherever there is one",
    "first": "the candidate drawn first",
    "longest": "most characters",
    "shortest": "fewest characters",
    "more layout": "most white space and comments",
    "stronger policy": "the policy that passes more often elsewhere",
    "clustering by output": "the largest group that prints the same",
}

MISSING = {
    "judges": "Headline, and ours in the paper's tables: a judge's answers about candidates (--judgments or --scores)",
    "rules": "The judge beside simple rules: candidates and verdicts (--data; or --problems, --candidates, --verdicts)",
    "clustering": "Clustering by output, among the rules: --execute",
    "pairwise": "Pairwise metrics: a judge's answers about a right and a wrong program (--judgments or --pairs)",
    "tests": "Judge against judge: a second judge (--judgments, --scores or --pairs with another NAME=FILE)",
    "curves": "Accuracy against comparisons: a judge asked about several pairs of a problem's candidates (--judgments)",
    "candidates": "Number of candidates, the paper's Figure 4: candidates, verdicts (--data) and a judge's answers",
    "weights": "Weights over training, the paper's Figures 5 and 6: --influence, the influence.parquet of a run",
    "samples": "Most helpful and most harmful training samples: --influence of a run that credits single samples",
    "failures": "Failure gallery: --judgments or --pairs with a wrong answer among them",
}
"""What would fill a section that is not there, by options of `evaluate`."""


def compose(evaluation: Evaluation) -> Document:
    """All sections that have something to show."""
    sections = [headline(evaluation), facts(evaluation)]
    sections.append(Section("paper", "The paper's tables, and ours", paper_tables(evaluation)))
    missing = [] if any(judge.pass_at_1 for judge in evaluation.judges) else ["judges"]
    if "clustering by output" not in evaluation.baselines:
        missing.append("clustering")
    for key, present, write in (
        ("rules", bool(evaluation.baselines), rules),
        ("pairwise", any(judge.pairwise for judge in evaluation.judges), pairwise),
        ("tests", bool(evaluation.tests), paired_tests),
        ("curves", any(judge.curve for judge in evaluation.judges), curves),
        ("candidates", bool(evaluation.by_num_candidates), candidates),
        ("weights", evaluation.weights is not None and len(evaluation.weights.windows) > 0, weights),
        ("samples", bool(evaluation.helpful or evaluation.harmful), training_samples),
        ("failures", bool(evaluation.failures), failure_gallery),
    ):
        if present:
            sections.append(write(evaluation))
        else:
            missing.append(key)
    if missing:
        lines = [Paragraph(f"{line}.") for key, line in MISSING.items() if key in missing]
        sections.append(Section("missing", "What would fill the rest", lines))
    return Document(name(evaluation.title, 200) or "Evaluation", sections)


def headline(evaluation: Evaluation) -> Section:
    """The oracle gap recovered of the first judge, in words."""
    if not evaluation.judges:
        text = "No judge was evaluated; below is what picking without one would score."
        return Section("headline", "In one number", [Paragraph(text)])
    judge = evaluation.judges[0]
    gap = judge.gap_recovered.get("overall")
    if not judge.pass_at_1:
        text = (
            f"“{name(judge.name)}” has no headline: it compared pairs of programs, and did not pick one of a problem's "
            "candidates. The pairwise metrics are what it is measured by."
        )
        return Section("headline", "In one number", [Paragraph(text)])
    if gap is None or gap.num_problems == 0:
        text = (
            f"“{name(judge.name)}” has no headline: on no problem were some candidates right and others wrong, so "
            "that there was nothing to recover."
        )
        return Section("headline", "In one number", [Paragraph(text)])
    sentence = (
        f"Asked to pick one of several programs, “{name(judge.name)}” closes {percent(gap.value)} % of the gap between "
        "picking at random (0 %) and never missing a right program (100 %). Measured on "
        f"{counted(gap.num_problems, 'problem')} that have right and wrong candidates. "
    )
    if gap.low > 0:
        sentence += "The whole interval is above 0: the judge is better than picking at random."
    elif gap.high < 0:
        sentence += "The whole interval is below 0: the judge is worse than picking at random."
    else:
        sentence += "The interval holds 0: these problems do not show that the judge is better than picking at random."
    between = f"95 % interval over problems: {percent(gap.low)} to {percent(gap.high)} %"
    blocks: list[Block] = [Headline(f"{percent(gap.value)} %", between, sentence)]
    blocks += [Paragraph(text) for text in [_plain(evaluation)] if text]
    measured = {level: score for level, score in judge.gap_recovered.items() if score.num_problems}
    rows = [(name(level, 20), score_point(score, 100 * score.value)) for level, score in measured.items()]
    others = sum(bool(entry.gap_recovered) for entry in evaluation.judges) - 1
    beside = f", beside {counted(others, 'other judge')}" if others else ""
    table = score_table(
        f"Oracle gap recovered, percent, with 95 % intervals over problems{beside}.",
        {name(entry.name): (entry.gap_recovered, "") for entry in evaluation.judges if entry.gap_recovered},
        strong=name(judge.name),
    )
    says = ", ".join(f"{level} {percent(score.value)} {interval(score)}" for level, score in measured.items())
    chart = DotChart(rows, ("random", 0.0), ("oracle", 100.0), lambda x: number(x, 0))
    caption = f"Oracle gap recovered by “{name(judge.name)}”, percent. Bars: 95 % intervals."
    blocks += [Figure(caption, f"Dots with intervals between random (0) and oracle (100): {says}.", chart), table]
    return Section("headline", "In one number", blocks)


def _plain(evaluation: Evaluation) -> str:
    """The same as pass@1, which papers quote."""
    scores = {rule: evaluation.baselines.get(rule, {}).get("overall") for rule in ("random", "oracle")}
    own = evaluation.judges[0].pass_at_1.get("overall")
    if own is None or not all(scores.values()):
        return ""
    random, oracle = (percent(score.value) for score in scores.values() if score is not None)
    return (
        f"As pass@1 over all {counted(own.num_problems, 'problem')}: picking at random {random} %, the judge "
        f"{percent(own.value)} % {interval(own)}, the oracle {oracle} %."
    )


def facts(evaluation: Evaluation) -> Section:
    """What was evaluated, and where the answers came from."""
    entries = {name(key): quote(value, 2_000) for key, value in evaluation.facts.items()}
    entries |= {f"judge “{name(judge.name)}”": quote(judge.origin, 2_000) for judge in evaluation.judges}
    return Section("facts", "What was evaluated", [Facts(entries)])


def rules(evaluation: Evaluation) -> Section:
    """The judge beside rules that read no code."""
    order = {rule: place for place, rule in enumerate(BASELINES)}
    baselines = sorted(evaluation.baselines.items(), key=lambda entry: order.get(entry[0], len(order)))
    rows = {name(judge.name): (judge.pass_at_1, "judge") for judge in evaluation.judges if judge.pass_at_1}
    rows |= {name(rule): (scores, BASELINES.get(rule, "")) for rule, scores in baselines}
    table = score_table(
        "pass@1, percent, with 95 % intervals over problems.",
        rows,
        strong=name(evaluation.judges[0].name) if evaluation.judges else "",
    )
    text = "Rules that pick without reading what a program means. A judge that is no better may have learned a rule."
    if evaluation.judges and "overall" in evaluation.judges[0].pass_at_1:
        own = evaluation.judges[0].pass_at_1["overall"]
        near = [
            f"{name(rule)} ({percent(scores['overall'].value)})"
            for rule, scores in baselines
            if rule not in ("oracle", "random") and "overall" in scores and scores["overall"].value >= own.low
        ]
        if near:
            text += f" Within the judge's interval or above it: {', '.join(near)}."
        else:
            text += " Each of these lies below the judge's interval."
    return Section("rules", "The judge beside simple rules", [Paragraph(text), table])


def pairwise(evaluation: Evaluation) -> Section:
    """Several numbers where judge papers quote one."""
    judges = [judge for judge in evaluation.judges if judge.pairwise]
    found = dict.fromkeys(metric for judge in judges for metric in judge.pairwise)
    metrics = [m for m in METRICS if m in found] + [m for m in found if m not in METRICS]
    rows = []
    for metric in metrics:
        scores = [judge.pairwise.get(metric) for judge in judges]
        cells = [_fraction(score) if metric == "NDCG" else score_cell(score, with_count=True) for score in scores]
        rows.append(Row(Cell(name(metric), METRICS.get(metric, "")), cells))
    columns = [Column("", numeric=False), *(Column(name(judge.name)) for judge in judges)]
    text = (
        "Each question shows the judge a right and a wrong program. One number does not do: a judge that always names "
        "the first program is right half of the time, and never consistent."
    )
    table = Table("Answers about pairs, percent, with 95 % intervals over n problems.", columns, rows)
    return Section("pairwise", "Pairwise metrics", [Paragraph(text), table])


def _fraction(score: Score | None) -> Cell:
    if score is None or score.num_problems == 0:
        return score_cell(score)
    return Cell(number(score.value, 3), f"[{number(score.low, 3)}, {number(score.high, 3)}] n={score.num_problems}")


def paired_tests(evaluation: Evaluation) -> Section:
    """Two judges on the same questions."""
    columns = [
        Column("judges", numeric=False),
        Column("difference", detail="first minus second, points"),
        Column("p"),
        Column("test", numeric=False),
        Column("reads", numeric=False),
    ]
    rows = []
    for test in evaluation.tests:
        first, second, difference = name(test.first), name(test.second), test.difference
        if difference.low > 0:
            reads = f"“{first}” is better"
        elif difference.high < 0:
            reads = f"“{second}” is better"
        else:
            reads = "no difference shown"
        cells = [score_cell(difference, signed=True, with_count=True), Cell(_p(test.p_value)), Cell(name(test.test))]
        rows.append(Row(Cell(first, f"against {second}"), [*cells, Cell(reads)]))
    table = Table("Paired tests. Differences in points of percent, with 95 % intervals over n problems.", columns, rows)
    text = "Both judges answer the same questions, so that luck with the questions cancels. Nothing is corrected for "
    return Section("tests", "Judge against judge", [Paragraph(text + "the number of tests."), table])


def _p(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "\u2013"
    return "< 0.001" if value < 0.001 else number(value, 3)
