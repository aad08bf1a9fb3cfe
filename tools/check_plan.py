"""Does `plan` predict what a run takes? Real bi-level windows of random judges beside the predicted peak.

Each case trains three windows through Lightning, the last two behind the outer warm-up, with pairs as long as the case
allows, one row of each pair somewhat shorter. On a CPU the peak is that of tensor bytes alive at once (a process holds
more: libraries, what its kernels write down and its allocator keeps); on a GPU it is torch.cuda.max_memory_allocated.

    python tools/check_plan.py                              # tiny shapes, CPU
    python tools/check_plan.py --device cuda                # Qwen3-1.7B and Qwen2.5-Coder-14B, random weights

Exit status 1 if a prediction is off by more than 15 %.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import tempfile
import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from lightning import Trainer
from transformers import AutoConfig, AutoModelForCausalLM

import bench_step
from daj_lightning.bilevel import BankEngine, DomainWeights, HypergradientEngine, JvpEngine, TraceEngine
from daj_lightning.data.windows import BilevelData
from daj_lightning.judge import Judge
from daj_lightning.objectives import DPO, SFT, Objective
from daj_lightning.planning import LiveBytes, Memory, memory, read_run
from daj_lightning.planning.run import ROWS
from daj_lightning.records import JudgeBatch, Unit
from daj_lightning.training import DataReweightedJudge, Level

LIMIT = 0.15
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-1.7b": {"model_type": "qwen3", **bench_step.SHAPES["qwen3-1.7b"]},
    "qwen2.5-14b": {"model_type": "qwen2", "hidden_size": 5120, "num_hidden_layers": 48, "intermediate_size": 13824,
                    "num_attention_heads": 40, "num_key_value_heads": 8, "vocab_size": 152064,
                    "tie_word_embeddings": False},
}  # fmt: skip


def tiny(hidden: int, layers: int, model_type: str = "qwen3", vocabulary: int = 4096) -> dict[str, Any]:
    shape = {
        "model_type": model_type,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": 3 * hidden,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": vocabulary,
    }
    return shape | ({"head_dim": hidden // 4} if model_type == "qwen3" else {})


@dataclass(frozen=True)
class Case:
    """One judge and run."""

    name: str
    shape: dict[str, Any]
    length: int
    engine: HypergradientEngine
    base_dtype: Literal["bfloat16", "float32"] = "float32"
    checkpointing: bool = False
    attention: Literal["sdpa", "eager"] = "sdpa"
    lora_r: int = 8
    num_inner: int = 4
    num_meta: int = 2
    padded: bool = True
    objective: Objective = DPO()  # noqa: RUF009  nothing changes in it
    micro_batch_size: int = 1
    max_sample_norm: float | None = None


CASES = {
    "cpu": [
        Case("64x2", tiny(64, 2), 128, BankEngine()),
        Case("64x4, eager", tiny(64, 4), 256, BankEngine(), attention="eager"),
        Case("128x4, rows alike", tiny(128, 4), 256, BankEngine(), padded=False),
        Case("128x4, checkpointing", tiny(128, 4), 512, BankEngine(), checkpointing=True),
        Case("128x4, bf16", tiny(128, 4), 256, BankEngine(dtype="bfloat16"), base_dtype="bfloat16"),
        Case("128x8, bf16, checkpointing", tiny(128, 8), 512, BankEngine(dtype="bfloat16"), "bfloat16", True),
        Case("128x4, qwen2, bf16, eager", tiny(128, 4, "qwen2"), 256, BankEngine(), "bfloat16", attention="eager"),
        Case("256x8, K = 16", tiny(256, 8), 96, BankEngine(), num_inner=16, lora_r=32),
        Case("256x8, K = 16, bf16 rows", tiny(256, 8), 96, BankEngine(dtype="bfloat16"), num_inner=16, lora_r=32),
        Case("256x4, two windows", tiny(256, 4), 96, BankEngine(unroll_windows=2), num_inner=8, lora_r=32),
        Case("256x4, offloaded", tiny(256, 4), 96, BankEngine(offload=True), num_inner=8, lora_r=32),
        Case("256x4, jvp", tiny(256, 4), 96, JvpEngine(), num_inner=8, lora_r=32),
        Case("256x4, trace", tiny(256, 4), 96, TraceEngine(), num_inner=8, lora_r=32),
        Case("512x4, bf16, checkpointing", tiny(512, 4, "qwen2"), 512, BankEngine(dtype="bfloat16"), "bfloat16", True),
        Case("256x4, one row (SFT)", tiny(256, 4), 384, BankEngine(), objective=SFT()),
        Case("512x2, large vocabulary", tiny(512, 2, vocabulary=32768), 128, BankEngine()),
        Case("128x2, mostly adapters", tiny(128, 2, vocabulary=512), 16, BankEngine(), num_inner=2, lora_r=64),
        Case("128x2, mostly adapters, frozen", tiny(128, 2, vocabulary=512), 16, BankEngine("frozen"), num_inner=2,
             lora_r=64),
        Case("128x2, mostly adapters, shortened by fours", tiny(128, 2, vocabulary=512), 16, BankEngine(), num_inner=8,
             num_meta=8, lora_r=64, micro_batch_size=4, max_sample_norm=0.1),
    ],
    "cuda": [
        *(
            Case(f"{name}, {length} tokens{', checkpointing' if saved else ''}", SHAPES[name], length,
                 BankEngine(dtype="bfloat16"), "bfloat16", saved, lora_r=32, num_inner=16)
            for name, length, saved in (
                ("qwen3-1.7b", 1024, False),
                ("qwen3-1.7b", 8192, True),
                ("qwen2.5-14b", 512, False),
                ("qwen2.5-14b", 4096, True),
            )
        ),
        Case("qwen3-1.7b, 4096 tokens, offloaded", SHAPES["qwen3-1.7b"], 4096,
             BankEngine(dtype="bfloat16", offload=True), "bfloat16", True, lora_r=32, num_inner=16),
    ],
}  # fmt: skip


class RandomSamples:
    """Rows of random tokens, half of each a response; the second row of a pair is shorter where they differ."""

    def __init__(self, case: Case) -> None:
        self.case, self.rows = case, ROWS[case.objective.unit]

    def __len__(self) -> int:
        return 64

    def fingerprint(self) -> str:
        return f"random rows: {self.case.name}"

    def batch(self, indices: list[int]) -> JudgeBatch:
        length, rows = self.case.length, self.rows * len(indices)
        mask = torch.ones(rows, length, dtype=torch.bool)
        if self.case.padded and self.rows > 1:
            mask[1::2, -8:] = False
        response = mask.clone()
        response[:, : length // 2] = False
        return JudgeBatch(
            sample_ids=torch.tensor(indices),
            domains=torch.tensor(indices) % 3,
            input_ids=torch.randint(self.case.shape["vocab_size"], (rows, length)),
            attention_mask=mask,
            response_mask=response,
            reference_logp=torch.full((rows,), -8.0 * length / 2),
        )


class RandomData(BilevelData):
    """Such samples, dealt out in windows."""

    def __init__(self, case: Case, root: str) -> None:
        super().__init__(root, ("a", "b", "c"), case.num_inner, case.num_meta, max_windows=3, seed=0)
        self.case, self.max_length = case, case.length

    def load_samples(self, unit: Unit, max_new_tokens: int = 0) -> None:
        samples = RandomSamples(self.case)
        self.take_in(samples, samples)  # type: ignore[arg-type]


def make_module(case: Case) -> DataReweightedJudge:
    judge = Judge(
        case.name,
        case.base_dtype,
        lora_r=case.lora_r,
        lora_alpha=2 * case.lora_r,
        attention=case.attention,
        gradient_checkpointing=case.checkpointing,
    )
    return DataReweightedJudge(
        judge,
        inner=Level(lr=1e-6),
        outer=Level(lr=1e-4),
        objective=case.objective,
        reweighter=DomainWeights(),
        engine=case.engine,
        max_norm=1.0,
        max_sample_norm=case.max_sample_norm,
        micro_batch_size=case.micro_batch_size,
        outer_warmup_windows=1,
    )


def adapt(judge: Judge, case: Case, device: str) -> None:
    """The case's architecture with random weights."""
    torch.manual_seed(0)
    shape = {"max_position_embeddings": max(4096, case.length), **case.shape}
    config = AutoConfig.for_model(shape.pop("model_type"), **shape)
    with torch.device(device):
        base = AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, case.base_dtype), attn_implementation=case.attention
        )
        judge.adapt(base)


def predicted(case: Case, device: Literal["cpu", "cuda"]) -> Memory:
    """With half of every row scored, as the data here has it."""
    module = make_module(case)
    adapt(module.judge, case, "meta")
    with tempfile.TemporaryDirectory() as root:
        sizes, choices = read_run(module, RandomData(case, root), case.name)
    return memory(sizes, replace(choices, scored=case.length // 2), device, padded=case.padded)


def measured(case: Case, device: Literal["cpu", "cuda"]) -> int:
    """Peak bytes of three windows."""
    with tempfile.TemporaryDirectory() as root:
        trainer = Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            max_epochs=1,
            logger=False,
            limit_val_batches=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=root,
        )

        def run() -> DataReweightedJudge:
            module = make_module(case)
            adapt(module.judge, case, device)
            trainer.fit(module, RandomData(case, root))
            return module

        if device == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            module = run()
            peak = torch.cuda.max_memory_allocated() - before
        else:
            with LiveBytes() as count:
                module = run()
            peak = count.peak
    assert module.num_outer_steps == 2
    return peak


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", help="cases whose name holds this")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    print("| case | predicted MiB | measured MiB | off by | predicted moment |\n|---|---|---|---|---|")
    errors = []
    for case in CASES[args.device]:
        if args.only and args.only not in case.name:
            continue
        plan = predicted(case, args.device)
        peak = measured(case, args.device)
        errors.append(plan.peak / peak - 1)
        figures = f"{plan.peak / 2**20:.1f} | {peak / 2**20:.1f} | {errors[-1]:+.1%}"
        print(f"| {case.name} | {figures} | {plan.moment} |", flush=True)
        gc.collect()
    worst = max(map(abs, errors))
    print(f"\nworst of {len(errors)}: {worst:.1%}; limit {LIMIT:.0%}")
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
