"""Reference log-probabilities, computed once: the adapter-off judge never changes."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor

from daj_lightning.data import PairDataset
from daj_lightning.judge import Judge


def reference_logps(judge: Judge, dataset: PairDataset, directory: Path, device: torch.device) -> Tensor:
    """(S, n) float32, nats: the responses of each sample under the reference.

    Kept in `directory` under a name made of the base's and the token rows' fingerprints, so that another
    model, other data or another length limit never meets a stale value.
    """
    path = directory / f"{judge.fingerprint()}-{dataset.fingerprint()}.safetensors"
    if path.is_file():
        return load_file(str(path))["logp"]
    was_training = judge.training
    judge.eval()
    rows = []
    with judge.reference():
        for i in track(range(len(dataset)), "reference log-probabilities", transient=True):
            rows.append(judge.response_logp(dataset.batch([i]).to(device)).float().cpu())
    judge.train(was_training)
    logp = torch.stack(rows)
    directory.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    save_file({"logp": logp}, str(beside))
    beside.replace(path)
    return logp
