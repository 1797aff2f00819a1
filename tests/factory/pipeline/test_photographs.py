"""Files that are not images are found before any work begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from factory.pipeline.photographs import list_photographs


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(9):
        Image.new("RGB", (16, 16), (i, 0, 0)).save(folder / f"{i}.png")
    return folder


def test_absolute_and_sorted(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos.parent)
    assert list_photographs(Path("photos")) == tuple(str(photos / f"{i}.png") for i in range(9))


def test_links_keep_their_names(photos: Path, tmp_path: Path) -> None:
    """As in the folders of git-annex, DVC and the hub, which link to files named by their hash."""
    links = tmp_path / "links"
    links.mkdir()
    (links / "leaf.png").symlink_to(photos / "3.png")
    assert list_photographs(links) == (str(links / "leaf.png"),)


def test_unreadable_images_are_counted_and_the_first_named(photos: Path) -> None:
    (photos / "0.png").write_bytes(b"")
    (photos / "3.png").write_bytes((photos / "3.png").read_bytes()[:50])
    (photos / "5.jpg").write_bytes(b"no image")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photos / "6.jpg")
    (photos / "6.jpg").write_bytes((photos / "6.jpg").read_bytes()[:-2000])  # a sound header
    says = r"4 of the 11 images in .* \(0\.png, 3\.png, 5\.jpg, 6\.jpg\).*: it is"
    with pytest.raises(ValueError, match=says):
        list_photographs(photos)
    for i in range(9):
        (photos / f"{i}.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"11 of the 11 .*\(0\.png, .*, 4\.png, \.\.\.\): fix"):
        list_photographs(photos)


def test_a_sound_slide_that_is_too_large(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16 * 16 // 2 - 1)
    with pytest.raises(ValueError, match=r"9 of the 9 .*/0\.png: it is larger than .* megapixels"):
        list_photographs(photos)


def test_an_unreadable_image_stops_the_job_at_once(tiny: Any, photos: Path, tmp_path: Path) -> None:
    (photos / "8.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"1 of the 9 images .* \(8\.png\)"):
        tiny.label(photos, tmp_path / "out")
    assert not (tmp_path / "out").exists()
