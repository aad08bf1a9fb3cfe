"""The judge: a Hugging Face causal language model with LoRA adapters, and its log-probabilities.

The base may be bfloat16 or float32; the adapters are always float32, because an Adam step of 1e-6
rounds to nothing in bfloat16. The reference is the same model with the adapters off. A small judge may
train all of its parameters instead; then the reference is a frozen copy.
Letters: R rows of tokens, T tokens, N response tokens over all rows, V vocabulary, P trained parameters.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from daj_lightning.judge.packed import let_pack, pack
from daj_lightning.judge.tokens import unreachable
from daj_lightning.kernels import Logits, fused_linear_logprob
from daj_lightning.records import DajError, JudgeBatch

_LOGIT_CHANGES = ("final_logit_softcapping", "logits_scaling", "logit_scale")
# Settings are not read by their names alone: Granite divides by logits_scaling, HyperCLOVA X multiplies by it.
_HONOURED_CHANGES = {
    "gemma2": "final_logit_softcapping",
    "granite": "logits_scaling",
    "cohere": "logit_scale",
    "cohere2": "logit_scale",
}
_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
# App. B: "LoRA adapters are applied to the query, key, value, and output projection layers, as well as
# the gate, up, and down projection layers".
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Judge(nn.Module):
    """A causal language model that answers comparisons.

    Args:
        base: model directory or hub name.
        base_dtype: of the frozen base; the adapters are float32 over either.
        lora_r: rank (paper: 32).
        lora_alpha: scale numerator (paper: 64).
        lora_dropout: probability (paper: 0).
        lora_targets: names of the linear layers that get an adapter (paper: all seven projections).
        attention: implementation in transformers; "sdpa" is the fast default.
        gradient_checkpointing: recompute activations in the backward; saves memory for large bases.
        trains: "adapters", or "everything": all parameters of a float32 base, without adapters. A frozen copy
            is kept as the reference.
    """

    def __init__(
        self,
        base: str,
        base_dtype: Literal["bfloat16", "float32"] = "bfloat16",
        lora_r: int = 32,
        lora_alpha: float = 64,
        lora_dropout: float = 0.0,
        lora_targets: Sequence[str] = PROJECTIONS,
        attention: Literal["sdpa", "eager"] = "sdpa",
        gradient_checkpointing: bool = False,
        trains: Literal["adapters", "everything"] = "adapters",
    ) -> None:
        super().__init__()
        if trains == "everything" and base_dtype != "float32":
            raise DajError(
                f"model.judge trains everything, of a {base_dtype} base; an Adam step of 1e-6 rounds to nothing there. "
                f"Set base_dtype to float32, or train adapters."
            )
        self.base = base
        self.base_dtype = base_dtype
        self.attention = attention
        self.gradient_checkpointing = gradient_checkpointing
        self.lora = LoraConfig(
            task_type="CAUSAL_LM",
            r=lora_r,
            lora_alpha=lora_alpha,  # type: ignore[arg-type]  # peft's annotation says int; it only divides by r
            lora_dropout=lora_dropout,
            target_modules=list(lora_targets),
        )
        self.trains = trains
        self.model: PeftModel | PreTrainedModel | None = None
        """With adapters, or without any."""
        self.frozen: PreTrainedModel | None = None
        """The reference, where everything trains."""
        self.whole_fingerprint: str | None = None
        """Taken before the base was split over processes."""
        self.packing = False
        """Log-probabilities are computed on packed rows; see `pack_rows`."""
        self.sample_lengths: list[int] | None = None
        """Tokens of each sample in the newest packed pass; None: that pass was of padded rows, all of one length."""

    def load(self) -> None:
        """Read the base and add fresh adapters; does nothing the second time.

        Raises:
            DajError: the base cannot be reached, or a LoRA target matches no layer.
        """
        if self.model is not None:
            return
        self.adapt(load_causal_lm(self.base, self.base_dtype, self.attention))

    def build_empty(self, config_path: str) -> None:
        """The judge of a model's config.json with random weights, on the current torch device (e.g. meta)."""
        config = AutoConfig.from_pretrained(config_path)
        self.adapt(
            AutoModelForCausalLM.from_config(config, dtype=_DTYPES[self.base_dtype], attn_implementation=self.attention)
        )

    def adapt(self, base: PreTrainedModel) -> None:
        """Freeze `base` and add fresh float32 adapters: B = 0, so that the judge starts as its reference."""
        altered = {name for name in _LOGIT_CHANGES if getattr(base.config, name, None) not in (None, 1, 1.0)}
        unknown = sorted(altered - {_HONOURED_CHANGES.get(base.config.model_type)})
        if unknown:
            raise DajError(
                f"{self.base!r} changes its logits by {unknown}, which log-probabilities here leave out for a "
                f"{base.config.model_type}; they know {_HONOURED_CHANGES}. Use another."
            )
        if self.gradient_checkpointing:
            base.gradient_checkpointing_enable({"use_reentrant": False})
            base.enable_input_require_grads()
        if self.trains == "everything":
            self.model, self.frozen = base, copy.deepcopy(base).requires_grad_(False)
            return
        _check_targets(base, self.lora)
        self.model = get_peft_model(base, self.lora)  # adapters in float32 even over a bfloat16 base
        check_adapter_dtype(self.trained_parameters())

    def pack_rows(self) -> None:
        """From now on, lay the rows of a batch end to end: no padding, and a sample's common prompt once.

        Raises:
            DajError: not with this model.
        """
        for model in (self.causal_lm, self.frozen):
            if model is not None:
                let_pack(model)
        self.packing = True

    @property
    def policy(self) -> PeftModel | PreTrainedModel:
        """The model that answers."""
        assert self.model is not None, "Judge.load() comes first"
        return self.model

    @property
    def causal_lm(self) -> PreTrainedModel:
        """The transformers model, with adapters inside if there are any."""
        model = self.policy
        if isinstance(model, PeftModel):
            model = model.get_base_model()  # type: ignore[assignment]  # peft types it as any module
        assert isinstance(model, PreTrainedModel)
        return model

    def trained_parameters(self) -> list[nn.Parameter]:
        """In the fixed order that the gradient bank uses; P numbers together."""
        return [parameter for parameter in self.policy.parameters() if parameter.requires_grad]

    def dropout(self) -> list[str]:
        """What makes two passes in train mode differ: settings of the base's config, and modules."""
        config = self.causal_lm.config.to_dict()
        settings = [key for key, value in config.items() if ("dropout" in key or key.endswith("pdrop")) and value]
        layers = [name for name, module in self.named_modules() if isinstance(module, nn.Dropout) and module.p > 0]
        return settings + layers[:1]

    def response_logp(self, batch: JudgeBatch) -> Tensor:
        """Log-probability of each response given its prompt, summed over its tokens: (R,) float32, nats."""
        n = batch.rows_per_sample
        logp_N = self.token_logp(batch.input_ids, batch.attention_mask, batch.response_mask, rows_per_sample=n)
        row_N = batch.response_mask.nonzero()[:, 0]
        return logp_N.new_zeros(batch.input_ids.size(0)).index_add(0, row_N, logp_N)

    def response_token_logp(self, batch: JudgeBatch, rows: slice | None = None) -> Tensor:
        """Log-probability of each response token at the batch's temperature: (R, T) float32, nats; 0 elsewhere.

        Args:
            rows: these rows alone; the result has as many.
        """
        rows = rows or slice(None)
        scored = batch.response_mask[rows]
        if not scored.any():  # rows that are masked out of the loss
            return torch.zeros(scored.shape, device=scored.device)
        n = batch.rows_per_sample
        logp_N = self.token_logp(
            batch.input_ids[rows],
            batch.attention_mask[rows],
            scored,
            batch.temperature,
            rows_per_sample=n if len(scored) % n == 0 else len(scored),  # a chunk of one group
        )
        return logp_N.new_zeros(scored.shape).masked_scatter(scored, logp_N)

    def token_logp(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        scored: Tensor,
        temperature: float = 1.0,
        rows_per_sample: int = 1,
    ) -> Tensor:
        """Log-probability of the tokens where `scored` is true, each given what stands before it.

        Args:
            input_ids, attention_mask, scored: each (R, T); `scored` is false in column 0.
            temperature: divides the logits.
            rows_per_sample: so many rows at a time may share what they begin with, where rows are packed.
        Returns:
            (N,) float32 nats, row after row. The head only runs on these N positions.
        Raises:
            DajError: the head is wrapped.
        """
        causal_lm = self.causal_lm
        hidden_NH = self._predicting(input_ids, attention_mask, scored, rows_per_sample)
        head = causal_lm.get_output_embeddings()
        if not isinstance(head, nn.Linear):
            raise DajError(
                f"the head is a {type(head).__name__}; log-probabilities need a plain linear layer. If an adapter "
                "wraps it, merge it into the base, or leave lm_head out of lora_targets."
            )
        logits = _logits(causal_lm, temperature)
        targets_N = input_ids[scored]
        if self.trains == "everything":  # and so the reference: equal judges give equal bits
            return _logp_by_logits(head, hidden_NH, targets_N, logits)
        found = fused_linear_logprob(
            hidden_NH,
            head.weight,
            targets_N,
            bias=head.bias,
            logit_scale=logits.scale,
            softcap=logits.softcap,
            temperature=logits.temperature,
        )
        return found.logp

    def _predicting(self, input_ids: Tensor, attention_mask: Tensor, scored: Tensor, rows_per_sample: int) -> Tensor:
        """(N, H) the decoder's last state before each scored token: the token at t is predicted at t - 1."""
        decoder = self.causal_lm.get_decoder()
        if not self.packing:
            self.sample_lengths = None
            hidden_RTH = decoder(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
            return hidden_RTH[scored.roll(-1, dims=1)]
        packed = pack(input_ids, attention_mask, rows_per_sample)
        self.sample_lengths = packed.sample_lengths
        hidden_1SH = decoder(
            input_ids=packed.input_ids,
            attention_mask=packed.rows,
            position_ids=packed.position_ids,
            use_cache=False,
        ).last_hidden_state
        return hidden_1SH[0, packed.token_index.roll(1, dims=1)[scored]]

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, the judge is its own reference, without gradients: adapters off, or the frozen copy in place."""
        model = self.policy
        with torch.no_grad():
            if isinstance(model, PeftModel):
                with model.disable_adapter():
                    yield
                return
            self.model = self.frozen
            try:
                yield
            finally:
                self.model = model

    def fingerprint(self) -> str:
        """Names the reference by a hash of its weights, for caches of what it computed."""
        if self.whole_fingerprint is not None:
            return self.whole_fingerprint
        facts = f"{self.base_dtype} {self.attention} {self.causal_lm.config.to_json_string(use_diff=False)}"
        digest = hashlib.sha256(facts.encode())
        for name, parameter in (self.frozen or self.causal_lm).named_parameters():
            if not parameter.requires_grad:
                digest.update(name.encode())
                # A sum and a sample of bytes: reading 28 GB to the host would take longer than the cache saves.
                flat = parameter.detach().flatten()
                digest.update(
                    str(float(flat.double().sum() if flat.numel() < 2**22 else flat[::1009].double().sum())).encode()
                )
        return digest.hexdigest()[:16]

    def export(self, directory: str | Path) -> None:
        """Write the adapters for plain transformers and peft to load over `base`, or else the whole model."""
        self.policy.save_pretrained(str(directory))


def _logits(causal_lm: PreTrainedModel, temperature: float) -> Logits:
    """What the model makes of its head's products; Judge.adapt has refused all but these."""
    name = _HONOURED_CHANGES.get(causal_lm.config.model_type)
    value = getattr(causal_lm.config, name, None) if name else None
    if value is None:
        return Logits(temperature=temperature)
    if name == "final_logit_softcapping":
        return Logits(softcap=value, temperature=temperature)
    return Logits(1 / value if name == "logits_scaling" else value, temperature=temperature)


def _logp_by_logits(head: nn.Linear, hidden_NH: Tensor, targets_N: Tensor, logits: Logits) -> Tensor:
    """(N,) log-probability of the targets where the head trains: its gradient needs all N x V probabilities."""
    logits_NV = head(hidden_NH)
    if logits_NV.dtype is not torch.float64:
        logits_NV = logits_NV.float()
    if logits.softcap is not None:
        cap = logits.softcap / logits.temperature
        logits_NV = cap * torch.tanh(logits_NV * (logits.scale / logits.softcap))
    elif logits.factor != 1:
        logits_NV = logits_NV * logits.factor
    return logits_NV.log_softmax(dim=-1).gather(1, targets_N[:, None]).squeeze(1)


def load_causal_lm(name: str, dtype: str, attention: str) -> PreTrainedModel:
    """A causal language model from a directory or the hub.

    Raises:
        DajError: it cannot be reached.
    """
    try:
        return AutoModelForCausalLM.from_pretrained(name, dtype=_DTYPES[dtype], attn_implementation=attention)
    except (OSError, ValueError) as error:
        raise DajError(unreachable(name, "weights", error)) from error


def check_adapter_dtype(parameters: Sequence[nn.Parameter]) -> None:
    """Refuse adapters in less than float32.

    Raises:
        DajError: names the dtype and the share of an Adam step of 1e-6 that it would round away.
    """
    low = [p for p in parameters if torch.finfo(p.dtype).bits < 32]
    if not low:
        return
    dtype = low[0].dtype
    # Half a unit in the last place is what a step must exceed to change a number; LoRA starts near 1/sqrt(width).
    moved = torch.cat([p.detach().flatten()[:4096] for p in low if p.device.type != "meta"] or [torch.empty(0)])
    lost = ((moved - 1e-6) == moved).float().mean().item() if moved.numel() else 1.0
    raise DajError(
        f"the adapters are {dtype}; they must be float32. At a learning rate of 1e-6 {lost:.1%} of Adam's "
        f"updates would round to nothing. Set trainer.precision to 32-true (the base keeps model.judge's "
        f"base_dtype) instead of bf16-true."
    )


def _check_targets(base: nn.Module, lora: LoraConfig) -> None:
    linear = {name.rsplit(".", 1)[-1] for name, module in base.named_modules() if isinstance(module, nn.Linear)}
    missing = sorted(set(lora.target_modules or ()) - linear)
    if missing:
        raise DajError(
            f"lora_targets {missing} match no linear layer of the base, which has {sorted(linear)}. "
            f"Correct model.judge.init_args.lora_targets."
        )
    if "lm_head" in set(lora.target_modules or ()):
        raise DajError("lora_targets names lm_head; the head stays frozen here. Remove it from lora_targets.")
