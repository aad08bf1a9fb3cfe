"""fused_linear_logprob and its peers: log-probabilities of given tokens under a frozen lm_head, and their gradient.

Modes: fwd (values), full (values and the gradient under one coefficient a token), jvp (values and the derivative in
one direction) and 8 vjps (values and eight gradients, as K per-sample gradients or several losses want them).
Letters: N tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from daj_lightning.kernels import fused_linear_logprob, fused_linear_logprob_jvp
from daj_lightning.kernels.dispatch import multiplies_bfloat16
from kernel_cases import Case, Errors, Provider, Spec, missing, ours, relative_error

MODES = ("fwd", "full", "jvp", "8 vjps")
NUM_VJPS = 8
LOGIT_STD = 3.0
TRUTH_ROWS = 256  # of float64 logits at a time: 0.3 GB at V 151936
TILE = 8192  # columns of a bare matrix product
CHUNK_ROWS = {"cpu": (256,), "cuda": (256, 1024, 2048, 4096)}  # tried on torch's own op
LARGE = 10_000  # columns from where a CPU takes minutes over what nobody would do there
TRL_COLUMNS = 32768  # what TRL's trainers pass

OURS = {
    "float32": {"logp": 1e-5, "p>.99": 1e-4, "gradient": 1e-5, "jvp": 1e-5},
    "bfloat16": {"logp": 1e-5, "p>.99": 1e-4, "gradient": 4e-3, "jvp": 4e-3},
}
"""What we promise. logp: largest absolute error in nats; p>.99: largest relative one of logp among confident tokens;
gradient and jvp: relative in the L2 norm."""
PEERS = {
    "float32": {"logp": 1e-3, "gradient": 1e-3, "jvp": 1e-3},
    "bfloat16": {"logp": 0.2, "gradient": 5e-2, "jvp": 5e-2},  # logits of 16 rounded to bfloat16: 0.06
}

LogProb = Callable[[Tensor], Tensor]
"""Hidden states (N, H) -> (N,)."""


@dataclass(frozen=True)
class Problem:
    """Random hidden states; a quarter of the tokens near-certain, a quarter even odds, the others unlikely."""

    spec: Spec
    hidden: Tensor
    """(N, H)."""
    weight: Tensor
    """(V, H)."""
    targets: Tensor
    """(N,)."""
    coefficients: Tensor
    """(NUM_VJPS, N) float32: upstream gradients."""
    tangent: Tensor
    """(N, H)."""

    @classmethod
    def draw(cls, spec: Spec) -> Problem:
        N, H, V = spec["N"], spec["H"], spec["V"]
        generator = torch.Generator(spec.device).manual_seed(0)
        draw = partial(torch.randn, generator=generator, device=spec.device)
        weight = torch.empty(V, H, dtype=spec.torch_dtype, device=spec.device)
        for rows in weight.split(TILE):  # no float32 copy of the whole
            rows.copy_(0.02 * draw(len(rows), H))
        hidden = LOGIT_STD / (0.02 * math.sqrt(H)) * draw(N, H)
        targets = torch.randint(V, (N,), generator=generator, device=spec.device)
        lse = math.log(V) + LOGIT_STD**2 / 2  # of independent normal logits
        wanted = torch.tensor([lse + 8, lse, 0.0, 0.0], device=spec.device).repeat(N // 4 + 1)[:N]
        own = weight[targets].float()
        hidden += own * (wanted / own.square().sum(dim=1))[:, None]  # adds `wanted` to the target's logit
        tangent = draw(N, H).to(spec.torch_dtype)
        return cls(spec, hidden.to(spec.torch_dtype), weight, targets, draw(NUM_VJPS, N), tangent)

    @cached_property
    def truth(self) -> tuple[Tensor, Tensor]:
        """logp (N,) and its derivative by the hidden states (N, H), in float64, a few rows at a time."""
        logp, u = [], []
        for hidden, targets in zip(self.hidden.split(TRUTH_ROWS), self.targets.split(TRUTH_ROWS), strict=True):
            hidden = hidden.double()
            rows = torch.arange(len(hidden), device=hidden.device)
            logits = torch.cat([hidden @ columns.double().T for columns in self.weight.split(TILE)], dim=1)
            own = logits[rows, targets]
            logits[rows, targets] = -math.inf  # without the target: a certain token's logp loses no digit
            top = torch.maximum(logits.amax(dim=1), own)
            others = logits.sub_(top[:, None]).exp_()
            rest = others.sum(dim=1)
            itself = (own - top).exp()
            logp.append(-torch.log1p(rest / itself))
            mean = torch.zeros_like(hidden)
            for part, columns in zip(others.split(TILE, dim=1), self.weight.split(TILE), strict=True):
                mean.addmm_(part, columns.double())
            total = (rest + itself)[:, None]
            u.append((rest[:, None] * self.weight[targets].double() - mean) / total)
        return torch.cat(logp), torch.cat(u)

    def case(self, mode: str) -> Case:
        N, H, V = self.hidden.shape[0], *reversed(self.weight.shape)
        passes = 1 if mode == "fwd" else 2  # of all columns: logits, then probabilities times weight
        peers, absent = self.peers()
        # Their gradients come from one more pass of the vocabulary each, like eager's: on a CPU it takes minutes.
        few = mode == "8 vjps" and not self.hidden.is_cuda and V > LARGE
        run = {"fwd": self._fwd, "full": self._full, "jvp": self._jvp, "8 vjps": self._vjps}[mode]
        tolerance = PEERS[self.spec.dtype]
        providers = []
        for name, logprob in peers.items():
            if few and name != "eager":
                absent[name] = "left out of eight VJPs on the CPU: a pass of the vocabulary each"
            elif mode == "jvp" and not name.startswith(("eager", "torch LCE")):
                absent[name] = "has no forward mode"
            elif mode == "jvp" and name.startswith("eager, "):
                absent[name] = "not tried under torch.func.jvp"
            else:
                providers.append(Provider(name, partial(run, logprob), tolerance))
        providers += ours(
            "fused_linear_logprob",
            self.spec.device,
            self._our_run(mode, run),
            OURS[self.spec.dtype],
            bfloat16_products=self.spec.dtype == "bfloat16" and not self.hidden.is_cuda,
        )
        if mode == "jvp":
            providers += self._jvp_from_kept_u()
        item = self.weight.element_size()
        return Case(
            replace(self.spec, mode=mode),
            providers,
            absent,
            partial(self._errors, mode),
            flop=2.0 * passes * N * V * H,
            bytes=item * (V * H + N * H * (1 if mode == "fwd" else 2)) + 8.0 * N,
            bare_gemms=None if self.hidden.is_cuda else self._bare_gemms(passes),
        )

    def _fwd(self, logprob: LogProb) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (logprob(self.hidden),)

    def _full(self, logprob: LogProb) -> tuple[Tensor, ...]:
        hidden = self.hidden.detach().requires_grad_()
        logp = logprob(hidden)
        (gradient,) = torch.autograd.grad(logp, hidden, self.coefficients[0].to(logp.dtype))
        return logp.detach(), gradient

    def _jvp(self, logprob: LogProb) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return torch.func.jvp(logprob, (self.hidden,), (self.tangent,))

    def _vjps(self, logprob: LogProb) -> tuple[Tensor, ...]:
        hidden = self.hidden.detach().requires_grad_()
        logp = logprob(hidden)
        return logp.detach(), *(
            torch.autograd.grad(logp, hidden, coefficient.to(logp.dtype), retain_graph=True)[0]
            for coefficient in self.coefficients
        )

    def _errors(self, mode: str, result: tuple[Tensor, ...]) -> Errors:
        logp, u = self.truth
        error = (result[0].double() - logp).abs()
        errors = {"logp": float(error.max())}
        certain = logp > math.log(0.99)
        if certain.any():
            errors["p>.99"] = float((error / -logp)[certain].max())
        if mode == "jvp":
            errors["jvp"] = relative_error(result[1], (u * self.tangent).sum(dim=1))
        elif mode != "fwd":
            pairs = zip(result[1:], self.coefficients, strict=False)  # full wants the first gradient only
            of_each = [relative_error(gradient, c.double()[:, None] * u) for gradient, c in pairs]
            errors["gradient"] = float(torch.tensor(of_each).max())  # keeps a NaN, which max() would drop
        return errors

    def _our_run(self, mode: str, run: Callable[[LogProb], Any]) -> Callable[[], Any]:
        return partial(run, lambda hidden: fused_linear_logprob(hidden, self.weight, self.targets).logp)

    def _jvp_from_kept_u(self) -> list[Provider]:
        """As where a backward pass already left u: no pass of the vocabulary at all."""
        kept = []

        def prepare() -> None:
            with torch.no_grad():
                kept[:] = [fused_linear_logprob(self.hidden, self.weight, self.targets, need_u=True)]

        def run() -> tuple[Tensor, Tensor]:
            return kept[0].logp, fused_linear_logprob_jvp(kept[0].u, self.tangent)

        return ours("fused_linear_logprob", self.spec.device, run, OURS[self.spec.dtype], ", u kept", prepare)

    def _bare_gemms(self, passes: int) -> Callable[[], None]:
        """float32 also for bfloat16 inputs, unless the CPU has an instruction: torch would be several times slower."""
        dtype = self.weight.dtype if multiplies_bfloat16() else torch.float32

        def run() -> None:
            hidden = self.hidden.to(dtype)
            tile = self.weight[:TILE].to(dtype)
            for columns in self.weight.split(TILE):
                logits = hidden @ tile[: len(columns)].T
                if passes == 2:
                    logits @ tile[: len(columns)]

        return run

    def peers(self) -> tuple[dict[str, LogProb], dict[str, str]]:
        """Other ways to the same numbers, and those that do not run here."""
        peers: dict[str, LogProb] = {"eager": self._eager}
        absent: dict[str, str] = {}
        if self.spec.compiled:
            peers["eager, torch.compile"] = torch.compile(self._eager, dynamic=False)
        else:
            absent["eager, torch.compile"] = "on a CPU with --compile only"
        if self.hidden.is_cuda:
            peers["eager, checkpointed chunks"] = self._checkpointed
        if reason := self._torch_op(peers):
            absent["torch LCE"] = reason
        for name, (packages, logprob) in {
            "TRL": (("trl",), self._trl),
            "Liger": (("triton", "liger_kernel"), self._liger),
            "CCE, cce": (("triton", "cut_cross_entropy"), partial(self._cce, "cce")),
            "CCE, cce_exact": (("triton", "cut_cross_entropy"), partial(self._cce, "cce_exact")),
        }.items():
            if reason := missing(*packages):
                absent[name] = reason
            else:
                peers[name] = logprob
        return peers, absent

    def _eager(self, hidden: Tensor) -> Tensor:
        return -F.cross_entropy((hidden @ self.weight.T).float(), self.targets, reduction="none")

    def _checkpointed(self, hidden: Tensor) -> Tensor:
        def rows(hidden: Tensor, targets: Tensor) -> Tensor:
            return -F.cross_entropy((hidden @ self.weight.T).float(), targets, reduction="none")

        chunks = zip(hidden.split(1024), self.targets.split(1024), strict=True)
        return torch.cat([checkpoint(rows, *chunk, use_reentrant=False) for chunk in chunks])

    def _trl(self, hidden: Tensor) -> Tensor:
        from trl.trainer.utils import _ChunkedLogProbFunction as Chunked

        return Chunked.apply(hidden, self.weight, None, self.targets, 1.0, TRL_COLUMNS, None, 1.0, ())[0]

    def _liger(self, hidden: Tensor) -> Tensor:
        from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

        return -liger_fused_linear_cross_entropy(hidden, self.weight, self.targets, reduction="none")

    def _cce(self, impl: str, hidden: Tensor) -> Tensor:
        from cut_cross_entropy import linear_cross_entropy

        return -linear_cross_entropy(hidden, self.weight, self.targets, reduction="none", impl=impl)

    def _torch_op(self, peers: dict[str, LogProb]) -> str:
        """Add torch's chunked op with its default and with chosen chunks; returns why some are absent."""
        if not hasattr(torch.nn, "LinearCrossEntropyOptions"):
            return f"torch {torch.__version__} has no chunked F.linear_cross_entropy"

        def add(name: str, **chunks: int) -> None:
            options = torch.nn.LinearCrossEntropyOptions(**chunks)
            peers[name] = lambda h: (
                -F.linear_cross_entropy(h, self.weight, self.targets, reduction="none", options=options)
            )

        for rows in CHUNK_ROWS[self.spec.device]:
            if rows <= max(self.spec["N"], 256):
                add(f"torch LCE, {rows} rows", batch_chunk_size=rows)
        if not self.hidden.is_cuda and self.spec["V"] > LARGE:
            return "its default is a few rows a chunk: over 10 minutes a call on a CPU (N 512)"
        add("torch LCE, default")
        return ""
