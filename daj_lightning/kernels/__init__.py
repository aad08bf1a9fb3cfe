"""The numerical ops that DAJ exists for, fused.

The only room that knows csrc/. Every op has a specification in plain torch, which also runs where there is no
extension; dispatch.py says which of the two runs, `DAJ_KERNELS=auto|torch|ext` chooses.
"""

from daj_lightning.kernels.adam import AdamJacobian
from daj_lightning.kernels.dispatch import KernelUse, kernel_report
from daj_lightning.kernels.grad_bank import grad_bank_combine, grad_bank_dot, grad_bank_dot_adam
from daj_lightning.kernels.instance_net import instance_net, instance_net_hypergrad, squareplus
from daj_lightning.kernels.linear_logprob import (
    fused_linear_logprob,
    fused_linear_logprob_jvp,
    fused_linear_logprob_vjp,
)
from daj_lightning.kernels.segment_loss import segment_policy_loss, segment_preference_loss
from daj_lightning.kernels.segments import DPOTerms, KTOTerms, ORPOTerms, PolicyTerms, SFTTerms, segment_offsets
from daj_lightning.kernels.vocabulary_pass import LinearLogprob, Logits

__all__ = [
    "AdamJacobian",
    "DPOTerms",
    "KTOTerms",
    "KernelUse",
    "LinearLogprob",
    "Logits",
    "ORPOTerms",
    "PolicyTerms",
    "SFTTerms",
    "fused_linear_logprob",
    "fused_linear_logprob_jvp",
    "fused_linear_logprob_vjp",
    "grad_bank_combine",
    "grad_bank_dot",
    "grad_bank_dot_adam",
    "instance_net",
    "instance_net_hypergrad",
    "kernel_report",
    "segment_offsets",
    "segment_policy_loss",
    "segment_preference_loss",
    "squareplus",
]
