"""Opening image files safely: by their content, one page each, not too large, in one-line errors.

Files are opened by handle. Given a path, Pillow maps uncompressed grey TIFF and BMP into memory,
and then reads the rows of one that is turned by its orientation tag with the wrong length.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from PIL import Image, UnidentifiedImageError

from factory_core.images.files import counted, left_out, list_images

# What the accepted suffixes stand for, and AVIF, which browsers save as .jpg. None of them starts
# another program, as Pillow's reader of PostScript does.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "AVIF")
ORIENTATION = 0x0112  # EXIF; 1 is upright
# Tags of TIFF. SUBFILE_TYPE 1 marks a smaller copy, 4 a transparency mask.
SUBFILE_TYPE, PHOTOMETRIC, DESCRIPTION, DEPTH = 0x00FE, 0x0106, 0x010E, 0x80E5
WHITE_IS_ZERO = 0  # of PHOTOMETRIC
THREADS = 8  # they wait for the disk
RARE = (
    "of a rare kind (such as 64-bit floats, colour in floats, or more than four channels): save it "
    "as 8-bit RGB or grey"
)
MAGIC = (
    (0, b"version https://git-lfs", "a Git LFS pointer: run `git lfs pull`"),
    (0, b"<!DOCTYPE", "a web page"),
    (0, b"<html", "a web page"),
    (0, b"%PDF", "a PDF"),
    (4, b"ftyphei", "HEIC: convert it to JPEG or PNG"),
    (128, b"DICM", "DICOM: convert it to PNG"),
    (0, b"II*\0", f"a TIFF {RARE}"),
    (0, b"MM\0*", f"a TIFF {RARE}"),
)

# Sizes are checked below, and metadata that Pillow doubts does not change the pixels.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")

T = TypeVar("T")


class Traits(NamedTuple):
    """What the header of an image file says."""

    turned: bool = False  # EXIF asks for a turn or a reflection
    alpha: bool = False
    spare: bool = False  # a TIFF with a channel beside grey or RGB that is not alpha


def decode_file(path: Path, decode: Callable[[Image.Image], T]) -> T:
    """`decode` the image file; raises ValueError naming the file if it cannot be read."""
    if not path.exists():
        raise FileNotFoundError(f"image {path} does not exist")
    try:
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            check_one_page(image)
            return decode(image)
    except Exception as error:  # on damaged files Pillow raises nearly everything
        raise ValueError(f"cannot read {path}: {_reason(path, error)}") from error


def check_one_page(image: Image.Image) -> None:
    """Raise ValueError for stacks and animations.

    Smaller copies in a TIFF and a phone's preview or depth map do not count.
    """
    pages = 1
    if image.format != "MPO":  # a phone's photograph
        pages = getattr(image, "n_frames", 1)
    if image.format == "TIFF":
        pages = max(1 + sum(_is_page(image, i) for i in range(1, pages)), _planes(image))
        image.seek(0)
    if pages > 1:
        raise ValueError(f"it holds {pages} pages, expected one image: save each as a file")


def traits(path: Path) -> Traits:
    """The header of an image file; nothing unusual if it cannot be read (reading reports that)."""
    try:
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            # PNG's own getexif decodes the whole image first.
            turned = Image.Image.getexif(image).get(ORIENTATION, 1) in range(2, 9)
            spare = image.format == "TIFF" and "X" in raw_mode(image)
            return Traits(turned, image.has_transparency_data, spare)
    except Exception:  # as in `decode_file`
        return Traits()


def image_notes(paths: Sequence[Path]) -> tuple[str, ...]:
    """A line with the number of images that are not read pixel by pixel, if there are any.

    Only headers are read.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(traits, paths))
    turned, alpha, spare = (sum(column) for column in zip(*found, strict=True))
    notes = []
    if turned:
        notes.append(f"{turned} turned upright by their EXIF tag (masks are expected upright)")
    if alpha:
        notes.append(f"{alpha} with an alpha channel (transparent pixels become white)")
    if spare:
        notes.append(f"{spare} with a channel beside grey or RGB, which is left out")
    return (f"{counted(len(found), 'image')}: {', '.join(notes)}",) if notes else ()


def folder_notes(folder: str | Path) -> tuple[str, ...]:
    """What is left out of a folder, and the `image_notes` on it; raises as `list_images`."""
    return left_out([folder]) + image_notes(list_images(folder))


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


def _planes(image: Image.Image) -> int:
    """Planes that a single page of a TIFF announces: a volume, or a stack of ImageJ or tifffile."""
    tags = image.tag_v2  # type: ignore[attr-defined]
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
