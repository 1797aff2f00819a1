"""Decoding the images of a training once."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from factory_core.images import Pictures, read_image
from generators.training import images as module
from generators.training.images import TrainingImages, read_training_images

SIZE = 16


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five noisy photographs, the third of which breaks off half-way."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(5):
        pixels = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=95)
    cut = folder / "2.jpg"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    return folder


def read(photos: Path) -> TrainingImages:
    return read_training_images(photos, SIZE, photos.parent / "out", lambda *_: None)


def test_images_are_those_of_read_image_and_damaged_ones_are_listed(photos: Path) -> None:
    found = read(photos)
    names = ["0.jpg", "1.jpg", "3.jpg", "4.jpg"]
    assert list(found.digests) == names
    for image, name in zip(found, names, strict=False):
        assert torch.equal(image, read_image(photos / name, (SIZE, SIZE)))
    assert list(found.damaged) == ["2.jpg"]
    assert "2.jpg" in found.damaged["2.jpg"]
    assert not found.is_grey
    assert not (photos.parent / "out").exists()


def test_what_exceeds_the_share_of_memory_goes_to_a_file_that_vanishes(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory = read(photos)
    monkeypatch.setattr(module, "MEMORY_SHARE", 0)
    mapped = read(photos)
    assert isinstance(mapped.pixels, np.memmap)
    assert np.array_equal(mapped.pixels, in_memory.pixels)
    assert mapped.digests == in_memory.digests
    assert not list((photos.parent / "out").iterdir())
    for name in ("0.jpg", "1.jpg", "3.jpg", "4.jpg"):
        (photos / name).unlink()
    assert len(read(photos)) == 0


def test_digests_are_of_the_pixels(photos: Path) -> None:
    before = read(photos).digests
    (photos / "2.jpg").unlink()
    (photos / "4.jpg").rename(photos / "9.jpg")
    assert list(read(photos).digests.values()) == list(before.values())
    Image.new("RGB", (60, 40)).save(photos / "0.jpg")
    assert read(photos).digests["0.jpg"] != before["0.jpg"]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_grey_photographs_are_noticed_however_they_are_stored(photos: Path, mode: str) -> None:
    for path in photos.iterdir():
        if path.name != "2.jpg":
            Image.open(path).convert("L").convert(mode).save(path, quality=95)
    assert read(photos).is_grey
    Image.new("RGB", (60, 40), (90, 90, 92)).save(photos / "5.png")
    assert not read(photos).is_grey


def test_ctrl_c_does_not_wait_for_the_other_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(200):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    decoded = []

    def slowly(path: Path, size: tuple[int, int], pictures: Pictures) -> torch.Tensor:
        decoded.append(path)
        time.sleep(0.01)
        return read_image(path, size, pictures)

    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "read_image", slowly)
    with pytest.raises(KeyboardInterrupt):
        read_training_images(tmp_path, SIZE, tmp_path / "out", interrupt)
    assert len(decoded) < 100
