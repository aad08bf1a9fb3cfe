"""The weighting net forward and its hypergradient, beside autograd through the same net.

Letters: B samples, F features, H hidden units.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from daj_lightning.kernels import instance_net_hypergrad, squareplus
from kernel_cases import Case, Errors, Provider, Spec, ours, relative_error

MODES = ("full",)
# Relative in the L2 norm.
OURS, PEERS = {"weights": 1e-5, "gradient": 1e-5}, {"weights": 1e-4, "gradient": 1e-4}

Result = tuple[Tensor, Tensor]
"""Weights (B,) and the gradient of all parameters in a row."""


@dataclass(frozen=True)
class Problem:
    """A net as `InstanceNet` starts it."""

    spec: Spec
    net: nn.Sequential
    features: Tensor
    """(B, F)."""
    derivative: Tensor
    """(B,)."""

    @classmethod
    def draw(cls, spec: Spec) -> Problem:
        B, F, H = spec["B"], spec["F"], spec["H"]
        torch.manual_seed(0)
        layers = (nn.Linear(F, H), nn.Tanh(), nn.Linear(H, H), nn.Tanh(), nn.Linear(H, 1))
        net = nn.Sequential(*layers).to(spec.device)
        return cls(spec, net, torch.randn(B, F).to(spec.device), torch.randn(B).to(spec.device))

    def case(self, mode: str) -> Case:
        providers = [Provider("eager", partial(self._eager, self.net), PEERS)]
        absent = {}
        if self.spec.compiled:
            providers.append(Provider("eager, torch.compile", partial(self._eager, torch.compile(self.net)), PEERS))
        else:
            absent["eager, torch.compile"] = "on a CPU with --compile only"
        B, F = self.features.shape
        H, parameters = self.spec["H"], parameters_to_vector(self.net.parameters()).detach()
        run = partial(instance_net_hypergrad, self.features, parameters, self.derivative, H)
        providers += ours("instance_net_hypergrad", self.spec.device, run, OURS)
        products = 3 * 2 * B * (F * H + H * H + H)  # forward, and backward by inputs and by parameters
        moved = 4 * (B * (F + 2) + 2 * len(parameters))
        return Case(replace(self.spec, mode=mode), providers, absent, self._errors, products, moved)

    def _errors(self, result: Result) -> Errors:
        truth = self._eager(deepcopy(self.net).double(), torch.float64)
        return {name: relative_error(got, true) for name, got, true in zip(OURS, result, truth, strict=True)}

    def _eager(self, net: nn.Module, dtype: torch.dtype = torch.float32) -> Result:
        weights = squareplus(net(self.features.to(dtype)).squeeze(1))
        gradients = torch.autograd.grad(weights, list(net.parameters()), self.derivative.to(dtype))
        return weights.detach(), parameters_to_vector(gradients)
