"""Opening image files safely: by their content, one page each, not too large, in one-line errors.

Files are opened by handle. Given a path, Pillow maps uncompressed grey TIFF and BMP into memory,
and then reads the rows of one that is turned by its orientation tag with the wrong length.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

from PIL import Image, UnidentifiedImageError

from factory_core.images.files import counted

# What the accepted suffixes stand for, and AVIF, which browsers save as .jpg. None of them starts
# another program, as Pillow's reader of PostScript does.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "AVIF")
ORIENTATION = 0x0112  # EXIF; 1 is upright
# Tags of TIFF. SUBFILE_TYPE 1 marks a smaller copy, 4 a transparency mask.
SUBFILE_TYPE, PHOTOMETRIC, DESCRIPTION, DEPTH = 0x00FE, 0x0106, 0x010E, 0x80E5
WHITE_IS_ZERO = 0  # of PHOTOMETRIC
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAGIC = (
    (0, b"version https://git-lfs", "a Git LFS pointer: run `git lfs pull`"),
    (0, b"<!DOCTYPE", "a web page"),
    (0, b"<html", "a web page"),
    (0, b"%PDF", "a PDF"),
    (4, b"ftyphei", "HEIC: convert it to JPEG or PNG"),
    (128, b"DICM", "DICOM: convert it to PNG"),
)

# Sizes are checked below, and metadata that Pillow doubts does not change the pixels.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")

T = TypeVar("T")


def decode_file(
    path: Path,
    decode: Callable[[Image.Image], T],
    page: int | None = None,
    decode_tiff: Callable[[BinaryIO], T] | None = None,
) -> T:
    """`decode` the image file, at the `page` of `Pictures`.

    `decode_tiff` is given the TIFFs that Pillow does not know. Raises ValueError naming the file if
    it cannot be read, FileNotFoundError if it does not exist.
    """
    if not path.exists():
        raise FileNotFoundError(f"image {path} does not exist")
    try:
        with path.open("rb") as file:
            try:
                image = Image.open(file, formats=FORMATS)
            except UnidentifiedImageError:
                file.seek(0)
                if decode_tiff is None or file.read(4) not in TIFF_STARTS:
                    raise
                return decode_tiff(file)
            with image:
                open_page(image, page)
                return decode(image)
    except Exception as error:  # on damaged files Pillow raises nearly everything
        raise ValueError(f"cannot read {path}: {_reason(path, error)}") from error


def open_page(image: Image.Image, wanted: int | None = None) -> None:
    """Go to a page of an opened image; raise ValueError as `page_index`.

    Smaller copies in a TIFF and a phone's preview or depth map do not count. The planes of a TIFF
    that announces several in its single page do, but Pillow does not reach them.
    """
    pages = list(range(getattr(image, "n_frames", 1)))
    if image.format == "MPO":  # a phone's photograph
        pages = [0]
    if image.format == "TIFF":
        pages = [0, *(i for i in pages[1:] if _is_page(image, i))]
        image.seek(0)
        if len(pages) < planes(image):
            page_index(planes(image), wanted)
            return
    if index := pages[page_index(len(pages), wanted)]:
        image.seek(index)


def page_index(pages: int, wanted: int | None) -> int:
    """The page to read, from 0; raises ValueError if it is not given, or there is none such."""
    if wanted is None and pages > 1:
        raise ValueError(
            f"it holds {pages} pages, expected one image: save each as a file, or choose one with "
            f"--set pictures.page=N (0 to {pages - 1})"
        )
    if wanted is not None and wanted >= pages:
        raise ValueError(
            f"it holds {counted(pages, 'page')}, but pictures.page is {wanted} (counted from 0)"
        )
    return wanted or 0


def raw_mode(image: Image.Image) -> str:
    """How the file of an opened, not yet decoded image stores a pixel, in Pillow's words."""
    tiles = getattr(image, "tile", [])
    args = tiles[0].args if tiles else ""
    return str(args[0] if isinstance(args, tuple) and args else args)


def is_white_zero(image: Image.Image) -> bool:
    """Whether an opened image is a TIFF whose 0 is white; Pillow inverts those of up to 8 bits."""
    return getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO


def _is_page(image: Image.Image, index: int) -> bool:
    try:
        image.seek(index)
    except (OSError, SyntaxError, ValueError):  # of a kind that Pillow cannot read
        return True
    kind = image.tag_v2.get(SUBFILE_TYPE, 0)  # type: ignore[attr-defined]
    return not kind & 0b101


def planes(image: Image.Image) -> int:
    """Planes that a single page of a TIFF announces: a volume, or a stack of ImageJ or tifffile."""
    tags = getattr(image, "tag_v2", {})
    description = str(tags.get(DESCRIPTION, ""))
    if match := re.match(r"ImageJ=(?s:.*)^images=(\d{1,9})", description, re.MULTILINE):
        return int(match[1])
    if match := re.match(r'\{"shape": \[([\d, ]{1,99})\]', description):
        values = math.prod(int(side) for side in match[1].split(",") if side.strip())
        return values // (image.width * image.height * len(image.getbands()))
    return int(tags.get(DEPTH, 1))


def _reason(path: Path, error: Exception) -> str:
    """Why a file cannot be read, in one line."""
    if isinstance(error, Image.DecompressionBombError):
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return (
            f"it is larger than {limit / 1e6:.0f} megapixels: cut it into smaller images (`factory "
            "predict --tile` segments it whole)"
        )
    if isinstance(error, UnidentifiedImageError):
        with path.open("rb") as file:
            start = file.read(256)
        if not start:
            return "it is empty"
        for offset, magic, what in MAGIC:
            if start[offset:].lower().startswith(magic.lower()):
                return f"it is {what}"
        return "not an image (expected PNG, JPEG, BMP, TIFF, WebP or GIF)"
    if isinstance(error, MemoryError):
        return "not enough memory"
    return " ".join(str(error).split()) or type(error).__name__
