"""Masks: ids as they are stored, colours through a palette, and what is refused."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from factory_core.images import load_mask, read_mask

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
        (np.array([[0.5, 1.0]]), r"has the value 0\.5, expected whole class ids"),
        (np.array([[np.inf, 1.0]]), "has class id inf, expected 0 to 254"),
        (np.zeros((2, 2), complex), "is complex128 of shape"),
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


def test_floats_by_one_rule(tmp_path):
    """Whole numbers are ids, NaN was not annotated, fractions are no ids: `.npy` and TIFF alike."""
    values = IDS.astype(np.float32)
    values[0, 0] = np.nan
    expected = IDS.copy()
    expected[0, 0] = 255
    for name in ("m.npy", "m.tif"):
        assert np.array_equal(read_mask(mask(tmp_path / name, values)), expected)
        values[1, 1] = 1.7
        with pytest.raises(ValueError, match=rf"{name}: it has the value 1\.7, expected whole"):
            read_mask(mask(tmp_path / name, values))
        values[1, 1] = 1


# --- palette files ---------------------------------------------------------------------------


def save_indexed(path: Path, ids: np.ndarray, order: list[int], spare: int = 0) -> Path:
    """A palette file whose index i has the colour of class `order[i]`; `spare` are black."""
    index_of = np.zeros(256, np.uint8)
    index_of[order] = np.arange(len(order))
    index_of[255] = 255
    picture = Image.fromarray(index_of[ids])
    picture.putpalette([v for i in order for v in PALETTE[i]] + [0] * 3 * spare)
    picture.save(path)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_colours_decide_in_a_palette_file(tmp_path, suffix, order):
    path = save_indexed(tmp_path / f"m{suffix}", IDS % 255, order, 253)
    assert np.array_equal(read_mask(path, palette=PALETTE), IDS % 255)
    assert np.array_equal(read_mask(path), np.argsort(order)[IDS % 255])  # without it, the indices
    picture = Image.open(path).convert("RGB")
    picture.save(tmp_path / "rgb.png")
    assert np.array_equal(read_mask(tmp_path / "rgb.png", palette=PALETTE), IDS % 255)


def test_index_255_stays_ignore(tmp_path):
    """Its colour is a filler, here the black of the background."""
    path = save_indexed(tmp_path / "m.png", IDS, [0, 1, 2], spare=253)
    assert np.array_equal(read_mask(path, palette=PALETTE), IDS)


def test_index_255_in_the_colour_of_a_class(tmp_path):
    picture = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("P")
    picture.putpalette([v for v in range(256) for _ in range(3)])
    picture.save(tmp_path / "m.png")
    black_and_white = [[0, 0, 0], [255, 255, 255]]
    assert read_mask(tmp_path / "m.png", palette=black_and_white).tolist() == [[0, 1]]


def test_a_palette_file_in_other_colours(tmp_path):
    path = save_indexed(tmp_path / "m.png", IDS % 255, [0, 1, 2])
    says = r"index 2 has the colour \[10, 200, 10\], which is not in the palette of classes\.json"
    with pytest.raises(ValueError, match=says):
        read_mask(path, palette=[*PALETTE[:2], [1, 2, 3]])


def test_two_classes_of_one_colour(tmp_path):
    path = save_indexed(tmp_path / "m.png", IDS % 255, [0, 1, 2])
    with pytest.raises(ValueError, match=r"gives classes 1 and 2 the same colour \[200, 10, 10\]"):
        read_mask(path, palette=[PALETTE[0], PALETTE[1], PALETTE[1]])


# --- grey files ------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_files_of_few_bits_hold_their_numbers(tmp_path, bits):
    """Pillow scales them to 0-255: id 1 of two bits would be read as 85."""
    ids = np.arange(2**bits, dtype=np.uint8)[None].repeat(2, 0)
    path = tmp_path / "m.png"
    if bits == 1:
        Image.fromarray(ids.astype(bool)).save(path)
    else:
        write_grey_png(path, ids, bits)
    assert np.array_equal(read_mask(path), ids)


def write_grey_png(path: Path, ids: np.ndarray, bits: int) -> None:
    """Pillow writes such files only with a palette; this takes its data and drops the palette."""
    picture = Image.fromarray(ids)
    picture.putpalette([0] * 3 * 2**bits)
    picture.save(path, bits=bits)
    data = path.read_bytes()
    chunks, place = [], 8
    while place < len(data):
        length = int.from_bytes(data[place : place + 4])
        kind, content = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        if kind == b"IHDR":
            content = content[:9] + b"\0" + content[10:]
        if kind != b"PLTE":
            crc = zlib.crc32(kind + content).to_bytes(4)
            chunks.append(length.to_bytes(4) + kind + content + crc)
        place += 12 + length
    path.write_bytes(data[:8] + b"".join(chunks))


def test_black_and_white_in_one_bit_through_the_palette(tmp_path):
    Image.fromarray(np.array([[False, True]])).save(tmp_path / "m.png")
    white_first = [[255, 255, 255], [0, 0, 0]]
    assert read_mask(tmp_path / "m.png", palette=white_first).tolist() == [[1, 0]]
    assert read_mask(tmp_path / "m.png", palette=PALETTE).tolist() == [[0, 1]]


def test_grey_saved_as_colour(tmp_path):
    Image.fromarray(np.dstack([IDS] * 3)).save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png"), IDS)


def test_grey_with_an_alpha_channel(tmp_path):
    clear = np.full_like(IDS, 255)
    clear[0, 0] = 0  # above id 0: an empty canvas
    Image.fromarray(np.dstack([IDS, clear])).save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png"), IDS)
    clear[1, 1] = 128
    Image.fromarray(np.dstack([IDS, clear])).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match=r"m\.png: it has an alpha channel, and 17 % of"):
        read_mask(tmp_path / "m.png")


def test_transparent_colours(tmp_path):
    rgba = np.dstack([np.array(PALETTE, np.uint8)[IDS % 255], np.full_like(IDS, 255)])
    rgba[0, 0, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png", palette=PALETTE), IDS % 255)
    rgba[0, 1, 3] = 0  # an erased stroke, whose colour is still in the file
    Image.fromarray(rgba).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match=r"has an alpha channel, and 17 % .* flatten the mask"):
        read_mask(tmp_path / "m.png", palette=PALETTE)


# --- refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "GIF", "AVIF"])
def test_lossy_data_under_a_lossless_name(tmp_path, format):
    Image.fromarray(IDS % 255).save(tmp_path / "m.png", format)
    with pytest.raises(ValueError, match=rf"m\.png: it holds {format} data, a format that"):
        read_mask(tmp_path / "m.png")


def test_a_tiff_whose_white_is_0(tmp_path):
    """Pillow inverts it: 0 and 1 become 255 and 254."""
    Image.fromarray(IDS).save(tmp_path / "m.tif", tiffinfo={262: 0})
    with pytest.raises(ValueError, match=r"m\.tif: 0 is white in this TIFF, so its numbers may be"):
        read_mask(tmp_path / "m.tif")
    drawing = IDS // 255 * 255  # black and white: the whole folder decides what it means
    Image.fromarray(drawing).save(tmp_path / "b.tif", tiffinfo={262: 0})
    assert np.array_equal(load_mask(tmp_path / "b.tif").ids, drawing)


def test_a_tiff_with_jpeg_inside(tmp_path):
    Image.fromarray(np.tile(IDS % 255, (16, 16))).save(tmp_path / "m.tif", compression="jpeg")
    with pytest.raises(ValueError, match=r"m\.tif: it holds jpeg data, a format that"):
        read_mask(tmp_path / "m.tif")


def test_a_stack_of_masks(tmp_path):
    pages = [Image.fromarray(IDS)] * 2
    pages[0].save(tmp_path / "m.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match="it holds 2 pages"):
        read_mask(tmp_path / "m.tif")


def test_colours_that_are_no_rgb(tmp_path):
    Image.new("CMYK", (3, 2)).save(tmp_path / "m.tif")
    with pytest.raises(ValueError, match=r"m\.tif: it is in CMYK colours, expected class ids"):
        read_mask(tmp_path / "m.tif", palette=PALETTE)


def test_an_archive_named_like_an_array(tmp_path):
    np.savez(tmp_path / "m.npz", IDS)
    (tmp_path / "m.npz").rename(tmp_path / "m.npy")
    with pytest.raises(ValueError, match=r"m\.npy: not a numpy array of class ids"):
        load_mask(tmp_path / "m.npy")
