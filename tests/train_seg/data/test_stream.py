"""The order of samples: exact epochs, mixtures, resumption, several processes; skipping."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from train_seg.config import AugmentConfig
from train_seg.data.augment import Augment
from train_seg.data.samples import Pair
from train_seg.data.stream import DRAWS, Stream
from train_seg.data.training_data import LabeledImages, open_training_data

# Two loader processes are tested even on a single core.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

FLIPS = AugmentConfig(horizontal_flip=True, brightness=0.5)


def open_stream(
    *data: Path | LabeledImages, augment: AugmentConfig | None = None, **settings
) -> Stream:
    config = augment or AugmentConfig()
    return open_training_data(data, lambda size: Augment(config, size), **settings).source


def identities(pairs: Iterable[Pair]) -> list[int]:
    """One number per image, to distinguish samples."""
    return [hash(image.numpy().tobytes()) for image, _ in pairs]


def rows(stream: Iterable[Pair]) -> list[Pair]:
    """The samples of batches."""
    return [pair for batch in stream for pair in zip(*batch, strict=True)]


def equal(first: Iterable[Pair], second: Iterable[Pair]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)


@pytest.mark.parametrize("buffer", [1, 5, 1000])
def test_each_sample_once_per_epoch_in_a_new_order(dataset: Path, buffer: int) -> None:
    stream = open_stream(dataset, shuffle_buffer=buffer)
    first, second = (identities(stream.epoch(e)) for e in (0, 1))
    assert len(set(first)) == stream.samples == 12
    assert set(first) == set(second)
    assert first != second
    assert first == identities(stream.epoch(0))
    assert first != identities(open_stream(dataset, seed=1, shuffle_buffer=buffer).epoch(0))


def test_joined_sources_are_mixed_and_exact(dataset: Path, make_labeled: Callable) -> None:
    stream = open_stream(dataset, make_labeled(5))
    found = identities(stream.epoch(3))
    assert len(set(found)) == stream.samples == 17
    annotated = set(identities(open_stream(make_labeled(5)).epoch(0)))
    turns = [identity in annotated for identity in found]
    assert turns != sorted(turns)
    assert turns != sorted(turns, reverse=True)


def test_loader_processes_change_nothing(
    tmp_path: Path, write_dataset: Callable[..., Path], make_labeled: Callable
) -> None:
    histogram = [80, 10, 10, *[0] * 253]
    folder = write_dataset(tmp_path / "maps", levels=lambda mask: mask, histogram=histogram)
    settings = {"augment": FLIPS, "mix": (0.7, 0.3), "ignore_above": 0.9}
    alone, helped = (
        open_stream(folder, make_labeled(5), num_workers=workers, **settings) for workers in (0, 2)
    )
    found = [list(itertools.islice(stream.batches(4), 11)) for stream in (alone, helped)]
    assert equal(*found)
    assert any((masks == 255).any() for _, masks in found[0])


def test_the_callers_random_state_is_kept(dataset: Path) -> None:
    before = torch.get_rng_state()
    next(open_stream(dataset, augment=FLIPS).batches(4))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("mix", [None, (0.7, 0.3)])
@pytest.mark.parametrize("buffer", [3, 1000])
def test_batches_are_full_and_start_anywhere(
    dataset: Path, make_labeled: Callable, mix: tuple | None, buffer: int
) -> None:
    settings = {"augment": FLIPS, "mix": mix, "shuffle_buffer": buffer}
    stream = open_stream(dataset, make_labeled(3), **settings)
    whole = list(itertools.islice(stream.batches(4), 12))
    assert all(images.shape == (4, 3, 32, 32) for images, _ in whole)
    for start in range(12):
        assert equal([next(stream.batches(4, start))], [whole[start]])


def test_starting_late_in_a_mixture(dataset: Path, make_labeled: Callable) -> None:
    stream = open_stream(dataset, make_labeled(3), mix=(0.7, 0.3))
    steps = DRAWS // 1024
    whole = list(itertools.islice(stream.batches(1024), steps + 1))
    assert equal([next(stream.batches(1024, steps))], [whole[steps]])


def test_skipped_samples_are_not_decoded(dataset: Path) -> None:
    decoded = 0

    class Counting(Augment):
        def __call__(self, image: torch.Tensor, mask: torch.Tensor, seed: int) -> Pair:
            nonlocal decoded
            decoded += 1
            return image, mask

    data = open_training_data([dataset], lambda size: Counting(AugmentConfig(), size))
    next(data.source.batches(4, start_step=1000))
    assert decoded == 4


@pytest.mark.parametrize("mix", [None, (0.5, 0.5)])
@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_each_batch(
    dataset: Path, make_labeled: Callable, mix: tuple | None, world_size: int
) -> None:
    stream = open_stream(dataset, make_labeled(5), augment=FLIPS, mix=mix, shuffle_buffer=4)
    whole = itertools.islice(stream.batches(4, 2), 8)
    parts = [stream.batches(4, 2, rank, world_size) for rank in range(world_size)]
    for batch in whole:
        for rank, part in enumerate(parts):
            assert equal([next(part)], [tuple(t[rank::world_size] for t in batch)])


def test_a_batch_must_be_shared_evenly(dataset: Path) -> None:
    with pytest.raises(ValueError, match="batch_size 8 is not divisible by 3 processes"):
        next(open_stream(dataset).batches(8, 0, 0, 3))


def test_a_mixture_draws_by_weight_and_each_source_has_exact_epochs(
    dataset: Path, make_labeled: Callable
) -> None:
    annotated = set(identities(open_stream(make_labeled(5)).epoch(0)))
    stream = open_stream(dataset, make_labeled(5), mix=(9, 1))
    assert stream.samples == 17  # places that count as an epoch
    found = identities(rows(itertools.islice(stream.batches(50), 40)))
    of_annotated = [i for i in found if i in annotated]
    of_dataset = [i for i in found if i not in annotated]
    # 200 expected, four standard deviations of 13.4
    assert 146 < len(of_annotated) < 254
    for samples, several in ((5, of_annotated), (12, of_dataset)):
        epochs = [several[i : i + samples] for i in range(0, len(several) - samples, samples)]
        assert all(len(set(epoch)) == samples for epoch in epochs)
        assert len(set(map(tuple, epochs))) > 1


# --- damaged samples -------------------------------------------------------------------------


def damage(*damaged: int) -> Callable[[int, np.ndarray], np.ndarray]:
    """Gives some masks an unknown class id."""
    return lambda index, mask: np.where(index in damaged, np.uint8(9), mask)


@pytest.mark.parametrize("workers", [0, 1])
def test_unknown_class_id_ends_the_stream_at_its_batch(
    tmp_path: Path, write_dataset: Callable[..., Path], workers: int
) -> None:
    folder = write_dataset(tmp_path / "bad", change=damage(7))

    def mark(index: int, mask: np.ndarray) -> np.ndarray:
        return np.full_like(mask, 255) if index == 7 else mask

    marked = open_stream(write_dataset(tmp_path / "marked", change=mark)).batches(2)
    step = next(i for i, (_, masks) in enumerate(marked) if (masks == 255).flatten(1).all(1).any())
    assert step > 0
    stream = open_stream(folder, num_workers=workers).batches(2)
    for _ in range(step):
        next(stream)
    with pytest.raises(ValueError, match=r"000001.tar: sample 000000007: found class id 9") as e:
        next(stream)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_skipping_keeps_the_places_of_all_other_samples(
    tmp_path: Path,
    write_dataset: Callable[..., Path],
    workers: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = write_dataset(tmp_path / "bad", change=damage(2, 3, 7))
    stream = open_stream(folder, skip_damaged=True, num_workers=workers)
    found = rows(itertools.islice(stream.batches(4), 6))
    whole = open_stream(write_dataset(tmp_path / "good"))
    expected = rows(itertools.islice(whole.batches(4), 6))
    differing = sum(a != b for a, b in zip(identities(found), identities(expected), strict=True))
    assert differing == 2 * 3  # in two epochs
    assert all(int(mask.max()) < 3 for _, mask in found)
    assert stream.skipped == Counter({"unknown class id": 3})
    # One line for the first of its kind per shard.
    assert sum("skipped" in r.getMessage() for r in caplog.records) == 2
    for start in range(6):  # and a resumed stream does the same
        later = next(open_stream(folder, skip_damaged=True).batches(4, start))
        assert equal(rows([later]), found[4 * start : 4 * start + 4])


def test_a_batch_without_a_usable_sample_is_replaced_by_the_next(
    tmp_path: Path, write_dataset: Callable[..., Path]
) -> None:
    folder = write_dataset(tmp_path / "bad", change=damage(*range(9)))
    stream = open_stream(folder, skip_damaged=True)
    found = list(itertools.islice(stream.batches(2), 12))
    assert len(set(identities(rows(found)))) == 3
    assert stream.skipped == Counter({"unknown class id": 9})
    for start in range(12):
        later = next(open_stream(folder, skip_damaged=True).batches(2, start))
        assert equal([later], [found[start]])


def test_without_a_usable_sample_the_stream_ends(
    tmp_path: Path, write_dataset: Callable[..., Path]
) -> None:
    folder = write_dataset(tmp_path / "bad", change=damage(*range(12)))
    with pytest.raises(ValueError, match=r"class id 9, .* \(and no other sample is usable\)"):
        next(open_stream(folder, skip_damaged=True).batches(4))
