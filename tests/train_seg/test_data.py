"""Exact epochs, determinism, resumption of the stream, and damaged data."""

from __future__ import annotations

import itertools
import os
from collections import Counter

import numpy as np
import pytest
import torch

from factory.dataset import open_dataset
from train_seg.augment import Augment
from train_seg.config import AugmentConfig
from train_seg.data import LabeledImages, Rounds, batches, open_training_data
from train_seg.shards import ShardSource

PLAIN = AugmentConfig()

# Two loader processes are tested even where there is one core.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def open_data(*data, augment=PLAIN, size=None, **settings):
    return open_training_data(data, lambda s: Augment(augment, s), size, **settings)


def identities(pairs) -> list[int]:
    """A number an image, to tell samples apart."""
    return [hash(image.numpy().tobytes()) for image, _ in pairs]


@pytest.mark.parametrize("workers", [0, 2])
def test_each_sample_once_an_epoch_in_a_new_order(dataset, workers):
    source = open_data(dataset, num_workers=workers).source
    first, second = (identities(source.epoch(e)) for e in (0, 1))
    assert len(set(first)) == source.samples == 12
    assert set(first) == set(second)
    assert first != second
    assert first == identities(source.epoch(0))
    assert first != identities(open_data(dataset, seed=1).source.epoch(0))


def test_joined_sources_are_mixed_and_exact(dataset, make_labeled):
    data = open_data(dataset, make_labeled(5))
    found = identities(data.source.epoch(3))
    assert len(set(found)) == data.source.samples == 17
    assert found == identities(data.source.epoch(3))


def test_batches_are_full_and_start_anywhere(dataset):
    source = open_data(dataset, augment=AugmentConfig(vertical_flip=True)).source
    stream = list(itertools.islice(batches(source, 5), 8))
    assert all(images.shape == (5, 3, 32, 32) for images, _ in stream)
    for start in (1, 3, 6):
        later = next(batches(source, 5, start))
        assert torch.equal(later[0], stream[start][0])
        assert torch.equal(later[1], stream[start][1])
    seen = Counter(identities(zip(*map(torch.cat, zip(*stream, strict=True)), strict=True)))
    assert sum(seen.values()) == 40


def test_rounds_end_at_the_total_and_follow_the_position(dataset):
    source = open_data(dataset).source
    position = 0
    rounds = Rounds(source, 4, steps=3, total=5, position=lambda: position)
    first = identities(rounds)
    position = 3
    second = identities(rounds)
    assert (len(first), len(second)) == (3, 2)
    assert first + second == identities(itertools.islice(batches(source, 4), 5))
    assert second == identities(rounds)  # asked again for the same steps


def test_augmentation_does_not_depend_on_workers(dataset):
    augment = AugmentConfig(horizontal_flip=True, brightness=0.5)
    alone = open_data(dataset, augment=augment).source.epoch(1)
    helped = open_data(dataset, augment=augment, num_workers=2).source.epoch(1)
    assert set(identities(alone)) == set(identities(helped))


def test_resizes_to_the_size_asked_for(dataset, make_labeled):
    data = open_data(dataset, make_labeled(1, 48), size=(16, 24))
    for image, mask in data.source.epoch(0):
        assert image.shape == (3, 16, 24)
        assert set(mask.unique().tolist()) <= {0, 1, 2}


def test_digest_follows_the_data(dataset, write_dataset, tmp_path):
    other = write_dataset(tmp_path / "other", shards=(5, 4, 4))
    assert open_data(dataset).digest == open_data(dataset, num_workers=1).digest
    assert open_data(dataset).digest != open_data(other).digest


def test_classes_and_sizes_must_agree(dataset, write_dataset, make_labeled, tmp_path):
    other = write_dataset(tmp_path / "other", classes=["ground", "blue", "red"])
    with pytest.raises(ValueError, match=r"other has the classes ground, blue, red, .*ground, red"):
        open_data(dataset, other)
    large = write_dataset(tmp_path / "large", size=48)
    with pytest.raises(ValueError, match=r"images of 48x48, .* of 32x32: set image_size"):
        open_data(dataset, large)
    assert open_data(dataset, large, size=(32, 32)).image_size == (32, 32)


def test_nothing_to_train_on(tmp_path, write_dataset):
    with pytest.raises(ValueError, match="give --data DIR"):
        open_data()
    with pytest.raises(FileNotFoundError, match="no such folder"):
        open_data(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="found no sample in any shard"):
        open_data(write_dataset(tmp_path / "empty", shards=()))
    nothing = LabeledImages(torch.zeros(0, 3, 8, 8), torch.zeros(0, 8, 8), ["a", "b"], name="mine")
    with pytest.raises(ValueError, match="mine: found no image"):
        open_data(nothing)


@pytest.mark.parametrize("workers", [0, 1])
def test_shard_cut_off_while_training(dataset, workers):
    opened = open_dataset(dataset)
    source = ShardSource([opened], (32, 32), Augment(PLAIN, (32, 32)), 0, workers)
    shard = opened.shard_paths[1]
    os.truncate(shard, shard.stat().st_size // 2)
    with pytest.raises(ValueError, match=r"squares-000001.tar: .*") as error:
        list(source.epoch(0))
    assert "\n" not in str(error.value)
    shard.unlink()
    with pytest.raises(ValueError, match=r"squares-000001.tar: cannot be read"):
        list(source.epoch(0))
    with pytest.raises(FileNotFoundError, match="is missing"):
        open_data(dataset)


def test_class_id_beyond_the_list_names_shard_and_key(tmp_path, write_dataset):
    def spoil(index: int, mask: np.ndarray) -> np.ndarray:
        return np.where(index == 7, np.uint8(9), mask)

    source = open_data(write_dataset(tmp_path / "bad", change=spoil)).source
    with pytest.raises(ValueError, match=r"000001.tar: sample 000000007: found class id 9") as e:
        list(source.epoch(0))
    assert "\n" not in str(e.value)


def test_ignored_pixels_are_no_class(tmp_path, write_dataset):
    folder = write_dataset(tmp_path / "some", change=lambda _, mask: np.full_like(mask, 255))
    assert len(list(open_data(folder).source.epoch(0))) == 12


def test_fewer_samples_than_listed(tmp_path, write_dataset):
    folder = write_dataset(tmp_path / "less", shards=(3,), declared=4)
    with pytest.raises(ValueError, match=r"hold 3 samples, their dataset.json lists 4"):
        list(open_data(folder).source.epoch(0))


def test_annotated_images_with_unknown_class(make_labeled):
    good = make_labeled(1)
    bad = LabeledImages(good.images, good.masks, ["ground", "red"], name="mine")
    with pytest.raises(ValueError, match="mine: found class id 2, expected ids below 2"):
        open_data(bad)
