"""Soft labels from the shard or from memory to the batch, through resizing and augmentation."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from factory_core.dataset import probability_levels
from train_seg.config import AugmentConfig, SegmenterConfig
from train_seg.data.augment import Augment
from train_seg.data.samples import DamagedSample, Decoder, Encoded
from train_seg.data.soft_labels import certain, most_probable
from train_seg.data.training_data import open_training_data
from train_seg.training.train import open_stages, train

PLAIN = AugmentConfig()
MOVES = {"horizontal_flip": True, "vertical_flip": True, "quarter_turns": True, "hue": 0.3}


def blurred(mask: np.ndarray) -> np.ndarray:
    """Levels of 0.7 for the class of the mask and 0.15 for the other two, `[3, H, W]`."""
    p = np.where(mask == np.arange(3)[:, None, None], 0.7, 0.15)
    return probability_levels(p[None].astype(np.float32))[0]


def open_soft(*data: Any, augment: AugmentConfig = PLAIN, **settings: Any) -> Any:
    return open_training_data(
        data, lambda size: Augment(augment, size), soft_labels=True, **settings
    )


@pytest.fixture
def soft(write_dataset: Any, tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "soft", probabilities=blurred)


def soft_images(make_labeled: Any, count: int = 4, size: int = 32) -> Any:
    data = make_labeled(count, size)
    levels = torch.from_numpy(np.stack([blurred(mask) for mask in data.masks.numpy()]))
    return replace(data, probabilities=levels)


def test_certain_and_most_probable_are_inverse(make_labeled: Any) -> None:
    masks = make_labeled(2).masks
    masks[0, :5] = 255
    levels = torch.stack([certain(mask, 3) for mask in masks])
    assert levels.shape == (2, 3, 32, 32)
    assert levels.unique().tolist() == [0, 255]
    assert torch.equal(most_probable(levels), masks)
    assert most_probable(masks) is masks


@pytest.mark.parametrize("augment", [{}, MOVES, {"scale": (0.4, 0.9)}, {"zoom": (0.5, 2)}])
def test_levels_move_with_the_mask(soft: Path, make_labeled: Any, augment: dict) -> None:
    config, images = AugmentConfig(**augment), soft_images(make_labeled)
    plain = open_training_data([soft, images], lambda size: Augment(config, size))
    pairs = zip(
        plain.source.epoch(1), open_soft(soft, images, augment=config).source.epoch(1), strict=True
    )
    ignored = 0
    for (image, mask), (same_image, levels) in pairs:
        assert torch.equal(image, same_image)
        assert levels.shape == (3, 32, 32)
        expected = blurred(mask.numpy()) * (mask.numpy() != 255)
        np.testing.assert_array_equal(levels.numpy(), expected)
        ignored += int((mask == 255).sum())
    assert (ignored > 0) == ("zoom" in augment)


def test_levels_are_resized_as_masks_are(soft: Path, make_labeled: Any) -> None:
    data = (soft, soft_images(make_labeled, size=48))
    plain = open_training_data(data, lambda size: Augment(AugmentConfig(), size), (16, 24))
    levels = [labels for _, labels in open_soft(*data, size=(16, 24)).source.epoch(0)]
    masks = [mask for _, mask in plain.source.epoch(0)]
    for mask, found in zip(masks, levels, strict=True):
        np.testing.assert_array_equal(found.numpy(), blurred(mask.numpy()))


def test_annotated_images_are_certain(soft: Path, make_labeled: Any) -> None:
    annotated = make_labeled(3)
    annotated.masks[:, :4] = 255
    data = open_soft(soft, annotated)
    images, labels = next(data.source.batches(15))
    found = {image.numpy().tobytes(): levels for image, levels in zip(images, labels, strict=True)}
    assert len(found) == 15
    for image, mask in zip(annotated.images, annotated.masks, strict=True):
        assert torch.equal(found.pop(image.numpy().tobytes()), certain(mask, 3))
    assert {int(levels.max()) for levels in found.values()} == {179}


def test_uncertain_pixels_are_ignored_in_soft_labels_too(
    write_dataset: Any, tmp_path: Path
) -> None:
    histogram = [0] * 256
    histogram[10], histogram[200] = 1, 1
    folder = write_dataset(
        tmp_path / "maps",
        levels=lambda mask: np.where(mask == 1, 200, 10).astype(np.uint8),
        histogram=histogram,
        probabilities=blurred,
    )
    for _, levels in open_soft(folder, ignore_above=0.5).source.epoch(0):
        assert set(levels.sum(0).unique().tolist()) == {0, 255}
        assert set(most_probable(levels[None]).unique().tolist()) == {0, 2, 255}


def test_probabilities_are_part_of_the_data(make_labeled: Any) -> None:
    images = soft_images(make_labeled)
    assert images.probabilities is not None
    other = replace(images, probabilities=images.probabilities.flip(1))
    plain = open_training_data([images], lambda size: Augment(AugmentConfig(), size))
    assert len({open_soft(images).digest, open_soft(other).digest, plain.digest}) == 3


def test_data_without_probabilities_are_refused(
    soft: Path, dataset: Path, make_labeled: Any
) -> None:
    with pytest.raises(ValueError, match=r"data has no class probabilities, which soft_l"):
        open_soft(soft, dataset)
    with pytest.raises(ValueError, match=r"soft_labels needs .* found only annotated"):
        open_soft(make_labeled(2))
    images = soft_images(make_labeled)
    levels = images.probabilities
    with pytest.raises(ValueError, match=r"found probabilities torch.uint8 \[4, 2, 32, 32\], exp"):
        open_soft(replace(images, probabilities=levels[:, 1:]))
    with pytest.raises(ValueError, match="levels that do not sum to 255 in each pixel"):
        open_soft(replace(images, probabilities=levels // 2))


@pytest.mark.parametrize(
    ("shape", "level", "message"),
    [
        ((32, 16), 0, r"prob.png has shape \(32, 16\), expected \(32, 32\)"),
        ((32, 32), 200, r"prob.png: found levels that sum to 400, expected at most 255"),
        (None, 0, r"found members json, png, seg.png, expected also prob.png"),
    ],
)
def test_damaged_probabilities(
    make_labeled: Any, shape: tuple[int, int] | None, level: int, message: str
) -> None:
    def png(pixels: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue()

    members = {
        "png": png(np.zeros((16, 32, 3), np.uint8)),
        "json": b"{}",
        "seg.png": png(np.zeros((16, 32), np.uint8)),
    }
    if shape is not None:
        members["prob.png"] = png(np.full(shape, level, np.uint8))
    decoder = Decoder((16, 32), Augment(AugmentConfig(), (16, 32)), 3, None, 0, soft=True)
    with pytest.raises(DamagedSample, match=message):
        decoder(Encoded("squares.tar", "000000000", members), 0)


def test_a_second_stage_on_annotated_images_is_certain(soft: Path, make_labeled: Any) -> None:
    config = SegmenterConfig(soft_labels=True)
    first, second = open_stages([soft], [make_labeled(2)], config, None, None)
    assert next(first.data.source.batches(2))[1].shape == (2, 3, 32, 32)
    assert next(second.data.source.batches(2))[1].shape == (2, 32, 32)
    assert second.config.soft_labels is False


@pytest.mark.slow
def test_training_learns_from_soft_labels_and_resumes(
    soft: Path, make_labeled: Any, config: SegmenterConfig, tmp_path: Path
) -> None:
    val = make_labeled(4)
    settings = {"soft_labels": True, "dice": 1.0, "max_steps": 60, "validate_every": 20}
    learned = config.model_copy(update=settings)
    result = train([soft, make_labeled(2, first=50)], tmp_path / "out", learned, val)
    assert result.scores["miou"] > 0.6
    again = train([soft, make_labeled(2, first=50)], tmp_path / "out", learned, val)
    assert torch.equal(again.predict(val.images), result.predict(val.images))
    with pytest.raises(ValueError, match="soft_labels"):
        train(
            [soft, make_labeled(2, first=50)],
            tmp_path / "out",
            config.model_copy(update={**settings, "soft_labels": False}),
            val,
        )
