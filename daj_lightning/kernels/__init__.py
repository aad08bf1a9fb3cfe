"""The numerical ops that DAJ exists for, fused.

The only room that knows csrc/. Every op has a specification in plain torch, which also runs where there is no
extension; dispatch.py says which of the two runs, `DAJ_KERNELS=auto|torch|ext` chooses.
"""

from daj_lightning.kernels.dispatch import KernelUse, kernel_report
from daj_lightning.kernels.grad_bank import grad_bank_combine, grad_bank_dot
from daj_lightning.kernels.linear_logprob import (
    fused_linear_logprob,
    fused_linear_logprob_jvp,
    fused_linear_logprob_vjp,
)
from daj_lightning.kernels.vocabulary_pass import LinearLogprob, Logits

__all__ = [
    "KernelUse",
    "LinearLogprob",
    "Logits",
    "fused_linear_logprob",
    "fused_linear_logprob_jvp",
    "fused_linear_logprob_vjp",
    "grad_bank_combine",
    "grad_bank_dot",
    "kernel_report",
]
