"""Image and mask files: every format, every mistake."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from factory_core.images import (
    find_images,
    image_tensor,
    load_image,
    mask_tensor,
    read_image,
    read_mask,
)

IDS = np.array([[0, 1, 2], [2, 1, 255]], np.uint8)
PALETTE = [[0, 0, 0], [200, 10, 10], [10, 200, 10]]


def mask(path: Path, ids: np.ndarray = IDS, mode: str | None = None) -> Path:
    if path.suffix == ".npy":
        np.save(path, ids)
        return path
    picture = Image.fromarray(ids)
    if mode == "P":
        picture.putpalette(list(range(255, -1, -1)) * 3)
    picture.save(path)
    return path


@pytest.mark.parametrize(
    ("ids", "mode"),
    [
        (IDS, None),
        (IDS, "P"),
        (IDS.astype(np.uint16), None),
        (np.array([[True, False]]), None),
    ],
)
def test_index_images(tmp_path, ids, mode):
    assert np.array_equal(read_mask(mask(tmp_path / "m.png", ids, mode)), ids)


def test_32_bit_index_image(tmp_path):
    assert np.array_equal(read_mask(mask(tmp_path / "m.tif", IDS.astype(np.int32))), IDS)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_arrays(tmp_path, dtype):
    assert np.array_equal(read_mask(mask(tmp_path / "m.npy", IDS.astype(dtype))), IDS)


def test_a_colour_outside_the_palette(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.array(PALETTE, np.uint8)[np.minimum(IDS, 2)]).save(path)
    with pytest.raises(ValueError, match=r"a\.png: colour \[10, 200, 10\] is not in the palette"):
        read_mask(path, palette=PALETTE[:2])


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.array([[0, 300]]), "has class id 300, expected 0 to 254"),
        (np.array([[0, -1]]), "has class id -1, expected 0 to 254"),
        (np.array([[0.5, 1.0]]), r"is float64 of shape \[1, 2\], expected whole class ids"),
        (np.array([[np.nan, 1.0]]), "expected whole class ids"),
        (np.zeros((2, 2, 3), np.uint8), r"is uint8 of shape \[2, 2, 3\]"),
        (np.array([["a"]]), "expected whole class ids"),
        (np.array([[None]], dtype=object), "not a numpy array of class ids"),
    ],
)
def test_arrays_that_are_not_masks(tmp_path, ids, message):
    path = tmp_path / "m.npy"
    np.save(path, ids, allow_pickle=True)
    with pytest.raises(ValueError, match=rf"m\.npy.*{message}"):
        read_mask(path)


@pytest.mark.parametrize("content", [b"", b"no picture", "truncated"])
def test_unreadable_image(tmp_path, content):
    path = tmp_path / "a.png"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:60] if content == "truncated" else content)
    with pytest.raises(ValueError, match=r"cannot read .*a\.png") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.png does not exist"):
        read_image(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match=r"a\.npy does not exist"):
        read_mask(tmp_path / "a.npy")


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_every_kind_of_picture_becomes_rgb(tmp_path, mode):
    Image.new(mode, (5, 4), 1).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (3, 4, 5)
    assert read_image(tmp_path / "a.png", (8, 6)).shape == (3, 8, 6)


def test_sixteen_bits_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: more than 8 bits per channel: convert it"):
        read_image(tmp_path / "a.png")


def test_photographs_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotated by a quarter turn
    Image.new("RGB", (5, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (3, 5, 4)


def test_cropping_keeps_the_aspect_ratio(tmp_path):
    """Of six columns the middle four are kept, in the image and in the mask."""
    ids = np.repeat(np.arange(6, dtype=np.uint8)[None], 4, 0).repeat(8, 0).repeat(8, 1)
    Image.fromarray(ids * 40).convert("RGB").save(tmp_path / "a.png")
    image = image_tensor(load_image(tmp_path / "a.png"), (16, 16), crop=True)
    cropped = mask_tensor(ids, (16, 16), crop=True)
    assert cropped[0].tolist() == np.arange(1, 5).repeat(4).tolist()
    assert (cropped == cropped[0]).all()
    inside = image[0, 8, 1::4]  # away from the edges between columns
    assert np.abs(inside.numpy().astype(int) - [40, 80, 120, 160]).max() < 12
    squeezed = mask_tensor(ids, (16, 16))
    assert set(squeezed.unique().tolist()) == set(range(6))


# --- finding ---------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`day/0.png`, `day/1.jpg`, `day/notes.txt` and `night/0.png` in the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("day/0.png", "day/1.jpg", "night/0.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (5, 4)).save(name)
    Path("day/notes.txt").write_text("not an image")


@pytest.mark.usefixtures("photos")
def test_files_folders_and_patterns() -> None:
    assert find_images(["day"]) == {"0": Path("day/0.png"), "1": Path("day/1.jpg")}
    assert find_images(["day/1.jpg"]) == {"1": Path("day/1.jpg")}
    assert list(find_images(["*/0.png"])) == ["day/0", "night/0"]
    assert list(find_images(["day/*"])) == ["0", "1"]


@pytest.mark.usefixtures("photos")
def test_the_same_file_twice_is_one_image() -> None:
    assert len(find_images(["day", "day/0.png"])) == 2


@pytest.mark.usefixtures("photos")
def test_images_that_are_missing_or_share_a_name() -> None:
    with pytest.raises(FileNotFoundError, match="--images lost: no such file or folder"):
        find_images(["lost"])
    with pytest.raises(ValueError, match=r"--images day/\*.gif: no image matches this pattern"):
        find_images(["day/*.gif"])
    with pytest.raises(ValueError, match=r"would both be written as 0.png: rename one"):
        find_images(["day", "night"])
