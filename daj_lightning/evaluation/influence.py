"""What an audit found of every row: influence over its looks, loss and margin, and the reasons to look at it.

Influence of row i: by how much the meta loss falls for each unit that the row weighs more in a window that sees it,
-d L_meta / d alpha_i. A look is such a window; its influence is a mean over the meta batches after it that the engine
still credits it with, and the row's is a mean over looks. Positive helps the meta set, negative harms it.
Letters: K samples and M meta samples of a window.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from daj_lightning.data import PairDataset
from daj_lightning.data.preferences import Preference
from daj_lightning.evaluation.reasons import Reason, reasons_in_length, reasons_in_text
from daj_lightning.training import Auditor

LOSS_BEFORE = math.log(2)
"""DPO's of every pair before the first step, where the judge is its reference."""
MIN_Z = 2.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What training said of a row."""

    influence: float
    """Mean over looks."""
    standard_error: float | None
    """Of that mean, from the spread between looks; None after a single look."""
    num_looks: int
    num_harmful: int
    """Looks with an influence below 0."""
    cosine: float
    """Between the row's gradient and the meta batch's, mean over looks; 1: it pulls where the meta set pulls."""
    loss_after: float
    margin: float
    """beta times how much more the trained judge prefers chosen over rejected than the base does, in nats."""
    base_margin: float
    """log p(chosen) - log p(rejected) under the base, in nats."""
    opposed: int
    """Row of the meta file whose loss this row raises most (or lowers least), mean over the looks that met it."""
    opposed_influence: float
    """On that row's loss alone."""
    rank: int
    """1: the most helpful."""

    @property
    def z(self) -> float | None:
        """Influence over its standard error."""
        return self.influence / self.standard_error if self.standard_error else None


@dataclass(frozen=True, slots=True)
class AuditedRow:
    """A row of the file, with all that was found."""

    preference: Preference
    measured: Measured | None
    """None where the row cannot be used; `preference.problem` says why."""
    chosen_tokens: int = 0
    rejected_tokens: int = 0
    prompt_tokens: int = 0
    cut: int = 0
    """Tokens of both answers that max_length took."""
    reasons: Sequence[Reason] = ()


def audited_rows(
    preferences: Sequence[Preference], meta: Sequence[Preference], auditor: Auditor, train_set: PairDataset
) -> list[AuditedRow]:
    """Every row of the file in order.

    Args:
        preferences: all rows; those without a problem are the samples of `train_set`, in order.
        meta: the rows of the meta set that were used.
        auditor: after training.
    """
    usable = [preference for preference in preferences if not preference.problem]
    measured = _measure(auditor, train_set, [row.row for row in meta])
    in_text = reasons_in_text(usable, meta)
    lengths = [sum(len(row.prompt_ids) + len(row.response_ids) for row in s.rows) for s in train_set.samples]
    long = sorted(lengths)[-max(1, len(lengths) // 100)]
    rising = statistics.median(m.loss_after for m in measured) < LOSS_BEFORE
    rows = {}
    for k, (preference, sample) in enumerate(zip(usable, train_set.samples, strict=True)):
        chosen, rejected = (len(row.response_ids) for row in sample.rows)
        cut = sum(row.num_cut for row in sample.rows)
        is_long = len(lengths) >= 100 and lengths[k] >= long
        reasons = [
            *_in_numbers(measured[k], rising),
            *in_text[k],
            *reasons_in_length(chosen, rejected, cut, is_long),
        ]
        tokens = (chosen, rejected, len(sample.rows[0].prompt_ids))
        rows[preference.row] = AuditedRow(preference, measured[k], *tokens, cut, reasons)
    return [rows.get(p.row, AuditedRow(p, None)) for p in preferences]


def _measure(auditor: Auditor, train_set: PairDataset, meta_rows: Sequence[int]) -> list[Measured]:
    """Of every sample."""
    number = len(train_set)
    looks: list[dict[int, list[float]]] = [defaultdict(list) for _ in range(number)]  # window -> by meta batches
    on_meta: list[dict[int, list[float]]] = [defaultdict(list) for _ in range(number)]  # meta sample -> at its batches
    cosines: list[list[float]] = [[] for _ in range(number)]
    for look in auditor.looks:
        means = look.influence.mean(dim=0).tolist()
        for k, sample in enumerate(look.sample_ids.tolist()):
            looks[sample][look.window].append(means[k])
            for m, meta_sample in enumerate(look.meta_ids.tolist()):
                on_meta[sample][meta_sample].append(float(look.influence[m, k]))
    for sample_ids, cosine in auditor.cosines:
        for sample, value in zip(sample_ids.tolist(), cosine.tolist(), strict=True):
            cosines[sample].append(value)
    of_look = [[statistics.fmean(values) for values in own.values()] for own in looks]
    influence = torch.tensor([statistics.fmean(own) for own in of_look], dtype=torch.float64)
    rank = torch.empty(number, dtype=torch.int64)
    rank[influence.argsort(descending=True, stable=True)] = torch.arange(1, number + 1)
    losses = F.softplus(-auditor.train_margins)
    assert train_set.reference_logp is not None
    base_margins = train_set.reference_logp[:, 0] - train_set.reference_logp[:, 1]
    measured = []
    for k in range(number):
        on_each = {meta: statistics.fmean(own) for meta, own in on_meta[k].items()}
        opposed = min(on_each, key=on_each.__getitem__)
        n = len(of_look[k])
        measured.append(
            Measured(
                influence=float(influence[k]),
                standard_error=statistics.stdev(of_look[k]) / math.sqrt(n) if n > 1 else None,
                num_looks=n,
                num_harmful=sum(value < 0 for value in of_look[k]),
                cosine=statistics.fmean(cosines[k]),
                loss_after=float(losses[k]),
                margin=float(auditor.train_margins[k]),
                base_margin=float(base_margins[k]),
                opposed=meta_rows[opposed],
                opposed_influence=on_each[opposed],
                rank=int(rank[k]),
            )
        )
    return measured


def is_harmful(measured: Measured) -> bool:
    """Below 0 in every look, and by more than two standard errors; a single look decides nothing."""
    z = measured.z
    return z is not None and z <= -MIN_Z and measured.num_harmful == measured.num_looks


def _in_numbers(measured: Measured, others_fall: bool) -> list[Reason]:
    found = []
    if is_harmful(measured):
        found.append(
            Reason(
                "the meta set wants the opposite preference",
                f"the meta set wants the opposite preference: influence {measured.influence:.2e}, "
                f"z = {measured.z:.1f}, below 0 in all {measured.num_looks} looks; it opposes meta row "
                f"{measured.opposed} most ({measured.opposed_influence:.2e})",
            )
        )
    if others_fall and measured.loss_after > LOSS_BEFORE:
        found.append(
            Reason(
                "its loss rises while the others' falls",
                f"its loss rises from {LOSS_BEFORE:.3f} to {measured.loss_after:.3f}, though it was trained on",
            )
        )
    return found


def by_domain(rows: Sequence[AuditedRow]) -> Mapping[str, Sequence[Measured]]:
    """Domain -> its rows, the least helpful domain first."""
    groups: dict[str, list[Measured]] = defaultdict(list)
    for row in rows:
        if row.measured is not None:
            groups[row.preference.domain].append(row.measured)
    return dict(sorted(groups.items(), key=lambda item: statistics.fmean(m.influence for m in item[1])))


def ranked(rows: Sequence[AuditedRow]) -> list[AuditedRow]:
    """Those that were measured, the most helpful first."""
    return sorted((row for row in rows if row.measured is not None), key=lambda row: row.measured.rank)  # type: ignore[union-attr]
