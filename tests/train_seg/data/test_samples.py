"""Decoding one sample: the same pixels as Pillow, for any kind of picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from factory_core.dataset import default_palette, encode_mask, encode_rgb
from train_seg.data.samples import check_ids, decode_picture

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (24, 40, 3)).astype(np.uint8)
IDS = RNG.integers(0, 5, (24, 40)).astype(np.uint8)


def encode(picture: Image.Image, kind: str = "PNG", **settings) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **settings)
    return buffer.getvalue()


def palette_picture(colours: int) -> Image.Image:
    picture = Image.fromarray(IDS)
    picture.putpalette([i % 256 for i in range(3 * colours)])
    return picture


@pytest.mark.parametrize(
    "encoded",
    [
        encode_rgb(PIXELS),
        encode_rgb(PIXELS, "jpg"),
        encode(Image.fromarray(PIXELS), transparency=(1, 2, 3)),
        encode(Image.fromarray(PIXELS).convert("RGBA")),
        encode(Image.fromarray(IDS)),
        encode(palette_picture(256)),
    ],
    ids=["png", "jpg", "transparent", "rgba", "grey", "palette"],
)
def test_images_equal_those_of_pillow(encoded: bytes) -> None:
    expected = np.array(Image.open(io.BytesIO(encoded)).convert("RGB"))
    np.testing.assert_array_equal(decode_picture(encoded, rgb=True), expected)


@pytest.mark.parametrize(
    "encoded",
    [
        encode_mask(IDS, default_palette(5)),
        encode(Image.fromarray(IDS)),
        encode(palette_picture(8)),  # four bits per pixel
    ],
    ids=["palette", "grey", "four bits"],
)
def test_ids_are_as_stored(encoded: bytes) -> None:
    np.testing.assert_array_equal(decode_picture(encoded, rgb=False), IDS)


@pytest.mark.parametrize("rgb", [True, False])
@pytest.mark.parametrize("length", [0, 10, 30, -100])
def test_a_truncated_picture_is_refused(rgb: bool, length: int) -> None:
    encoded = encode_rgb(PIXELS) if rgb else encode_mask(IDS, default_palette(5))
    with pytest.raises((OSError, ValueError, SyntaxError)):
        decode_picture(encoded[:length], rgb)


@pytest.mark.parametrize(("rgb", "damaged_bytes"), [(True, 16), (False, 40)])
def test_damage_that_pillow_would_accept_is_refused(rgb: bool, damaged_bytes: int) -> None:
    encoded = encode_rgb(PIXELS) if rgb else encode_mask(IDS, default_palette(5))
    damaged = encoded[:-damaged_bytes] + bytes(damaged_bytes)
    Image.open(io.BytesIO(damaged)).load()
    with pytest.raises((OSError, ValueError, SyntaxError)):
        decode_picture(damaged, rgb)


@pytest.mark.parametrize("largest", [2, 3, 254])
def test_unknown_ids_are_refused(largest: int) -> None:
    mask = torch.tensor([[0, 255], [largest, 255]], dtype=torch.uint8)
    if largest < 3:
        check_ids(mask, 3, "mine")
    else:
        with pytest.raises(ValueError, match=f"mine: found class id {largest}, expected ids below"):
            check_ids(mask, 3, "mine")
    check_ids(torch.full((2, 2), 255, dtype=torch.uint8), 3, "mine")
