"""Were these rollouts written by the judge that trains? Log-probabilities tell, and are asked at every draw.

A stale or wrong policy shows in no loss curve. What it cannot forge are the log-probabilities of its own tokens: the
judge computes them again. Two tests, since one limit does not fit all learning rates: they have to be the judge's up
to the engine's precision, and they must not be the reference's instead, whatever the precision (an engine that never
took an adapter). What neither sees is an engine that is a few versions behind at a learning rate whose steps drown in
its precision; there the engine's own version stamps stand.
"""

from __future__ import annotations

import torch
from torch import Tensor

from daj_lightning.judge import Judge
from daj_lightning.records import JudgeBatch
from daj_lightning.rollout import RolloutError

TOLERANCE_NATS = {"float32": 1e-3, "bfloat16": 0.1}
"""Mean difference over tokens that precision explains, by the base's dtype."""
NEARER = 3.0
"""Noise is as far from the judge as from the reference; this many times farther from the judge is no noise."""


@torch.no_grad()
def token_difference(judge: Judge, batch: JudgeBatch) -> Tensor:
    """|log p of the engine - log p of the judge| of each response token: (N,) nats."""
    assert batch.sampled_logp is not None
    was_training = judge.training
    judge.eval()
    differences = []
    for r in range(len(batch.input_ids)):
        row = slice(r, r + 1)
        logp = judge.response_token_logp(batch, row)
        differences.append((logp - batch.sampled_logp[row])[batch.response_mask[row]].abs())
    judge.train(was_training)
    return torch.cat(differences)


def check_identity(difference: Tensor, to_reference: Tensor, version: int, tolerance: float) -> None:
    """Stop a run whose rollouts are not its judge's own.

    Args:
        difference: of the engine's log-probabilities to the judge's, (N,) nats.
        to_reference: to its reference's.
        tolerance: nats that `difference` may be on average.
    Raises:
        RolloutError: it is more, or not a number, or the reference is nearer than noise explains.
    """
    mean, other = float(difference.mean()), float(to_reference.mean())
    if mean <= tolerance and mean <= max(NEARER * other, 1e-5):
        return
    near = f", and only {other:.3g} off the reference's, as if no adapter were in use" if mean > other else ""
    raise RolloutError(
        f"policy identity: the rollouts stamped version {version} are not of the judge that trains. Over "
        f"{len(difference)} tokens the engine's log-probabilities are off by {mean:.3g} nats on average (at most "
        f"{float(difference.max()):.3g}), wanted {tolerance:g}{near}. Nothing was learned from them. The engine serves "
        f"stale or other weights: restart it, check that it serves model.judge's base, and resume with --ckpt_path "
        f"last. If only its precision differs, raise model.rollouts.tolerance."
    )
