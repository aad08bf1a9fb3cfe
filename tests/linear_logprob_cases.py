"""Rows for the tests of fused_linear_logprob, and the truth in float64."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Case(NamedTuple):
    hidden: Tensor
    weight: Tensor
    targets: Tensor
    confident: Tensor
    """(N,) rows whose target has a probability over 0.99, and not so near to one that float64 would lose the rest."""


class Truth(NamedTuple):
    logp: Tensor
    lse: Tensor
    u: Tensor
    entropy: Tensor


def draw(
    N: int = 37, H: int = 96, V: int = 4099, dtype: torch.dtype = torch.float32, device: str = "cpu", seed: int = 0
) -> Case:
    """Random rows; every third one leans on its target by 6 to 10 nats more than all others together."""
    generator = torch.Generator().manual_seed(seed)
    weight = (2 * H**-0.5 * torch.randn(V, H, generator=generator)).to(dtype)  # logits of two nats, as a model's are
    hidden = torch.randn(N, H, generator=generator)
    targets = torch.randint(0, V, (N,), generator=generator)
    targets[:1], targets[1:2] = 0, V - 1  # in the first and in the last tile
    rows = weight[targets].double()
    z = hidden.double() @ weight.double().T
    others = z.scatter(1, targets[:, None], -torch.inf).logsumexp(1)
    lean = (
        others - z.gather(1, targets[:, None])[:, 0] + 6 + 4 * torch.rand(N, generator=generator)
    ) / rows.square().sum(1)
    leaning = torch.arange(N) % 3 == 0
    hidden += torch.where(leaning, lean, 0)[:, None] * rows
    hidden = hidden.to(dtype)
    p = truth(hidden, weight, targets).logp.exp()
    return Case(hidden.to(device), weight.to(device), targets.to(device), ((p > 0.99) & (p < 1 - 1e-7)).to(device))


def truth(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    temperature: float = 1.0,
) -> Truth:
    """Materialised logits and autograd, in float64."""
    hidden = hidden.detach().double().clone().requires_grad_()
    z = hidden @ weight.double().T
    if bias is not None:
        z = z + bias.double()
    z = z * logit_scale
    if softcap is not None:
        z = softcap * torch.tanh(z / softcap)
    z = z / temperature
    logp_all = z.log_softmax(dim=1)
    logp = logp_all.gather(1, targets[:, None]).squeeze(1)
    (u,) = torch.autograd.grad(logp.sum(), hidden)
    entropy = -(logp_all.exp() * logp_all).sum(dim=1)
    return Truth(logp.detach(), z.logsumexp(dim=1).detach(), u, entropy.detach())


def relative(got: Tensor, wanted: Tensor) -> float:
    """L2 error of all entries over the L2 norm of what was wanted."""
    return float((got.double() - wanted).norm() / wanted.norm())


CHANGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "temperature": {"temperature": 0.7},
    "scale": {"logit_scale": 0.25},
    "softcap": {"softcap": 5.0},
    "all": {"logit_scale": 0.5, "softcap": 8.0, "temperature": 1.3},
}
"""How logits are made."""
