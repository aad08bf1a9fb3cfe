"""Whole-history credit for domain weights, carried forward instead of unrolled back.

    d(phi, optimizer state)_t / d alpha_k  from  d(phi, state)_{t-1} / d alpha_k  and the domain's gradient G_k

Every window pushes one tangent a domain through its own step (`Update.push_forward`): elementwise, with the
loss's Hessian left out. A meta gradient then credits all windows so far at once: d L_meta / d alpha_k = <q, d phi_k>.
No bank and no history: D (2 + n) P numbers, n the tensors of the optimizer's state, whatever the length of the run.
All of it is linear in the gradients G_k, so that each process carries the tangents of its own samples.
Letters: D domains, P adapter parameters, K samples in a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from daj_lightning.bilevel.hypergradient import Credit, HypergradientEngine, Setting
from daj_lightning.bilevel.stores import DomainSums, GradientStore
from daj_lightning.bilevel.update import Carried
from daj_lightning.bilevel.window import Window, batch_state
from daj_lightning.records import DajError, JudgeBatch


class TraceEngine(HypergradientEngine):
    """d L_meta / d alpha_k of the whole run so far, as if alpha_k had been another throughout.

    Args:
        decay: of the adapters' tangents from one window to the next. 1 keeps the whole run, in which the
            weights, and what the Hessian would have done, have meanwhile changed; 0.9 looks back ten windows.
    """

    credits_domains = True

    def __init__(self, decay: float = 0.9) -> None:
        if not 0 <= decay <= 1:
            raise DajError(f"TraceEngine needs 0 <= decay <= 1, got {decay}.")
        self.decay = decay
        self.tangents: Carried | None = None
        """(D, P) each, after the last step; zero for a domain not met so far."""
        self.is_first = True
        """Of the processes: takes what was carried by another number of them."""
        self.examples: dict[int, Credit] = {}
        """Domain -> its latest sample: it has the domain's weight, and so stands for it before the reweighter."""

    def start(self, setting: Setting) -> GradientStore:
        self.tangents, self.examples = None, {}
        self.is_first = not setting.own.start
        return DomainSums(setting.flat, setting.num_domains)

    @torch.no_grad()
    def observe(self, window: Window) -> None:
        for i, sample in enumerate(window.batch.micro_batches()):
            self.examples[int(sample.domains)] = Credit(sample, window.losses[i : i + 1], torch.empty(0))
        before = self.tangents or window.update.at_rest(torch.zeros_like(window.rows))
        gradient_tangents = window.through_clipping(window.rows / len(window.batch))
        before = Carried(self.decay * before.phi, before.state)
        self.tangents = window.update.push_forward(window.clipped_gradient, gradient_tangents, before)

    def forget(self) -> None:
        pass  # nothing of a window is kept

    @torch.no_grad()
    def __call__(self, meta_gradient: Tensor) -> list[Credit]:
        assert self.tangents is not None
        of_domain = self.tangents.phi @ meta_gradient
        return [self.examples[k]._replace(derivative=of_domain[k : k + 1]) for k in sorted(self.examples)]

    def description(self) -> dict[str, Any]:
        return {"engine": f"TraceEngine, decay {self.decay}"}

    def state(self) -> dict[str, Any]:
        return {
            "examples": {domain: (batch_state(e.batch), e.losses) for domain, e in self.examples.items()},
        }

    def parts(self) -> list[Tensor]:
        return [] if self.tangents is None else [self.tangents.phi, *self.tangents.state]

    def regroup(self, parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        sums = [torch.stack(list(tangents)).sum(dim=0) for tangents in parts]
        return sums if self.is_first else [torch.zeros_like(tangents) for tangents in sums]

    def load_state(self, state: dict[str, Any], parts: Sequence[Tensor] = ()) -> None:
        self.tangents = Carried(parts[0], tuple(parts[1:])) if parts else None
        self.examples = {
            domain: Credit(JudgeBatch(**batch), losses, torch.empty(0))
            for domain, (batch, losses) in state["examples"].items()
        }
