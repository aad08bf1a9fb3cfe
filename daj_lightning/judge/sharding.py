"""A judge whose frozen base is split over processes, for bases that fit no single device (FSDP2).

Only the decoder's layers are split. Adapters stay whole in every process, so that the gradient of a sample is one
vector in one place; embedding, final norm and head stay whole because log-probabilities read the head's weight. Each
process gathers a layer as it passes it, so that all of them must make the same number of passes.
"""

from __future__ import annotations

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from daj_lightning.judge.model import Judge
from daj_lightning.records import DajError


def shard_base(judge: Judge, mesh: DeviceMesh) -> None:
    """Split the layers of a loaded judge, in place; does nothing the second time.

    Args:
        mesh: of one dimension, or of two: then split over the second and repeated over the first.
    Raises:
        DajError: the judge trains everything, or its decoder keeps no list of layers.
    """
    if judge.trains == "everything":
        raise DajError(
            "model.judge trains everything, and fsdp2 splits frozen parameters alone: those that train are whole in "
            "every process, so that a sample's gradient is. Train adapters, or use configs/strategy/ddp.yaml."
        )
    decoder = judge.causal_lm.get_decoder()
    if isinstance(decoder, FSDPModule):
        return
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise DajError(
            f"fsdp2 splits a decoder layer by layer, and a {type(decoder).__name__} has no list `layers`. Use "
            f"configs/strategy/ddp.yaml, or another base."
        )
    judge.whole_fingerprint = judge.fingerprint()
    whole = set(judge.trained_parameters())
    for layer in layers:
        fully_shard(layer, mesh=mesh, ignored_params=whole)
    of_layers = set(layers.parameters())
    # Around them, so that they share one schedule; it has no parameters of its own to split.
    fully_shard(decoder, mesh=mesh, ignored_params=whole | (set(decoder.parameters()) - of_layers))
