"""Pictures of more than 8 bits per channel, and pages, by the rule of `Pictures`."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import kornia_rs.io
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from factory_core.images import Pictures, image_notes, measured, read_image, remember, remembered

RNG = np.random.default_rng(0)
SHAPE = (24, 32)
WIDE = RNG.integers(100, 3000, (*SHAPE, 4)).astype(np.uint16)


def pixels(path: Path, pictures: Pictures) -> np.ndarray:
    """The image uint8 `[H, W, 3]` as it is read."""
    return read_image(path, pictures=pictures).permute(1, 2, 0).numpy()


def expected(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """The rule in one line, as uint8."""
    scaled = np.nan_to_num((values.astype(np.float64) - low) / (high - low) * 255)
    return scaled.clip(0, 255).round().astype(np.uint8)


KINDS = [
    ("grey.tif", np.uint16, {"photometric": "minisblack"}),
    ("GREY.TIFF", np.float32, {"photometric": "minisblack", "compression": "zlib"}),
    ("double.tif", np.float64, {"photometric": "minisblack"}),
    ("half.tif", np.float16, {"photometric": "minisblack", "compression": "lzw"}),
    ("int32.tif", np.int32, {"photometric": "minisblack", "bigtiff": True}),
    ("uint32.tif", np.uint32, {"photometric": "minisblack", "byteorder": ">"}),
    ("rgb.Tif", np.uint16, {"photometric": "rgb"}),
    ("rgb_lzw.tif", np.uint16, {"photometric": "rgb", "compression": "lzw", "predictor": True}),
    ("rgb_float.tif", np.float32, {"photometric": "rgb", "tile": (16, 16)}),
    ("rgb_planar.tif", np.uint16, {"photometric": "rgb", "planarconfig": "separate"}),
]


@pytest.mark.parametrize(("name", "dtype", "how"), KINDS, ids=[kind[0] for kind in KINDS])
def test_every_kind_of_tiff(tmp_path, name, dtype, how):
    is_rgb = how["photometric"] == "rgb"
    values = WIDE[..., :3].astype(dtype) if is_rgb else WIDE[..., 0].astype(dtype)
    stored = values.transpose(2, 0, 1) if "planarconfig" in how else values
    tifffile.imwrite(tmp_path / name, stored, **how)
    [path] = tmp_path.iterdir()
    levels = expected(values, 200, 2500)
    found = pixels(path, Pictures(range=(200, 2500)))
    assert np.abs(found.astype(int) - (levels if is_rgb else levels[..., None])).max() <= 1
    assert np.array_equal(found, pixels(path, measured(Pictures(range=(200, 2500)), [path])))


@pytest.mark.parametrize("mode", ["grey", "rgb", "rgba"])
def test_png_of_16_bits(tmp_path, mode):
    path = tmp_path / "a.PNG"
    if mode == "grey":
        Image.fromarray(WIDE[..., 0]).save(path)
    else:
        values = WIDE.copy()
        values[..., 3] = 65535
        kornia_rs.io.write_image_png_u16(str(path), values[..., : len(mode)].copy(), mode)
    found = pixels(path, Pictures(range=(200, 2500)))
    assert np.array_equal(
        found, expected(WIDE[..., [0, 0, 0] if mode == "grey" else [0, 1, 2]], 200, 2500)
    )


def test_full_range_of_the_type(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", WIDE[..., 0])
    assert np.array_equal(
        pixels(tmp_path / "a.tif", Pictures(range="full"))[..., 1], expected(WIDE[..., 0], 0, 65535)
    )
    tifffile.imwrite(tmp_path / "b.tif", np.float32([[0, 0.5, 1], [-1, 2, np.nan]]))
    shown = pixels(tmp_path / "b.tif", Pictures(range="full"))[..., 0]
    assert shown.tolist() == [[0, 128, 255], [0, 255, 0]]


def test_transparency_has_the_range_of_the_type(tmp_path):
    values = WIDE.copy()
    values[..., 3] = 65535
    values[0, :, 3] = 0
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extrasamples=["unassalpha"])
    found = pixels(tmp_path / "a.tif", Pictures(range=(0, 4095)))
    assert (found[0] == 255).all()
    assert np.array_equal(found[1:], expected(values[1:, :, :3], 0, 4095))


def test_cmyk_of_16_bits_is_read_as_that_of_8(tmp_path):
    small = RNG.integers(0, 256, (*SHAPE, 4)).astype(np.uint8)
    Image.fromarray(small, "CMYK").save(tmp_path / "b.tif")
    tifffile.imwrite(tmp_path / "a.tif", small.astype(np.uint16) * 257, photometric="separated")
    found = pixels(tmp_path / "a.tif", Pictures())
    assert np.array_equal(found, pixels(tmp_path / "b.tif", Pictures()))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("rgb", [False, True])
def test_wide_tiffs_are_turned_upright(tmp_path, orientation, rgb):
    values = WIDE[..., :3] if rgb else WIDE[..., 0]
    tifffile.imwrite(
        tmp_path / "a.tif",
        values,
        photometric="rgb" if rgb else "minisblack",
        extratags=[(274, "H", 1, orientation, True)],
    )
    upright = Image.fromarray(expected(values, 0, 4095)).convert("RGB")
    upright.getexif()[0x0112] = orientation
    found = pixels(tmp_path / "a.tif", Pictures(range=(0, 4095)))
    assert np.array_equal(found, np.asarray(ImageOps.exif_transpose(upright)))


# --- the range of a folder -------------------------------------------------------------------


def test_one_range_for_the_whole_folder(tmp_path):
    """A dim picture stays dim beside a bright one."""
    for i, brightness in enumerate((0.1, 1.0)):
        tifffile.imwrite(tmp_path / f"{i}.tif", (WIDE[..., 0] * brightness).astype(np.uint16))
    Image.new("L", (8, 8), 77).save(tmp_path / "eight_bits.png")
    paths = sorted(tmp_path.iterdir())
    found = measured(Pictures(percentiles=(0, 100)), paths)
    assert found.levels == (int(WIDE[..., 0].min() * 0.1), WIDE[..., 0].max())
    dim, bright, eight = (pixels(path, found) for path in paths)
    assert dim.max() < 0.11 * 255
    assert bright.max() == 255
    assert (eight == 77).all()
    assert measured(found, paths[:1]) == found


def test_what_is_clipped_is_said(tmp_path):
    values = WIDE[..., 0].astype(np.float32)
    values[0, :8], values[1, :4], values[2, 0] = 1e9, np.nan, -np.inf
    tifffile.imwrite(tmp_path / "a.tif", values)
    paths = [tmp_path / "a.tif"]
    pictures = measured(Pictures(percentiles=(1, 98)), paths)
    low, high = pictures.levels
    shown = pixels(paths[0], pictures)[..., 0]
    assert (shown[0, :8] == 255).all()
    assert (shown[1, :4] == 0).all()
    assert shown[2, 0] == 0
    outside = ((values < low) | (values > high)).mean()
    [line] = image_notes(paths, pictures)
    assert line == (
        f"1 image with more than 8 bits per channel: values from {low:g} to {high:g} become 0 to "
        f"255; {100 * outside:.2g} % of the values lie outside and are clipped, 0.52 % are NaN and "
        "become black (pictures.range)"
    )
    [line] = image_notes(paths, Pictures(range="full"))
    assert "the range of their type becomes 0 to 255" in line


def test_8_bit_numbers_in_wide_files_stay_as_they_are(tmp_path):
    for i, most in enumerate((250, 9)):
        tifffile.imwrite(tmp_path / f"{i}.tif", (WIDE[..., 0] % most).astype(np.uint16))
    paths = sorted(tmp_path.iterdir())
    pictures = measured(Pictures(), paths)
    assert pictures.levels == (0, 255)
    assert np.array_equal(pixels(paths[1], pictures)[..., 0], WIDE[..., 0] % 9)
    assert image_notes(paths, pictures) == ()
    # With one that holds more, they are scaled like it.
    tifffile.imwrite(tmp_path / "2.tif", WIDE[..., 0])
    assert measured(Pictures(), sorted(tmp_path.iterdir())).levels[1] > 2500


@pytest.mark.parametrize("value", [0.0, 5000.0, np.nan])
def test_a_folder_of_one_value(tmp_path, value):
    tifffile.imwrite(tmp_path / "a.tif", np.full(SHAPE, value, np.float32))
    pictures = measured(Pictures(), [tmp_path / "a.tif"])
    assert (pixels(tmp_path / "a.tif", pictures) == 0).all()


def test_nothing_to_measure(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.tif").write_bytes(b"II*\0 damaged")
    assert measured(Pictures(), sorted(tmp_path.iterdir())) == Pictures()


# --- pages -----------------------------------------------------------------------------------


def test_a_page_is_chosen(tmp_path):
    planes = np.stack([WIDE[..., 0] + 1000 * i for i in range(3)]).astype(np.uint16)
    narrow = (planes // 32).astype(np.uint8)
    tifffile.imwrite(tmp_path / "pages.tif", planes, photometric="minisblack")
    tifffile.imwrite(tmp_path / "imagej.tif", planes, imagej=True)
    tifffile.imwrite(tmp_path / "narrow.tif", narrow, photometric="minisblack")
    tifffile.imwrite(
        tmp_path / "float_rgb.tif",
        np.repeat(planes[..., None], 3, -1).astype("f4"),
        photometric="rgb",
    )
    frames = [Image.fromarray(plane) for plane in narrow]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(
            ValueError, match=r"it holds 3 pages, .* --set pictures\.page=N \(0 to 2"
        ):
            read_image(path, pictures=Pictures(range=(0, 8160)))
        for page in range(3):
            found = pixels(path, Pictures(range=(0, 8160), page=page))[..., 0].astype(int)
            assert np.abs(found - expected(planes[page], 0, 8160)).max() <= 1, (path, page)
        with pytest.raises(ValueError, match=r"3 pages, but pictures\.page is 3 \(counted"):
            read_image(path, pictures=Pictures(range=(0, 8160), page=3))


def test_a_stack_in_one_page(tmp_path):
    """ImageJ writes one description of the first plane for stacks of more than 4 GB."""
    planes = np.stack([WIDE[..., 0] + 1000 * i for i in range(3)]).astype(np.uint16)
    about = "ImageJ=1.54f\nimages=3\nslices=3\n"
    tifffile.imwrite(tmp_path / "a.tif", planes[0], description=about, metadata=None)
    data = (tmp_path / "a.tif").read_bytes()
    first = data.index(planes[0].tobytes())
    assert first + planes[0].nbytes == len(data)
    (tmp_path / "a.tif").write_bytes(data + planes[1:].tobytes())
    found = pixels(tmp_path / "a.tif", Pictures(range=(0, 8160), page=2))[..., 0]
    assert np.array_equal(found, expected(planes[2], 0, 8160))


# --- damaged and hostile files ---------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("is_float_rgb", [False, True])
def test_truncated_tiffs(tmp_path, compression, is_float_rgb):
    values = WIDE[..., :3].astype(np.float32) if is_float_rgb else WIDE[..., 0]
    photometric = "rgb" if is_float_rgb else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", values, photometric=photometric, compression=compression)
    data = (tmp_path / "a.tif").read_bytes()
    for share in (0.05, 0.5, 0.97):
        (tmp_path / "a.tif").write_bytes(data[: int(share * len(data))])
        with pytest.raises(ValueError, match=r"cannot read .*a\.tif") as caught:
            read_image(tmp_path / "a.tif", pictures=Pictures(range=(0, 4095)))
        assert "\n" not in str(caught.value)


def test_a_tiff_that_claims_to_be_huge(tmp_path):
    for dtype, name in itertools.product(("u2", "f4"), ("width", "length")):
        tifffile.imwrite(tmp_path / "a.tif", WIDE[..., :3].astype(dtype), photometric="rgb")
        with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tiff:
            tiff.pages[0].tags[f"Image{name.capitalize()}"].overwrite(2**30)
        began = time.monotonic()
        with pytest.raises(ValueError, match="it is larger than 179 megapixels"):
            read_image(tmp_path / "a.tif", pictures=Pictures(range=(0, 1)))
        assert time.monotonic() - began < 2


def test_kinds_without_a_rule(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", WIDE[..., 0].astype(np.complex64))
    with pytest.raises(ValueError, match="a TIFF of photometric kind 1 and type complex64: save"):
        read_image(tmp_path / "a.tif", pictures=Pictures(range=(0, 1)))


# --- settings --------------------------------------------------------------------------------


def test_given_settings_win_over_remembered_ones(tmp_path):
    remember(tmp_path, Pictures())
    assert remembered(tmp_path) is None
    remember(tmp_path, Pictures(range=(3, 900), page=1))
    kept = remembered(tmp_path)
    assert kept == Pictures(range=(3, 900), page=1)
    assert remembered(tmp_path / "unet") == kept
    assert remembered(tmp_path / "other") is None
    assert Pictures().over(kept) == kept
    assert Pictures(page=0).over(kept) == Pictures(range=(3, 900), page=0)
    assert Pictures(percentiles=(1, 99)).over(kept).range == "percentiles"
    (tmp_path / "pictures.json").write_text('{"range": "bright"}')
    with pytest.raises(ValueError, match=r"pictures\.json is damaged .*: copy the folder again"):
        remembered(tmp_path)


def test_wrong_settings():
    with pytest.raises(ValueError, match=r"expected the lower value first, found \[9.0, 3.0\]"):
        Pictures(range=(9, 3))
