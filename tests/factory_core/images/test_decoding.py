"""Images of every kind become the same 8-bit RGB, or are refused in one line."""

from __future__ import annotations

import runpy
import struct
import warnings
from pathlib import Path

import kornia_rs.io
import numpy as np
import pytest
from PIL import Image

from factory_core.images import (
    check_image,
    image_notes,
    image_tensor,
    load_image,
    mask_tensor,
    opening,
    read_image,
    read_mask,
)

RNG = np.random.default_rng(0)
LEVELS = RNG.integers(0, 256, (6, 8), dtype=np.uint8)  # no two rows or columns are equal
TWELVE_BITS = RNG.integers(0, 4096, (6, 8, 4), dtype=np.uint16)
TWELVE_BITS[0, 0], TWELVE_BITS[0, 1] = 11, 4084


def write_tiff(path: Path, values: np.ndarray, orientation: int = 1) -> None:
    """An uncompressed little-endian TIFF of uint16 `[H, W, 3 or 4]`, as microscopes write it."""
    height, width, channels = values.shape
    tags = [
        *((256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, 8), (259, 3, 1, 1)),
        *((262, 3, 1, 2), (273, 4, 1, 16), (274, 3, 1, orientation), (277, 3, 1, channels)),
        *((278, 3, 1, height), (279, 4, 1, values.nbytes)),
        *([(338, 3, 1, 2)] if channels == 4 else []),
    ]
    data = struct.pack("<4H", *[16] * 4) + values.astype("<u2").tobytes()
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def pixels(path: Path) -> np.ndarray:
    """The image uint8 `[H, W, 3]` as it is read."""
    return read_image(path).permute(1, 2, 0).numpy()


# --- more than 8 bits per channel ------------------------------------------------------------


def save_wide(path: Path, values: np.ndarray) -> None:
    """uint16 `[H, W, 4]`: all of it or the channels that the name asks for."""
    if "grey" in path.name:
        Image.fromarray(
            values[..., 0].astype(np.float32 if "float" in path.name else np.uint16)
        ).save(path)
        return
    mode = "rgba" if "rgba" in path.name else "rgb"
    shown = np.ascontiguousarray(values[..., : len(mode)])
    if path.suffix == ".png":
        kornia_rs.io.write_image_png_u16(str(path), shown, mode)
    else:
        write_tiff(path, shown)


WIDE = ["rgb.png", "rgba.png", "grey.png", "rgb.tif", "rgba.tif", "grey.tif", "grey_float.tif"]


@pytest.mark.parametrize("name", WIDE)
def test_wide_channels_are_refused_with_their_range(tmp_path, name):
    save_wide(tmp_path / name, TWELVE_BITS)
    shown = TWELVE_BITS[..., : 3 if "rgb" in name else 1]
    says = rf"{name}: more than 8 bits per channel \(values from {shown.min()} to {shown.max()}\)"
    for read in (read_image, check_image):
        with pytest.raises(ValueError, match=says):
            read(tmp_path / name)


@pytest.mark.parametrize("name", WIDE)
def test_small_values_in_wide_channels_are_taken(tmp_path, name):
    values = np.dstack([LEVELS.astype(np.uint16)] * 3 + [np.full((6, 8), 255, np.uint16)])
    values[..., 1] //= 2
    save_wide(tmp_path / name, values)
    expected = values[..., [0, 0, 0] if "grey" in name else [0, 1, 2]]
    assert np.array_equal(pixels(tmp_path / name), expected)


def test_wide_channels_are_turned_too(tmp_path):
    values = np.dstack([LEVELS.astype(np.uint16)] * 3)
    write_tiff(tmp_path / "a.tif", values, orientation=6)
    assert np.array_equal(pixels(tmp_path / "a.tif"), np.rot90(values, -1))


@pytest.mark.parametrize("value", [0.25, -1.0, np.nan, np.inf, 256.0])
def test_floats_that_are_no_levels(tmp_path, value):
    values = np.full((4, 4), 7, np.float32)
    values[1, 1] = value
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif: more than 8 bits per channel \(values from"):
        read_image(tmp_path / "a.tif")


def test_wide_channels_with_white_at_0_are_inverted_like_others(tmp_path):
    Image.fromarray(65535 - LEVELS.astype(np.uint16)).save(tmp_path / "a.tif", tiffinfo={262: 0})
    assert np.array_equal(pixels(tmp_path / "a.tif")[..., 0], LEVELS)
    Image.fromarray(LEVELS.astype(np.float32)).save(tmp_path / "a.tif", tiffinfo={262: 0})
    with pytest.raises(ValueError, match="0 is white in this TIFF of type float32: save it as"):
        read_image(tmp_path / "a.tif")


# --- turned, transparent, many pages, huge ---------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
@pytest.mark.parametrize("kind", ["raw.tif", "lzw.tif", "a.png", "a.bmp"])
def test_upright_whatever_the_file(tmp_path, orientation, mode, kind):
    """Pillow scrambles the rows of an uncompressed grey TIFF that it maps into memory."""
    path, upright = tmp_path / kind, Image.fromarray(LEVELS).convert(mode)
    stored = upright
    if path.suffix != ".bmp":  # which has no EXIF
        undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)
        stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    how = {"compression": "tiff_lzw"} if kind == "lzw.tif" else {}
    exif = {} if path.suffix == ".bmp" else {"exif": turned(orientation)}
    stored.save(path, **exif, **how)
    assert np.array_equal(pixels(path), np.array(upright.convert("RGB")))
    if mode == "L":
        assert np.array_equal(read_mask(path), LEVELS)


def test_transparent_pixels_become_white(tmp_path):
    rgba = np.dstack([LEVELS, LEVELS // 2, LEVELS // 3, np.full((6, 8), 255, np.uint8)])
    rgba[:2, :, 3] = 0
    rgba[2, :, 3] = 128
    Image.fromarray(rgba).save(tmp_path / "a.png")
    found = pixels(tmp_path / "a.png").astype(int)
    assert (found[:2] == 255).all()
    assert np.abs(found[2] - (rgba[2, :, :3] * 128.0 + 255 * 127) / 255).max() <= 1
    assert np.array_equal(found[3:], rgba[3:, :, :3])


@pytest.mark.parametrize("kind", ["LA.png", "P.png", "P.gif", "RGB.png"])
def test_every_way_to_be_transparent(tmp_path, kind):
    """An alpha channel, or one index or colour that counts as transparent: here the value 0."""
    path, levels = tmp_path / kind, np.minimum(LEVELS, 200)
    levels[0] = 0
    picture = Image.fromarray(levels)
    if path.stem == "LA":
        picture.putalpha(Image.fromarray((levels > 0).astype(np.uint8) * 255))
        picture.save(path)
    else:
        colour = {"P": 0, "RGB": (0, 0, 0)}[path.stem]
        picture.convert(path.stem).save(path, transparency=colour)
    assert np.array_equal(pixels(path)[..., 1], np.where(levels == 0, 255, levels))


def test_one_image_per_file(tmp_path):
    pages = [Image.fromarray(np.roll(LEVELS, i)) for i in range(3)]
    for name in ("a.tif", "a.gif", "a.png", "a.webp"):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
        with pytest.raises(ValueError, match=rf"{name}: it holds 3 pages, expected one image"):
            read_image(tmp_path / name)
    pages[0].save(tmp_path / "one.gif")
    assert np.array_equal(pixels(tmp_path / "one.gif")[..., 0], LEVELS)


@pytest.mark.parametrize(
    "tags",
    [
        {270: "ImageJ=1.54f\nimages=5\nslices=5\n"},
        {270: '{"shape": [5, 6, 8]}'},
        {0x80E5: 5},  # the depth of a volume
    ],
)
def test_stacks_in_one_page(tmp_path, tags):
    """Large stacks of ImageJ and volumes have a single page, whose first plane would be read."""
    picture = Image.fromarray(LEVELS)
    picture.save(tmp_path / "a.tif", tiffinfo=tags)
    with pytest.raises(ValueError, match="it holds 5 pages"):
        read_image(tmp_path / "a.tif")
    picture.save(tmp_path / "a.tif", tiffinfo={270: '{"shape": [6, 8]}'})
    assert np.array_equal(pixels(tmp_path / "a.tif")[..., 0], LEVELS)


def test_previews_are_no_pages(tmp_path):
    """A photograph with a preview, as phones write it, and a TIFF with a smaller copy."""
    photo, small = Image.fromarray(LEVELS).convert("RGB"), Image.new("RGB", (4, 3))
    photo.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[small], quality=100)
    assert np.abs(pixels(tmp_path / "a.jpg").astype(int) - np.array(photo)).max() < 8
    small = Image.new("RGB", (4, 3))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    photo.save(tmp_path / "a.tif", save_all=True, append_images=[small])
    assert np.array_equal(pixels(tmp_path / "a.tif"), np.array(photo))


def test_a_slide_too_large_to_read_at_once(tmp_path, monkeypatch):
    Image.fromarray(LEVELS).save(tmp_path / "slide.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(ValueError, match=r"larger than 0 megapixels: .*`factory predict --tile`"):
        read_image(tmp_path / "slide.png")


def test_large_images_are_read_without_warnings(tmp_path):
    Image.new("1", (10000, 10000)).save(tmp_path / "large.png")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fresh = runpy.run_path(opening.__file__)  # with its filters above that of this test
        size = fresh["decode_file"](tmp_path / "large.png", lambda image: image.size)
    assert (size, caught) == ((10000, 10000), [])


def test_files_that_are_no_images_are_named(tmp_path):
    for content, says in (
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer: run `git lfs pull`"),
        (b"<!doctype html>", "it is a web page"),
        (bytes(128) + b"DICM", "it is DICOM"),
        (bytes(4) + b"ftypheic", "it is HEIC"),
        (b"II*\0" + bytes(60), "it holds no image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),  # a program
    ):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(ValueError, match=rf"a\.png: .*{says}"):
            read_image(tmp_path / "a.png")


def test_notes_count_what_is_changed(tmp_path):
    picture = Image.fromarray(LEVELS).convert("RGB")
    for i in range(6):
        exif = {"exif": turned((1, 3, 6)[i % 3])} if i < 5 else {}
        picture.save(tmp_path / f"{i}.{'jpg' if i % 2 else 'png'}", **exif)
    picture.convert("RGBA").save(tmp_path / "6.png")
    (tmp_path / "7.png").write_bytes(b"no image")
    paths = sorted(tmp_path.iterdir())
    [line] = image_notes(paths)
    assert line == (
        "8 images: 3 turned upright by their EXIF tag (masks are expected upright), "
        "1 with an alpha channel (transparent pixels become white)"
    )
    assert image_notes(paths[5:6]) == ()


# --- ordinary images -------------------------------------------------------------------------


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


def photograph(height: int, width: int) -> Image.Image:
    """Smooth colours and a little noise."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(float)
    return Image.fromarray((smooth + rng.normal(0, 3, smooth.shape)).clip(0, 255).astype(np.uint8))


def test_a_large_jpeg_is_decoded_at_a_smaller_scale(tmp_path: Path) -> None:
    """To the same pixels, but for rounding; also one that lies on its side."""
    exif = turned(6)
    photograph(400, 600).save(path := tmp_path / "photo.jpg", quality=92, exif=exif)
    reduced = load_image(path, size=(32, 32))
    assert reduced.size == (100, 150)  # a quarter, turned; an eighth would be below 96
    assert load_image(path).size == (400, 600)
    whole = image_tensor(load_image(path), (32, 32)).int()
    difference = (read_image(path, (32, 32)).int() - whole).abs()
    assert difference.max() <= 3
    assert load_image(path, size=(128, 128)).size == (400, 600)
