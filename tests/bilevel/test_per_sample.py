"""One backward pass over several samples leaves each sample's gradient in its own row."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from daj_lightning.bilevel import (
    DomainSums,
    FlatView,
    GradientBank,
    GradientStore,
    GradientSum,
    OffloadedBank,
    PerSampleGradients,
    SampleRows,
    per_sample,
)
from daj_lightning.bilevel.stores import BankDtype
from daj_lightning.judge import Judge
from daj_lightning.objectives import DPO
from daj_lightning.planning import LiveBytes
from daj_lightning.records import DajError, JudgeBatch
from inner import relative_error
from tiny import make_batch, make_judge, randomize_adapters

K = 6


def window() -> JudgeBatch:
    """Pairs of random lengths; all of the third one's tokens are masked out of the loss."""
    batch = make_batch(K, length=14, response=6)
    mask, response = batch.attention_mask.clone(), batch.response_mask.clone()
    for row, length in enumerate([14, 12, 10, 14, 13, 13, 9, 10, 14, 11, 12, 12]):
        mask[row, length:] = response[row, length:] = False
    response[4:6] = False
    return replace(batch, attention_mask=mask, response_mask=response, reference_logp=batch.reference_logp.double())


def record(judge: Judge, store: GradientStore, batch: JudgeBatch, size: int, weights: Tensor) -> Tensor:
    """The store's rows after a window, a copy."""
    i = 0
    for samples in batch.micro_batches(size):
        own = weights[i : i + len(samples)]
        store.open(i, samples)
        total = store.total(DPO()(judge, samples), own)
        if total.requires_grad:
            total.backward()
        store.close(i, own)
        i += len(samples)
    return store.rows.clone()


@pytest.fixture
def judge(tiny_config: Qwen3Config, true_float64: None) -> Judge:
    judge = make_judge(tiny_config).double()
    randomize_adapters(judge)
    return judge


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("kind", ["bank", "domains", "sum"])
def test_stores_keep_the_same_of_every_size(judge: Judge, kind: str, packing: bool) -> None:
    flat, splitter = FlatView(judge.trained_parameters()), PerSampleGradients(judge)
    stores = {
        "bank": lambda: GradientBank(flat, K, splitter=splitter),
        "domains": lambda: DomainSums(flat, 3, splitter),
        "sum": lambda: GradientSum(flat),
    }
    batch, weights = window(), torch.rand(K, dtype=torch.float64)
    wanted = record(judge, stores[kind](), batch, 1, weights)
    if packing:
        judge.pack_rows()
    for size in (2, 4, K):
        rows = record(judge, stores[kind](), batch, size, weights)
        assert relative_error(rows, wanted) <= 1e-13
        if kind == "bank":
            assert float(rows[2].abs().max()) == 0, "no token of this sample is scored"
            assert len({float(row.norm()) for row in rows}) == K


@pytest.mark.parametrize("packing", [False, True])
def test_longer_gradients_are_shortened_in_micro_batches_of_every_size(judge: Judge, packing: bool) -> None:
    flat, splitter = FlatView(judge.trained_parameters()), PerSampleGradients(judge)
    batch, weights = window(), torch.rand(K, dtype=torch.float64)
    raw = record(judge, GradientBank(flat, K), batch, 1, weights)
    lengths = raw.norm(dim=1)
    norm = float(lengths.median())
    wanted = torch.stack([row * norm / n if n > norm else row for row, n in zip(raw, lengths, strict=True)])
    assert 0 < int((lengths > norm).sum()) < K
    assert float(lengths[2]) == 0, "a gradient of 0 has no direction, and stays"
    if packing:
        judge.pack_rows()
    for size in (1, 2, 4, K):
        for bank in (GradientBank, OffloadedBank):
            rows = record(judge, bank(flat, K, splitter=splitter, max_sample_norm=norm), batch, size, weights)
            assert relative_error(rows, wanted) <= 1e-13
            narrow = bank(flat, K, "bfloat16", splitter=splitter, max_sample_norm=norm)
            assert relative_error(record(judge, narrow, batch, size, weights).double(), wanted) <= 2**-8
        (total,) = record(judge, GradientSum(flat, splitter, norm), batch, size, weights)
        assert relative_error(total, weights @ wanted) <= 1e-13
        sample_rows, q, i = SampleRows(flat, splitter, norm), flat.new_zeros(), 0
        for samples in batch.micro_batches(size):
            sample_rows.open(len(samples))
            if (loss := DPO()(judge, samples).sum()).requires_grad:
                loss.backward()
            sample_rows.add_to(q, weights[i : i + len(samples)])
            i += len(samples)
        assert relative_error(q, weights @ wanted) <= 1e-13


def test_a_norm_that_nothing_reaches_changes_no_bit(judge: Judge) -> None:
    flat, splitter, batch = FlatView(judge.trained_parameters()), PerSampleGradients(judge), window()
    for size in (1, 4):
        for dtype in ("float32", "bfloat16"):
            banks = [GradientBank(flat, K, dtype, 1, splitter, norm) for norm in (None, 1e9)]  # type: ignore[arg-type]
            free, under = (record(judge, bank, batch, size, torch.ones(K)) for bank in banks)
            assert torch.equal(free, under)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_have_the_banks_dtype_over_a_bfloat16_base(tiny_config: Qwen3Config, dtype: BankDtype) -> None:
    """peft casts the layer's input up to the adapters; a batch rounds otherwise than its samples."""
    judge = make_judge(tiny_config, base_dtype=torch.bfloat16)
    randomize_adapters(judge)
    batch = window()
    flat, splitter = FlatView(judge.trained_parameters()), PerSampleGradients(judge)
    banks = [GradientBank(flat, K, dtype, splitter=splitter) for _ in range(2)]
    alone, together = (
        record(judge, bank, batch, size, torch.ones(K)) for bank, size in zip(banks, (1, 4), strict=True)
    )
    assert together.dtype is getattr(torch, dtype)
    assert relative_error(together, alone) <= 0.02


def test_dropout_of_adapters_leaves_rows_apart(tiny_config: Qwen3Config) -> None:
    """The sum of the rows is the gradient that autograd gives the batch under the same dropout."""
    torch.manual_seed(0)
    judge = Judge("test", lora_r=4, lora_alpha=8, lora_dropout=0.3)
    judge.adapt(Qwen3ForCausalLM(tiny_config).double())
    judge.double().train()
    randomize_adapters(judge)
    flat, batch = FlatView(judge.trained_parameters()), window()
    torch.manual_seed(1)
    rows = record(judge, GradientBank(flat, K, splitter=PerSampleGradients(judge)), batch, K, torch.ones(K))
    torch.manual_seed(1)
    wanted = torch.autograd.grad(DPO()(judge, batch).sum(), flat.parameters)
    assert relative_error(rows.sum(dim=0), flat.gather(wanted)) <= 1e-6  # norms are in float32 here


def test_a_gated_product_is_not_kept_beside_its_factors(judge: Judge) -> None:
    """What a forward leaves alive is less by one such tensor a layer, and the gradients are exact as above."""
    batch, config = make_batch(K, length=14, response=6), judge.causal_lm.config
    splitter, flat = PerSampleGradients(judge), FlatView(judge.trained_parameters())
    rows, kept = flat.new_zeros(K), []
    for directed in (False, True):
        if directed:
            splitter.open(rows, range(K))
        with LiveBytes() as count:
            loss = DPO()(judge, batch)
            kept.append(count.live)
        loss.sum().backward()
    splitter.close()
    num_tokens = batch.input_ids.numel()
    assert kept[0] - kept[1] == config.num_hidden_layers * num_tokens * config.intermediate_size * 8


def test_a_product_that_was_changed_afterwards_has_no_factors() -> None:
    gate, up = torch.rand(3, 4, requires_grad=True), torch.rand(3, 4, requires_grad=True)
    product = gate * up
    factors = per_sample._factors(product)
    assert factors is not None
    torch.testing.assert_close(factors[0] * factors[1], product.detach())
    with torch.no_grad():
        product.clamp_(max=0.1)
    assert per_sample._factors(product) is None
    assert per_sample._factors(gate + up) is None


def test_samples_of_one_row_get_the_gradient_of_their_sum(judge: Judge) -> None:
    batch, flat, splitter = window(), FlatView(judge.trained_parameters()), PerSampleGradients(judge)
    wanted = flat.gather(torch.autograd.grad(DPO()(judge, batch).sum(), flat.parameters))
    for packing in (False, True):
        if packing:
            judge.pack_rows()
        q = flat.new_zeros()
        splitter.open(q[None], [0] * K)
        DPO()(judge, batch).sum().backward()
        splitter.close()
        assert relative_error(q, wanted) <= 1e-13


def test_layers_are_their_own_again_after_a_micro_batch(judge: Judge) -> None:
    flat, splitter, batch = FlatView(judge.trained_parameters()), PerSampleGradients(judge), window()
    record(judge, GradientBank(flat, K, splitter=splitter), batch, 4, torch.ones(K))
    assert not any("forward" in vars(module) for module in judge.modules())
    flat.point_gradients_at(q := flat.new_zeros())
    DPO()(judge, batch).sum().backward()
    assert float(q.norm()) > 0


def test_what_trains_beside_linear_layers_is_refused(tiny_config: Qwen3Config) -> None:
    everything = Judge("test", base_dtype="float32", trains="everything")
    everything.adapt(Qwen3ForCausalLM(tiny_config))
    with pytest.raises(DajError, match=r"Set model\.micro_batch_size to 1"):
        PerSampleGradients(everything)
    judge = make_judge(tiny_config)
    judge.causal_lm.get_input_embeddings().weight.requires_grad_()
    with pytest.raises(DajError, match="1 other tensors of this judge train"):
        PerSampleGradients(judge)
