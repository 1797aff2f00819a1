"""Reading annotated folders: images and masks with equal names, and every mistake."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from factory_core.annotated.annotations import ImageFolder, read_annotations
from factory_core.images import list_images

IDS = np.array([[0, 1, 2], [2, 1, 255]], np.uint8)
PALETTE = [[0, 0, 0], [200, 10, 10], [10, 200, 10]]


def image(path: Path, size: tuple[int, int] = (2, 3), value: int = 7) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)
    return path


def mask(path: Path, ids: np.ndarray = IDS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, ids)
    else:
        Image.fromarray(ids).save(path)
    return path


def colours(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(PALETTE, np.uint8)[np.minimum(IDS, 2)]).save(path)
    return path


def refused(folder: Path, pattern: str, error: type[Exception] = ValueError, **kwargs) -> None:
    with pytest.raises(error, match=pattern) as caught:
        read_annotations(folder, **kwargs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".npy"])
def test_two_folders(tmp_path, suffix):
    for stem in ("b", "a"):
        image(tmp_path / "images" / f"{stem}.jpg", value=ord(stem))
        mask(tmp_path / "masks" / f"{stem}{suffix}")
    (tmp_path / "images" / "._a.jpg").write_bytes(b"a hidden file of macOS")
    found = read_annotations(tmp_path)
    assert found.stems == ["a", "b"]
    assert found.classes == ["class_0", "class_1", "class_2"]
    assert (found.images.dtype, found.masks.dtype) == (torch.uint8, torch.uint8)
    assert found.images.shape == (2, 3, 2, 3)
    assert found.images[:, 0, 0, 0].tolist() == [97, 98]
    assert np.array_equal(found.masks[1], IDS)


@pytest.mark.parametrize(
    ("picture", "labels"), [("a.png", "a.npy"), ("a.jpg", "a.npy"), ("a.jpg", "a.png")]
)
def test_side_by_side(tmp_path, picture, labels):
    image(tmp_path / picture)
    mask(tmp_path / labels)
    found = read_annotations(tmp_path)
    assert found.images.unique().tolist() == [7]
    assert np.array_equal(found.masks[0], IDS)


def test_some_samples_may_lack_masks(tmp_path):
    for i, stem in enumerate(("a", "b", "c")):
        image(tmp_path / "images" / f"{stem}.png", value=i)
    mask(tmp_path / "masks" / "b.png")
    refused(tmp_path, r"images/a\.png has no mask")
    (tmp_path / "samples.json").write_text("{}")
    found = read_annotations(tmp_path)
    assert (found.stems, found.images.unique().tolist()) == (["b"], [1])
    mask(tmp_path / "masks" / "d.png")
    refused(tmp_path, r"mask .*d\.png has no image named d")


def test_colours_through_the_palette(tmp_path):
    image(tmp_path / "images" / "a.png")
    colours(tmp_path / "masks" / "a.png")
    names = {"classes": ["x", "y", "z"], "palette": PALETTE}
    (tmp_path / "classes.json").write_text(json.dumps(names))
    found = read_annotations(tmp_path)
    assert np.array_equal(found.masks[0], np.minimum(IDS, 2))
    assert (found.classes, found.palette) == (["x", "y", "z"], PALETTE)


def test_colours_without_a_palette(tmp_path):
    image(tmp_path / "images" / "a.png")
    colours(tmp_path / "masks" / "a.png")
    refused(tmp_path, "is a colour image, expected class ids: save it as an index PNG")


def test_resizing_once(tmp_path):
    image(tmp_path / "images" / "a.png", (6, 4))
    mask(tmp_path / "masks" / "a.png", np.repeat(np.repeat(IDS[:, :2], 3, 0), 2, 1))
    image(tmp_path / "images" / "b.png", (2, 3))
    mask(tmp_path / "masks" / "b.png")
    found = read_annotations(tmp_path, (2, 2))
    assert found.images.shape == (2, 3, 2, 2)
    assert np.array_equal(found.masks[0], IDS[:, :2])
    assert set(found.masks.unique().tolist()) <= {0, 1, 2, 255}  # no interpolated ids
    refused(tmp_path, r"b\.png is 3x2 pixels, a\.png is 4x6: give one size")


def test_class_names(tmp_path):
    image(tmp_path / "set" / "a.png")
    mask(tmp_path / "set" / "a.npy")
    (tmp_path / "classes.json").write_text('{"classes": ["x", "y", "z"], "more": 1}')
    assert read_annotations(tmp_path / "set").classes == ["x", "y", "z"]
    assert read_annotations(tmp_path / "set", classes=list("xyz")).classes == ["x", "y", "z"]
    for other in ("pqr", "zyx", "xy"):
        both = re.escape(f"has the classes ['x', 'y', 'z'], expected {list(other)}: ")
        refused(tmp_path / "set", rf"classes\.json {both}", classes=list(other))
    (tmp_path / "set" / "classes.json").write_text('{"classes": ["x", "y"]}')
    refused(tmp_path / "set", r"a\.npy has class id 2, but there are 2 classes \(0 to 1\)")
    for file in tmp_path.rglob("classes.json"):
        file.unlink()
    refused(tmp_path / "set", "class id 2, but there are 1 classes", classes=["only"])
    assert read_annotations(tmp_path / "set", classes=list("pqrs")).classes == list("pqrs")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "expected"),
        ('{"classes": []}', "expected"),
        ('{"classes": [1]}', "expected"),
        ('{"classes": ["a"], "palette": [[0, 0]]}', 'expected "palette" as 1 colours'),
        ('{"classes": ["a"], "palette": [[0, 0, 256]]}', 'expected "palette" as 1 colours'),
        ('{"classes": ["a"], "palette": [[0], [1, 2]]}', 'expected "palette" as 1 colours'),
        ('{"classes": ["a", "b", "a"]}', "lists the class 'a' more than once"),
        (r'{"classes": ["a\ud800"]}', "holds half a character"),
        (json.dumps({"classes": ["c"] * 256}), "has 256 classes, expected at most 255"),
    ],
)
def test_wrong_class_list(tmp_path, text, message):
    image(tmp_path / "a.png")
    mask(tmp_path / "a.npy")
    (tmp_path / "classes.json").write_text(text)
    refused(tmp_path, rf"classes\.json.*{message}")


def test_missing_folder(tmp_path):
    refused(tmp_path / "x", "folder .*x does not exist", FileNotFoundError)
    image(tmp_path / "images" / "a.png")
    refused(tmp_path, "folder .*masks does not exist", FileNotFoundError)
    refused(tmp_path / "images" / "a.png", "is a file, expected a folder", NotADirectoryError)


def test_empty_folder(tmp_path):
    refused(tmp_path, "no annotated images in")
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    refused(tmp_path, "no images in .*images: expected files ending in")


def test_unpaired_files(tmp_path):
    image(tmp_path / "images" / "a.png")
    (tmp_path / "masks").mkdir()
    refused(tmp_path, r"a\.png has no mask: expected .*masks/a\.png or \.npy")
    mask(tmp_path / "masks" / "a.png")
    mask(tmp_path / "masks" / "b.npy")
    refused(tmp_path, r"mask .*b\.npy has no image named b")
    mask(tmp_path / "masks" / "b.png")
    refused(tmp_path, r"b\.npy and b\.png have the same stem")


def test_unpaired_side_by_side(tmp_path):
    image(tmp_path / "a.png")
    refused(tmp_path, r"a\.png has no mask: expected .*a\.npy or a_mask\.png beside it, or folders")


def test_a_lossy_mask(tmp_path):
    image(tmp_path / "images" / "a.png")
    image(tmp_path / "masks" / "a.jpg")
    refused(tmp_path, r"a\.jpg is in a format that may alter ids: save masks as \.png or \.npy")


def test_sizes_differ(tmp_path):
    image(tmp_path / "a.png", (4, 5))
    mask(tmp_path / "a.npy")
    refused(tmp_path, r"a\.npy is 3x2 pixels but its image a\.png is 5x4", size=(8, 8))


def test_image_folder(tmp_path):
    for name in ("b.png", "a.webp", "c.JPG"):
        image(tmp_path / name, (6, 4))
    (tmp_path / "notes.txt").write_text("not an image")
    assert [p.name for p in list_images(tmp_path)] == ["a.webp", "b.png", "c.JPG"]
    folder = ImageFolder(tmp_path, (8, 8))
    assert len(folder) == 3
    assert folder[2].shape == (3, 8, 8)
    with pytest.raises(IndexError):
        folder[3]


def test_digest_follows_the_content(tmp_path):
    image(tmp_path / "a.png")
    mask(tmp_path / "a.npy")
    first = read_annotations(tmp_path).digest
    assert read_annotations(tmp_path).digest == first
    assert read_annotations(tmp_path, classes=list("abc")).digest != first
    mask(tmp_path / "a.npy", np.zeros_like(IDS))
    assert read_annotations(tmp_path).digest != first
