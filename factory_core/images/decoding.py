"""One reading path for images: 8-bit RGB, upright, without transparency."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from factory_core.images.opening import decode_file, is_white_zero, raw_mode
from factory_core.images.resizing import Size, image_tensor

BITS_PER_SAMPLE = 0x0102  # TIFF
NOT_NATIVE = ";16B" if sys.byteorder == "little" else ";16L"
OTHER_BYTE = {";16L": ";16B", ";16B": ";16L", ";16N": NOT_NATIVE}


def read_image(path: str | Path, size: Size | None = None) -> torch.Tensor:
    """An image as uint8 `[3, H, W]` RGB, upright by its EXIF tag, resized to `size` (H, W).

    Transparent pixels are put on white. Resizing is antialiased bicubic, ignoring the aspect
    ratio. Raises ValueError naming the file if it cannot be read, holds several pages, or has more
    than 8 bits per channel and values that are not whole numbers of 0 to 255; FileNotFoundError
    if it does not exist.
    """
    return image_tensor(load_image(Path(path)), size)


def load_image(path: Path) -> Image.Image:
    """The image at its own size, RGB and upright; the errors of `read_image`."""
    return decode_file(path, to_rgb)


def to_rgb(image: Image.Image) -> Image.Image:
    """An opened image as RGB, upright and on white; the errors of `eight_bits`."""
    image = ImageOps.exif_transpose(eight_bits(image))
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def eight_bits(image: Image.Image) -> Image.Image:
    """An opened, not yet decoded image with 8 bits per channel.

    Wider values are taken if all are whole numbers of 0 to 255. No others are scaled: whether
    4095, 65535 or the largest value found means white is not in the file. Raises ValueError with
    the range of values.
    """
    if not has_wide_channels(image):
        return image
    values = _wide_values(image)
    if values is None:
        raise ValueError("more than 8 bits per channel: convert it to 8-bit RGB or grey")
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (np.nan, np.nan)
    whole = finite.size == values.size and bool((finite == np.floor(finite)).all())
    if not (whole and low >= 0 and high <= 255):
        raise ValueError(
            f"more than 8 bits per channel (values from {low:g} to {high:g}): convert it to 8-bit "
            "RGB or grey"
        )
    narrow = Image.fromarray(values.astype(np.uint8))
    narrow.getexif().update(image.getexif())
    return narrow


def check_image(image: Image.Image) -> None:
    """Raise ValueError or what Pillow raises for an opened image that `to_rgb` cannot read."""
    image.draft(None, (1, 1))  # JPEG: every byte is read, an eighth of the size computed
    to_rgb(image)


def has_wide_channels(image: Image.Image) -> bool:
    """Whether an opened, not yet decoded image has more than 8 bits per channel.

    Its mode does not say: Pillow cuts 16-bit colour down to the upper 8 bits.
    """
    if image.mode.startswith(("I", "F")):
        return True
    bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,))
    return max(bits) > 8 or ";16" in raw_mode(image)


def _wide_values(image: Image.Image) -> np.ndarray | None:
    """`[H, W]` or `[H, W, C]` at full precision, turned as Pillow does; None if it cannot.

    Of 16-bit colour Pillow keeps the upper byte. Taken for the opposite byte order, the file gives
    the lower one.
    """
    if image.mode.startswith(("I", "F")):
        return None if is_white_zero(image) else np.asarray(image)
    mode = raw_mode(image)
    swapped = mode[:-4] + OTHER_BYTE.get(mode[-4:], "")
    file = image.fp  # type: ignore[attr-defined]
    upper = np.asarray(image).astype(np.uint16)
    if ";16" not in swapped:
        return None
    file.seek(0)
    with Image.open(file) as other:
        other.tile = [
            tile._replace(
                args=(swapped, *tile.args[1:]) if isinstance(tile.args, tuple) else swapped
            )
            for tile in other.tile
        ]
        try:
            return upper * 256 + np.asarray(other)
        except (OSError, ValueError):  # Pillow knows this kind in one byte order only
            return None
