"""Writing predictions of any function from images to masks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from factory_core.dataset import overlay
from train_seg.inference import predict as module
from train_seg.inference.predict import predict

PALETTE = [[0, 0, 0], [255, 0, 0], [0, 0, 255]]


def readers(images: Iterable[tuple[str, torch.Tensor]]) -> dict[str, Callable[[], torch.Tensor]]:
    """What `predict` takes, of images in memory."""
    return {name: partial(torch.clone, image) for name, image in images}


def test_writes_masks_and_overlays_at_their_own_sizes(make_labeled, by_colour, tmp_path):
    small, large = make_labeled(3), make_labeled(1, size=48)
    names = ["a", "b", "c", "d"]
    images = zip(names, [*small.images, *large.images], strict=True)
    counts = predict(by_colour, readers(images), tmp_path / "out", PALETTE, batch_size=2)
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


def test_names_may_contain_folders_and_overlays_may_be_left_out(make_labeled, by_colour, tmp_path):
    images = [("day/a", make_labeled(1).images[0]), ("night/a", make_labeled(1).images[0])]
    predict(by_colour, readers(images), tmp_path / "out", PALETTE, overlays=False)
    masks = sorted(p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*.png"))
    assert [str(p) for p in masks] == ["masks/day/a.png", "masks/night/a.png"]


def test_large_overlays_are_drawn_in_bands_without_seams(
    make_labeled, by_colour, tmp_path, monkeypatch
):
    image, mask = make_labeled(1, size=48).images[0], make_labeled(1, size=48).masks[0]
    monkeypatch.setattr(module, "BAND_ROWS", 7)
    counts = predict(by_colour, readers([("a", image)]), tmp_path, PALETTE)
    shown = np.asarray(Image.open(tmp_path / "overlays" / "a.png"))
    assert np.array_equal(shown, overlay(image.permute(1, 2, 0).numpy(), mask.numpy(), PALETTE))
    assert counts.class_pixels == torch.bincount(mask.flatten(), minlength=3).tolist()


def test_batches_have_a_limited_number_of_pixels(make_labeled, by_colour, tmp_path, monkeypatch):
    seen = []

    def count(images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return by_colour(images)

    monkeypatch.setattr(module, "MAX_BATCH_PIXELS", 2 * 32 * 32)
    images = [*make_labeled(5).images, *make_labeled(2, size=48).images]
    predict(count, readers(zip("abcdefg", images, strict=True)), tmp_path, PALETTE, batch_size=4)
    assert seen == [2, 2, 1, 1, 1]


def test_replaces_predictions_but_never_annotations(make_labeled, by_colour, tmp_path):
    image = make_labeled(1).images[0]
    mine = tmp_path / "mine" / "masks" / "a.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"by hand")
    with pytest.raises(FileExistsError, match=r"mine/masks was not written by predict"):
        predict(by_colour, readers([("a", image)]), tmp_path / "mine", PALETTE)
    assert mine.read_bytes() == b"by hand"
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["masks"]

    def fail(images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        predict(fail, readers([("a", image)]), tmp_path / "out", PALETTE)
    for _ in range(2):
        assert predict(by_colour, readers([("a", image)]), tmp_path / "out", PALETTE).images == 1


def test_other_images_are_never_joined_to_earlier_ones(make_labeled, by_colour, tmp_path):
    names, images, out = "abcdef", make_labeled(6).images, tmp_path / "out"
    first = readers(zip(names, images, strict=True))
    predict(by_colour, first, out, PALETTE)
    with pytest.raises(FileExistsError, match=r"out/masks holds 4 .* such as c\.png: use another"):
        predict(by_colour, {name: first[name] for name in "ab"}, out, PALETTE)
    more = first | readers([("g", images[0])])
    assert predict(by_colour, more, out, PALETTE, overlays=False).images == 7
    assert len(list((out / "masks").iterdir())) == 7
    assert not list((out / "overlays").iterdir())  # they showed the earlier masks
    assert json.loads((out / "predictions.json").read_text())["images"] == 7


def test_images_that_cannot_be_read_are_left_out_and_listed(make_labeled, by_colour, tmp_path):
    good, out = readers(zip("abc", make_labeled(3).images, strict=True)), tmp_path / "out"
    predict(by_colour, good, out, PALETTE)

    def damaged() -> torch.Tensor:
        raise ValueError("cannot read b.jpg: broken")

    counts = predict(by_colour, good | {"b": damaged}, out, PALETTE, batch_size=2)
    assert counts.images == 2
    assert counts.failed == {"b": "cannot read b.jpg: broken"}
    for folder in ("masks", "overlays"):
        assert {path.name for path in (out / folder).iterdir()} == {"a.png", "c.png"}
    marker = json.loads((out / "predictions.json").read_text())
    assert marker["failed"] == counts.failed
    assert sum(marker["class_pixels"]) == 2 * 32 * 32
