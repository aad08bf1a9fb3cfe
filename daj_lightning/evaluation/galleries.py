"""The sections that show texts: training samples that the weights single out, and questions answered wrongly."""

from __future__ import annotations

from collections.abc import Sequence

from daj_lightning.evaluation.document import (
    Cell,
    Column,
    Failed,
    Failures,
    Paragraph,
    Program,
    Row,
    Sample,
    Samples,
    Section,
    Table,
    number,
)
from daj_lightning.evaluation.hostile import compare_lines, name, quote
from daj_lightning.evaluation.results import Evaluation, Failure, TrainingSample

MAX_SAMPLES = 20
MAX_FAILURES = 25


def training_samples(evaluation: Evaluation) -> Section:
    """Most helpful and most harmful, as a table and with their texts."""
    helpful, harmful = evaluation.helpful[:MAX_SAMPLES], evaluation.harmful[:MAX_SAMPLES]
    blocks: list[Paragraph | Table | Samples] = [
        Paragraph(
            "Influence is how much a little more weight on a sample would have lowered the loss on the meta set, "
            "averaged over the windows that looked at it. Positive helps, negative harms. Samples that harm are worth "
            "reading first: some have a wrong label."
        )
    ]
    for title, samples in (("Most helpful", helpful), ("Most harmful", harmful)):
        if samples:
            blocks.append(_table(title, samples))
            blocks.append(Samples(f"{title}: texts", [_sample(sample) for sample in samples]))
    return Section("samples", "Training samples that helped and harmed most", blocks)


def _table(title: str, samples: Sequence[TrainingSample]) -> Table:
    columns = [
        Column("sample", numeric=False),
        Column("domain", numeric=False),
        Column("influence"),
        Column("weight", detail="1 = plain training"),
        Column("looks"),
    ]
    rows = [
        Row(
            Cell(str(sample.sample)),
            [
                Cell(name(sample.domain)),
                Cell(_influence(sample)),
                Cell(number(sample.weight, 3)),
                Cell(str(sample.num_looks)),
            ],
        )
        for sample in samples
    ]
    return Table(f"{title} training samples by influence on the meta set.", columns, rows)


def _influence(sample: TrainingSample) -> str:
    return f"{sample.influence:+.2e}".replace("-", "\u2212")


def _sample(sample: TrainingSample) -> Sample:
    chosen, rejected = quote(sample.chosen), quote(sample.rejected)
    lines = compare_lines(chosen.text, rejected.text)
    if not (chosen.text and rejected.text):
        note = ""  # KTO's samples are one response, GRPO's a prompt
    elif any(line.marked for side in lines for line in side):
        note = "Marked: what the other response lacks."
    elif chosen.text == rejected.text:
        note = "The two responses read the same, as far as shown."
    else:
        note = "The two responses have little in common, or are very long; nothing is marked."
    return Sample(
        f"Sample {sample.sample}, {name(sample.domain)}",
        f"influence {_influence(sample)}, weight {number(sample.weight, 3)}",
        quote(sample.prompt),
        chosen,
        rejected,
        *lines,
        note,
    )


def failure_gallery(evaluation: Evaluation) -> Section:
    """Questions of a right and a wrong program that were answered wrongly."""
    shown = evaluation.failures[:MAX_FAILURES]
    count = f"{len(shown)} of {len(evaluation.failures)}" if len(shown) < len(evaluation.failures) else f"{len(shown)}"
    words = (
        f"{count} question{'s' if len(evaluation.failures) > 1 else ''} in which one program passes all tests and the "
        "other does not, and the judge chose wrongly or named none. Programs stand in the order in which the judge saw "
        "them. These are failures only; they say nothing of how often the judge is right."
    )
    return Section("failures", "Failure gallery", [Paragraph(words), Failures([_failed(entry) for entry in shown])])


def _failed(failure: Failure) -> Failed:
    if failure.selection is None:
        summary = "named no program: format error"
    else:
        right = [str(i) for i, passed in enumerate(failure.passed, start=1) if passed]
        summary = f"chose program {failure.selection + 1}; right: {', '.join(right) or 'none'}"
    programs = [
        Program(f"Program {i + 1}", passed, i == failure.selection, quote(code))
        for i, (code, passed) in enumerate(zip(failure.programs, failure.passed, strict=True))
    ]
    return Failed(
        name(failure.problem_id),
        f"{name(failure.difficulty)}; “{name(failure.judge)}” {summary}",
        quote(failure.statement),
        programs,
        quote(failure.response),
    )
