"""The values of pictures with more than 8 bits per channel, at full precision.

Pillow cuts 16-bit colour down to its upper byte and refuses floats in colour, so TIFFs go through
tifffile. Its decoders of compressed TIFFs are imagecodecs'.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from factory_core.images.opening import WHITE_IS_ZERO, page_index, raw_mode

if TYPE_CHECKING:
    from tifffile import TiffPage

BITS_PER_SAMPLE, ORIENTATION = 0x0102, 0x0112  # TIFF
BLACK_IS_ZERO, RGB, CMYK = 1, 2, 5  # PhotometricInterpretation
COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, CMYK: 4}  # channels of each
ALPHA = (1, 2)  # ExtraSamples: with colours multiplied by it, and without
REDUCED_OR_MASK = 0b101  # NewSubfileType
NOT_NATIVE = ";16B" if sys.byteorder == "little" else ";16L"
OTHER_BYTE = {";16L": ";16B", ";16B": ";16L", ";16N": NOT_NATIVE}
RARE = "save it as 8-bit RGB or grey"


class Channels(NamedTuple):
    """A picture's values: `colour` `[H, W, C]` (grey, RGB or CMYK), `alpha` `[H, W]` or None.

    `full` is the range of the type: black and white, transparent and opaque.
    """

    colour: np.ndarray
    alpha: np.ndarray | None
    full: tuple[float, float]


def has_wide_channels(image: Image.Image) -> bool:
    """Whether an opened, not yet decoded image has more than 8 bits per channel.

    Its mode does not say: Pillow cuts 16-bit colour down to the upper 8 bits.
    """
    if image.mode.startswith(("I", "F")):
        return True
    bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,))
    return max(bits) > 8 or ";16" in raw_mode(image)


def tiff_channels(file: BinaryIO, page: int | None = None) -> Channels:
    """The values in a TIFF, upright; `page` as in `Pictures`.

    Raises ValueError for kinds that are not grey, RGB or CMYK, for a page that does not exist, and
    for damaged files.
    """
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its doubts about other tags
    file.seek(0)
    try:
        with tifffile.TiffFile(file) as tiff:
            found, values = _page(tiff, page)
            return _upright(_split(found, values), int(found.tags.valueof(ORIENTATION, 1)))
    except (ValueError, MemoryError, Image.DecompressionBombError):
        raise
    except Exception as error:  # of a dozen types, few of which say anything
        raise ValueError(f"it is a damaged TIFF ({type(error).__name__}: {error})") from error


def png_channels(image: Image.Image) -> Channels:
    """The values in an opened 16-bit PNG.

    Of 16-bit colour Pillow keeps the upper byte. Taken for the opposite byte order, the file gives
    the lower one.
    """
    full = (0.0, 65535.0)
    if image.mode.startswith("I"):
        return Channels(np.asarray(image)[..., None], None, full)
    mode = raw_mode(image)
    swapped = mode[:-4] + OTHER_BYTE[mode[-4:]]
    file: Any = image.fp  # type: ignore[attr-defined]
    upper = np.asarray(image).astype(np.uint16)
    file.seek(0)
    with Image.open(file) as other:
        other.tile = [
            tile._replace(
                args=(swapped, *tile.args[1:]) if isinstance(tile.args, tuple) else swapped
            )
            for tile in other.tile
        ]
        values = upper * 256 + np.asarray(other)
    if values.shape[-1] in (2, 4):
        return Channels(values[..., :-1], values[..., -1], full)
    return Channels(values, None, full)


def _page(tiff: Any, wanted: int | None) -> tuple[TiffPage, np.ndarray]:
    """A page of a TIFF, or a plane of a stack that is stored as one page, and its values."""
    pages = [p for p in tiff.pages if not int(getattr(p, "subfiletype", 0)) & REDUCED_OR_MASK]
    if not pages:
        raise ValueError("it holds no image")
    first = pages[0].aspage()
    stack = tiff.series[0]
    planes = int(np.prod(stack.shape)) // max(1, int(np.prod(first.shape)))
    if len(pages) > 1 or planes < 2:
        found = pages[page_index(len(pages), wanted)].aspage()
        _check_size(found.imagelength * found.imagewidth)
        return found, found.asarray()
    index = page_index(planes, wanted)
    _check_size(stack.size)
    return first, stack.asarray().reshape(planes, *first.shape)[index]


def _check_size(pixels: int) -> None:
    """Raise Pillow's error for a picture beyond Pillow's limit."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and pixels > 2 * limit:
        raise Image.DecompressionBombError


def _split(page: TiffPage, values: np.ndarray) -> Channels:
    """The colour and alpha channels in the values of a page."""
    kind, dtype = int(page.photometric), values.dtype
    if kind not in COLOURS or dtype.kind not in "uif" or values.ndim not in (2, 3):
        raise ValueError(f"it is a TIFF of photometric kind {kind} and type {dtype}: {RARE}")
    if values.ndim == 2:
        values = values[..., None]
    elif int(page.planarconfig) == 2:  # channel after channel
        values = np.moveaxis(values, 0, -1)
    full = (0.0, 1.0)
    if dtype.kind == "u":
        full = (0.0, float(2 ** int(page.bitspersample) - 1))
    elif dtype.kind == "i":
        full = (float(np.iinfo(dtype).min), float(np.iinfo(dtype).max))
    count = COLOURS[kind]
    if values.shape[-1] < count:
        raise ValueError(f"it has {values.shape[-1]} channels, expected {count}")
    extra = [int(sample) for sample in page.extrasamples]
    alpha = next((i for i, sample in enumerate(extra, count) if sample in ALPHA), None)
    colour = values[..., :count]
    if kind == WHITE_IS_ZERO:
        if dtype.kind != "u":
            raise ValueError(f"0 is white in this TIFF of type {dtype}: {RARE}")
        colour = dtype.type(full[1]) - colour
    return Channels(colour, None if alpha is None else values[..., alpha], full)


def _upright(channels: Channels, orientation: int) -> Channels:
    """The channels turned by the EXIF tag `orientation`, as `PIL.ImageOps.exif_transpose` turns."""

    def turn(values: np.ndarray) -> np.ndarray:
        if orientation in (5, 6, 7, 8):
            values = values.swapaxes(0, 1)
        down = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
        right = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
        return values[down, right]

    alpha = None if channels.alpha is None else turn(channels.alpha)
    return Channels(turn(channels.colour), alpha, channels.full)
