"""Scoring and writing predictions with any function from images to masks."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from factory.dataset import overlay
from train_seg.evaluate import evaluate, scores_table
from train_seg.predict import predict

PALETTE = [[0, 0, 0], [255, 0, 0], [0, 0, 255]]


def by_colour(images: torch.Tensor) -> torch.Tensor:
    """The squares of the fixtures, told apart by their channel."""
    masks = torch.zeros(images.shape[0], *images.shape[2:], dtype=torch.uint8)
    masks[images[:, 0] > 200] = 1
    masks[images[:, 2] > 200] = 2
    return masks


def test_evaluates_and_shows_a_table(make_labeled):
    data = make_labeled(5)
    result = evaluate(by_colour, data.images, data.masks, data.classes, batch_size=2)
    assert (result.images, result.miou, result.pixel_accuracy) == (5, 1.0, 1.0)
    console = Console(file=io.StringIO(), width=160)
    console.print(scores_table(result, "squares"))
    text = console.file.getvalue()
    assert "mIoU (reference)" in text
    assert "mean over the classes present in the ground truth" in text
    assert "ground" in text


def test_writes_masks_and_overlays_at_their_own_sizes(make_labeled, tmp_path):
    small, large = make_labeled(3), make_labeled(1, size=48)
    names = ["a", "b", "c", "d"]
    images = zip(names, [*small.images, *large.images], strict=True)
    counts = predict(by_colour, images, tmp_path / "out", PALETTE, batch_size=2)
    assert counts.images == 4
    assert sum(counts.class_pixels) == 3 * 32 * 32 + 48 * 48
    mask = Image.open(tmp_path / "out" / "masks" / "d.png")
    assert np.array_equal(np.asarray(mask), large.masks[0])
    assert mask.mode == "P"
    shown = np.asarray(Image.open(tmp_path / "out" / "overlays" / "a.png"))
    pixels = small.images[0].permute(1, 2, 0).numpy()
    assert np.array_equal(shown, overlay(pixels, small.masks[0].numpy(), PALETTE))
    marker = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert marker["class_pixels"] == counts.class_pixels
    assert (marker["complete"], marker["images"], marker["palette"]) == (True, 4, PALETTE)


def test_two_images_of_one_name(make_labeled, tmp_path):
    image = make_labeled(1).images[0]
    with pytest.raises(ValueError, match="two images are called 'a'"):
        predict(by_colour, [("a", image), ("a", image)], tmp_path, PALETTE)


def test_replaces_predictions_but_never_annotations(make_labeled, tmp_path):
    image = make_labeled(1).images[0]
    mine = tmp_path / "mine" / "masks" / "a.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"by hand")
    with pytest.raises(FileExistsError, match=r"mine/masks was not written by predict"):
        predict(by_colour, [("a", image)], tmp_path / "mine", PALETTE)
    assert mine.read_bytes() == b"by hand"
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["masks"]

    def fail(images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        predict(fail, [("a", image)], tmp_path / "out", PALETTE)
    for _ in range(2):
        assert predict(by_colour, [("a", image)], tmp_path / "out", PALETTE).images == 1
