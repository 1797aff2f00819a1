"""Joined data, rounds for Lightning, and the checks before anything is read."""

from __future__ import annotations

import itertools

import pytest
import torch

from train_seg.config import AugmentConfig
from train_seg.data.augment import Augment
from train_seg.data.training_data import LabeledImages, Rounds, open_training_data

PLAIN = AugmentConfig()


def open_data(*data, augment=PLAIN, size=None, **settings):
    return open_training_data(data, lambda s: Augment(augment, s), size, **settings)


def identities(pairs) -> list[int]:
    """One number per image, to distinguish samples."""
    return [hash(image.numpy().tobytes()) for image, _ in pairs]


def test_rounds_end_at_the_total_and_follow_the_position(dataset):
    source = open_data(dataset).source
    position = 0
    rounds = Rounds(source, 4, steps=3, total=5, position=lambda: position)
    first = identities(rounds)
    position = 3
    second = identities(rounds)
    assert (len(first), len(second)) == (3, 2)
    assert first + second == identities(itertools.islice(source.batches(4), 5))
    assert second == identities(rounds)  # the same steps once more


def test_resizes_to_the_requested_size(dataset, make_labeled):
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


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ((1.0,), r"--mix 1: found 1 weights, expected 2, one per --data"),
        ((0.9, 0.0), r"--mix 0.9,0: expected weights above 0"),
        ((0.9, -1), r"--mix 0.9,-1: expected weights above 0"),
        ((0.9, float("nan")), r"--mix 0.9,nan: expected weights above 0"),
    ],
)
def test_weights_must_match_the_data(dataset, make_labeled, mix, message):
    with pytest.raises(ValueError, match=message) as caught:
        open_data(dataset, make_labeled(2), mix=mix)
    assert "\n" not in str(caught.value)


def test_weights_are_part_of_the_data(dataset, make_labeled):
    plain, mixed, scaled, other = (
        open_data(dataset, make_labeled(2), mix=mix) for mix in (None, (3, 1), (6, 2), (1, 1))
    )
    assert mixed.digest == scaled.digest
    assert len({plain.digest, mixed.digest, other.digest}) == 3


def test_missing_and_empty_data(tmp_path, write_dataset):
    with pytest.raises(ValueError, match="give --data DIR"):
        open_data()
    with pytest.raises(FileNotFoundError, match="no such folder"):
        open_data(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="found no sample in any shard"):
        open_data(write_dataset(tmp_path / "empty", shards=()))
    nothing = LabeledImages(torch.zeros(0, 3, 8, 8), torch.zeros(0, 8, 8), ["a", "b"], name="mine")
    with pytest.raises(ValueError, match="mine: found no image"):
        open_data(nothing)


def test_annotated_images_with_unknown_class(make_labeled):
    good = make_labeled(1)
    bad = LabeledImages(good.images, good.masks, ["ground", "red"], name="mine")
    with pytest.raises(ValueError, match="mine: found class id 2, expected ids below 2"):
        open_data(bad)
