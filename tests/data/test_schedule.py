"""What each step sees is a pure function of seed and step."""

from __future__ import annotations

import pytest

from daj_lightning.data import BilevelLoader, SampleStream
from daj_lightning.records import BilevelBatch, DajError
from tiny import make_batch


def test_an_epoch_sees_every_sample_once_and_the_next_is_shuffled_anew() -> None:
    stream = SampleStream(10, seed=0, name="train")
    first, second = stream.take(0, 10), stream.take(10, 10)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_a_position_says_the_same_from_anywhere() -> None:
    stream, again = SampleStream(7, seed=3, name="train"), SampleStream(7, seed=3, name="train")
    assert stream.take(0, 40)[25:33] == again.take(25, 8)


def test_streams_of_another_name_or_seed_differ() -> None:
    drawn = {tuple(SampleStream(50, seed, name).take(0, 20)) for seed in (0, 1) for name in ("train", "meta")}
    assert len(drawn) == 4


def test_an_empty_set_is_an_error() -> None:
    with pytest.raises(DajError, match="meta set is empty"):
        SampleStream(0, seed=0, name="meta")


def loader(seen: list[tuple[list[int], list[int]]]) -> BilevelLoader:
    train, meta = SampleStream(20, 0, "train"), SampleStream(9, 0, "meta")

    def window(number: int) -> BilevelBatch:
        seen.append((train.take(16 * number, 16), meta.take(8 * number, 8)))
        return BilevelBatch(make_batch(1), make_batch(1))

    return BilevelLoader(window, max_windows=6)


def test_a_resumed_loader_goes_on_in_the_middle_of_an_epoch() -> None:
    unbroken: list = []
    list(loader(unbroken))
    head: list = []
    first = loader(head)
    iterator = iter(first)
    next(iterator), next(iterator)
    tail: list = []
    second = loader(tail)
    second.load_state_dict(first.state_dict())
    list(second)
    assert head + tail == unbroken
    assert len(unbroken) == 6
    assert all(len(train) == 16 and len(meta) == 8 for train, meta in unbroken)
