"""The price of a bi-level step: peak tensor bytes, process CPU time and passes, against the step without.

    python tools/bench_step.py                              # a tiny Qwen3, CPU
    python tools/bench_step.py --shape qwen3-1.7b --device cuda   # bfloat16 base, float32 adapters, random weights

Variants run interleaved in one process, medians over rounds. "plain" is accumulation without
reweighting (`Uniform`); "weighted" is a window in which no outer step is due; "inner+meta" adds the meta batch's
passes to plain, but no bank and no hypergradient; "bi-level" is the real step. So bi-level over inner+meta is the
price of the hypergradient, and the windows of one outer step over as many plain ones the whole price.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from daj_lightning.bilevel import (
    BankEngine,
    DomainWeights,
    FlatView,
    GradientSum,
    RecomputedLoss,
    Setting,
    TrainingSet,
    Window,
    snapshot,
)
from daj_lightning.bilevel.stores import BankDtype
from daj_lightning.judge import Judge
from daj_lightning.objectives import DPO
from daj_lightning.planning import LiveBytes
from daj_lightning.records import JudgeBatch

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 384, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 4096},
    "qwen3-1.7b": {"hidden_size": 2048, "num_hidden_layers": 28, "intermediate_size": 6144, "num_attention_heads": 16,
                   "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": True},
}  # fmt: skip


def make_judge(shape: str, device: str, lora_r: int) -> Judge:
    torch.manual_seed(0)
    config = AutoConfig.for_model("qwen3", max_position_embeddings=4096, **SHAPES[shape])
    base_dtype = torch.bfloat16 if device == "cuda" else torch.float32
    judge = Judge("random", lora_r=lora_r, lora_alpha=2 * lora_r)
    with torch.device(device):
        judge.adapt(AutoModelForCausalLM.from_config(config, dtype=base_dtype, attn_implementation="sdpa"))
    return judge


def make_batch(num: int, length: int, vocab: int, device: str, shares_prompt: bool = False) -> JudgeBatch:
    """Random pairs, half prompt and half response; a pair's rows have different prompts unless it shares its own."""
    mask = torch.zeros(2 * num, length, dtype=torch.bool)
    mask[:, length // 2 :] = True
    input_ids = torch.randint(vocab, (2 * num, length))
    if shares_prompt:
        input_ids[1::2, : length // 2] = input_ids[::2, : length // 2].clone()
    batch = JudgeBatch(
        sample_ids=torch.arange(num),
        domains=torch.arange(num) % 6,
        input_ids=input_ids,
        attention_mask=torch.ones(2 * num, length, dtype=torch.bool),
        response_mask=mask,
        reference_logp=torch.full((2 * num,), -8.0 * length / 2),
    )
    return batch.to(device)


class Step:
    """A bi-level step as training/module.py takes it, in four variants."""

    def __init__(self, judge: Judge, inner: JudgeBatch, meta: JudgeBatch, bank_dtype: BankDtype) -> None:
        self.judge, self.inner, self.meta = judge, inner, meta
        self.flat = FlatView(judge.trained_parameters())
        self.optimizer = torch.optim.Adam(self.flat.parameters, lr=1e-6)
        self.reweighter = DomainWeights()
        self.reweighter.build(TrainingSet(tuple("abcdef"), len(inner)))
        self.reweighter.to(inner.input_ids.device)
        self.outer = torch.optim.Adam(self.reweighter.parameters(), lr=1e-4)
        self.objective, self.engine = DPO(), BankEngine(dtype=bank_dtype)
        loss_at = RecomputedLoss(judge, self.objective).at
        self.setting = Setting(self.flat, len(inner), len("abcdef"), loss_at)

    def run(self, variant: str) -> None:
        banked = variant in ("weighted", "bi-level")
        store = self.engine.start(self.setting) if banked else GradientSum(self.flat)
        losses, weights = [], []
        for i, sample in enumerate(self.inner.micro_batches()):
            store.open(i, sample)
            loss = self.objective(self.judge, sample)
            losses.append(loss.detach())
            weights.append(self.reweighter(sample, losses[-1]).detach())
            loss.sum().backward()
            store.close(i, weights[-1])
        gradient = store.combine(self.inner, torch.cat(weights))
        update = snapshot(self.optimizer, self.flat) if banked else None
        self.flat.point_gradients_at(gradient)
        self.optimizer.step()
        self.flat.release_gradients()
        if variant in ("plain", "weighted"):
            return
        q = self.flat.new_zeros()
        self.flat.point_gradients_at(q)
        for sample in self.meta.micro_batches():
            (self.objective(self.judge, sample) / len(self.meta)).sum().backward()
        self.flat.release_gradients()
        if update is not None:
            self.engine.observe(Window(self.inner, torch.cat(losses), store.rows, gradient, None, update))
            self.outer.zero_grad()
            (credit,) = self.engine(q)
            self.reweighter(credit.batch, credit.losses).backward(gradient=credit.derivative)
            self.outer.step()


def peak_bytes(run: Callable[[], None], device: str) -> int:
    """Above what lives before the step."""
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() - before
    with LiveBytes() as count:
        run()
    return count.peak


def seconds(run: Callable[[], None], device: str) -> float:
    """Process CPU time; on a GPU, time on the device."""
    if device == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000
    begin = time.process_time()
    run()
    return time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--inner", type=int, default=16)
    parser.add_argument("--meta", type=int, default=8)
    parser.add_argument("--length", type=int, default=256, help="tokens of prompt and response")
    parser.add_argument("--lora-r", type=int, default=None, help="default: 8 for tiny, 32 for the others")
    parser.add_argument("--bank-dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    judge = make_judge(args.shape, args.device, args.lora_r or (8 if args.shape == "tiny" else 32))
    vocab = SHAPES[args.shape]["vocab_size"]
    inner, meta = (make_batch(n, args.length, vocab, args.device) for n in (args.inner, args.meta))
    step = Step(judge, inner, meta, args.bank_dtype)
    variants = ("plain", "weighted", "inner+meta", "bi-level")
    for variant in variants:
        step.run(variant)  # warm up, and give Adam its moments
    times: dict[str, list[float]] = {variant: [] for variant in variants}
    for _ in range(args.rounds):
        for variant in variants:
            times[variant].append(seconds(lambda v=variant: step.run(v), args.device))  # type: ignore[misc]
    peaks = {variant: peak_bytes(lambda v=variant: step.run(v), args.device) for variant in variants}  # type: ignore[misc]
    bank = args.inner * step.flat.size * (2 if args.bank_dtype == "bfloat16" else step.flat.parameters[0].itemsize)
    where = torch.cuda.get_device_name() if args.device == "cuda" else "CPU, 1 thread"
    print(f"{where}; {args.shape}, P = {step.flat.size:,}, K = {args.inner}, M = {args.meta}, {args.length} tokens,")
    print(f"bank {bank / 2**20:.2f} MiB; median of {args.rounds} interleaved rounds [min-max]\n")
    print("| variant | seconds | ratio | peak tensor MiB in the step |")
    print("|---|---|---|---|")
    base = statistics.median(times["plain"])
    for variant in variants:
        own = times[variant]
        median = statistics.median(own)
        span = f"{median:.3f} [{min(own):.3f}-{max(own):.3f}]"
        print(f"| {variant} | {span} | {median / base:.2f} | {peaks[variant] / 2**20:.2f} |")
    passes = statistics.median(times["bi-level"]) / statistics.median(times["inner+meta"])
    above = peaks["bi-level"] - peaks["inner+meta"] - bank
    medians = {variant: statistics.median(times[variant]) for variant in variants}
    prices = {m: ((m - 1) * medians["weighted"] + medians["bi-level"]) / (m * base) for m in (1, 4, 8, 16)}
    resident = sum(t.numel() * t.element_size() for t in judge.parameters()) + 2 * 4 * step.flat.size
    print(f"\nhypergradient: {passes:.3f}x the time of the same passes; memory above bank: {above / 2**20:.2f} MiB")
    print(f"= {above / (peaks['inner+meta'] + resident):.1%} of the step without it (with its model and moments)")
    print("whole price over plain: " + ", ".join(f"{p:.2f}x at meta_every {m}" for m, p in prices.items()))


if __name__ == "__main__":
    main()
