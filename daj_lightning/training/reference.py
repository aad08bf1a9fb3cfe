"""Reference log-probabilities, computed once: the adapter-off judge never changes."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor

from daj_lightning.data import PairDataset
from daj_lightning.judge import Judge
from daj_lightning.training.ranks import Ranks


def reference_logps(judge: Judge, dataset: PairDataset, directory: Path, device: torch.device, ranks: Ranks) -> Tensor:
    """(S, n) float32, nats: the responses of each sample under the reference.

    Kept in `directory` under a name made of the base's and the token rows' fingerprints, so that another
    model, other data or another length limit never meets a stale value. Several processes deal the samples out.
    """
    path = directory / f"{judge.fingerprint()}-{dataset.fingerprint()}.safetensors"
    if ranks.all(path.is_file()):
        return load_file(str(path))["logp"]
    was_training = judge.training
    judge.eval()
    rows = []
    each = -(-len(dataset) // ranks.number)  # as many passes everywhere: a sharded base takes all processes to one
    positions = range(ranks.rank * each, (ranks.rank + 1) * each)
    with judge.reference():
        for i in track(positions, "reference log-probabilities", transient=True, disable=not ranks.is_first):
            rows.append(judge.response_logp(dataset.batch([min(i, len(dataset) - 1)]).to(device)).float())
    judge.train(was_training)
    logp = torch.cat(ranks.gather(torch.stack(rows)))[: len(dataset)].cpu()
    if not ranks.is_first:
        return logp
    directory.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    save_file({"logp": logp}, str(beside))
    beside.replace(path)
    return logp
