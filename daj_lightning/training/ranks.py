"""What the processes of one run share: samples dealt out, numbers added up, random streams that know no process.

Every process holds a whole window, which is token ids, and trains on its own samples of it; judge, weights and
counters are the same in all of them. So nothing here depends on which process a sample is in but where its gradient
lies, and a checkpoint of one number of processes goes on in another. Lightning's strategy carries every message.
Letters: W processes, K samples in a window.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import reduce

import torch
from lightning import Trainer
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel


class Ranks:
    """This process among the W of a run.

    Args:
        trainer: whose strategy started them.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.strategy = trainer.strategy
        self.rank, self.number = trainer.global_rank, trainer.world_size
        """Which, from 0; and W."""

    @property
    def is_first(self) -> bool:
        """Writes the files."""
        return self.rank == 0

    def share(self, number: int) -> slice:
        """This process's samples of `number`, which W divides: a run of neighbours."""
        each = number // self.number
        return slice(self.rank * each, (self.rank + 1) * each)

    def sum(self, *parts: Tensor) -> list[Tensor]:
        """Each tensor added up over all processes, to the same bits in all of them; detached. One message."""
        if self.number == 1:
            return list(parts)
        wide = reduce(torch.promote_types, (part.dtype for part in parts))
        flat = torch.cat([part.detach().flatten().to(wide) for part in parts])
        sums = self.strategy.reduce(flat, reduce_op="sum")
        split = sums.split([part.numel() for part in parts])
        return [whole.view_as(part).to(part.dtype) for whole, part in zip(split, parts, strict=True)]

    def mean(self, part: Tensor) -> Tensor:
        """The tensor averaged over all processes: shares are equal, so means over them make the mean over all."""
        return part if self.number == 1 else self.sum(part)[0] / self.number

    def collect(self, own: Tensor, number: int) -> Tensor:
        """(number,) from every process's numbers for its own share."""
        return own if self.number == 1 else self.sum(self.spread(own, number))[0]

    def spread(self, own: Tensor, number: int) -> Tensor:
        """(number,) with this share's numbers in their places and 0 elsewhere, for `sum`."""
        spread = own.new_zeros(number)
        spread[self.share(number)] = own
        return spread

    def agree(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the first one's values, in place."""
        if self.number == 1:
            return
        own = [tensor.detach() for tensor in tensors]
        for tensor, first in zip(own, self.sum(*(t * float(self.is_first) for t in own)), strict=True):
            tensor.copy_(first)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensor of every process, in order; all of one shape.

        Row by row: what is on the host may be there because no device holds it.
        """
        if self.number == 1:
            return [tensor]
        device = self.strategy.root_device
        rows = [self.strategy.all_gather(row.to(device)).to(tensor.device) for row in tensor]
        return list(torch.stack(rows, dim=1))

    def all(self, holds: bool) -> bool:
        """Whether it holds in every process."""
        return self.strategy.reduce_boolean_decision(holds, all=True)

    def no_sync(self) -> AbstractContextManager[None]:
        """Inside, DistributedDataParallel leaves gradients where autograd puts them: in this process, in a bank's row.

        It would average them, and raise over parameters that only the other level trains.
        """
        wrapped = self.strategy.model
        return wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) else nullcontext()


@contextmanager
def stream_of(device: torch.device, *names: object) -> Iterator[None]:
    """Inside, torch draws from a stream of these names alone, whoever drew how much before."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(random.Random("/".join(map(str, names))).getrandbits(63))
        yield
