"""The smear renderer: pure in its index, every class present, folders complete."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from factory.demo.render import CLASSES, PALETTE, render, render_folder


def test_same_index_same_smear() -> None:
    first = render(7)
    render(8)  # what ran in between must not matter
    again = render(7)
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])


def test_images_and_masks_have_their_type_and_differ() -> None:
    smears = [render(index) for index in range(50)]
    for image, mask in smears:
        assert image.shape == (64, 64, 3)
        assert mask.shape == (64, 64)
        assert image.dtype == mask.dtype == np.uint8
        assert mask.max() < len(CLASSES)
        assert 20 < image.mean() < 250
    assert len({image.tobytes() for image, _ in smears}) == 50


def test_every_class_is_frequent() -> None:
    masks = np.stack([render(index)[1] for index in range(50)])
    share = [(masks == c).any((1, 2)).mean() for c in range(len(CLASSES))]
    assert min(share) > 0.3, dict(zip(CLASSES, share, strict=True))


def test_mask_follows_the_image() -> None:
    """Nuclei are the darkest structure, the bare slide the brightest."""
    smears = [render(index) for index in range(20)]
    images = np.stack([image for image, _ in smears]).mean(-1)
    masks = np.stack([mask for _, mask in smears])
    brightness = {name: images[masks == c].mean() for c, name in enumerate(CLASSES)}
    assert min(brightness, key=brightness.__getitem__) == "nucleus"
    assert max(brightness, key=brightness.__getitem__) == "background"


def test_another_size_shows_the_same_smear() -> None:
    small, large = render(3, 32)[1], render(3, 96)[1]
    assert (small == large[1::3, 1::3]).mean() > 0.97


def test_folder_reopens(tmp_path: Path) -> None:
    render_folder(tmp_path, range(4, 6))
    written = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert written == [
        "classes.json",
        "images/000004.png",
        "images/000005.png",
        "masks/000004.png",
        "masks/000005.png",
    ]
    image, mask = render(5)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "images/000005.png")), image)
    with Image.open(tmp_path / "masks/000005.png") as reopened:
        assert reopened.mode == "P"
        assert np.array_equal(np.asarray(reopened), mask)
        assert tuple((reopened.getpalette() or [])[3:6]) == PALETTE[1]
    described = json.loads((tmp_path / "classes.json").read_text())
    assert described == {"classes": list(CLASSES), "palette": [list(c) for c in PALETTE]}


def test_a_folder_with_other_files_is_left_unchanged(tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text('{"classes": ["mine"]}')
    with pytest.raises(FileExistsError, match=r"holds classes\.json, no rendering"):
        render_folder(tmp_path, range(1), size=16)
    assert [p.name for p in tmp_path.iterdir()] == ["classes.json"]
    with pytest.raises(NotADirectoryError, match=r"found the file .*classes\.json, expected"):
        render_folder(tmp_path / "classes.json" / "x", range(1), size=16)


def test_a_rendering_can_be_resumed(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").touch()
    for start in (0, 1):
        render_folder(tmp_path, range(start, start + 1), size=16)
    assert len(list((tmp_path / "images").iterdir())) == 2


@pytest.mark.parametrize(("index", "size", "found"), [(-1, 64, "-1"), (0, 8, "8")])
def test_invalid_renderings_are_refused(index: int, size: int, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        render(index, size)
