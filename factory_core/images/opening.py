"""Opening image files safely: by their content, one page each, not too large, in one-line errors.

Files are opened by handle. Given a path, Pillow maps uncompressed grey TIFF and BMP into memory,
and then reads the rows of one that is turned by its orientation tag with the wrong length.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from PIL import Image, UnidentifiedImageError

from factory_core.images.files import counted

# What the accepted suffixes stand for, and AVIF, which browsers save as .jpg. None of them starts
# another program, as Pillow's reader of PostScript does.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "AVIF")
ORIENTATION = 0x0112  # EXIF; 1 is upright
SUBFILE_TYPE = 0x00FE  # TIFF: 1 marks a smaller copy, 4 a transparency mask
THREADS = 8  # they wait for the disk
MAGIC = (
    (0, b"version https://git-lfs", "a Git LFS pointer: run `git lfs pull`"),
    (0, b"<!DOCTYPE", "a web page"),
    (0, b"<html", "a web page"),
    (0, b"%PDF", "a PDF"),
    (4, b"ftyphei", "HEIC: convert it to JPEG or PNG"),
    (128, b"DICM", "DICOM: convert it to PNG"),
    (0, b"II*\0", "a TIFF of a rare kind, such as colour in floats: save it as 8-bit RGB"),
    (0, b"MM\0*", "a TIFF of a rare kind, such as colour in floats: save it as 8-bit RGB"),
)

# Sizes are checked below, and metadata that Pillow doubts does not change the pixels.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")

T = TypeVar("T")


class Traits(NamedTuple):
    """What the header of an image file says."""

    turned: bool  # EXIF asks for a turn or a reflection
    alpha: bool


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
    if image.format == "TIFF" and pages > 1:
        pages = 1 + sum(_is_page(image, i) for i in range(1, pages))
        image.seek(0)
    if pages > 1:
        raise ValueError(f"it holds {pages} pages, expected one image: save each as a file")


def traits(path: Path) -> Traits:
    """The header of an image file; nothing unusual if it cannot be read (reading reports that)."""
    try:
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            # PNG's own getexif decodes the whole image first.
            turned = Image.Image.getexif(image).get(ORIENTATION, 1) in range(2, 9)
            return Traits(turned, image.has_transparency_data)
    except Exception:  # as in `decode_file`
        return Traits(turned=False, alpha=False)


def image_notes(paths: Sequence[Path]) -> tuple[str, ...]:
    """A line with the number of images that are not read pixel by pixel, if there are any.

    Only headers are read.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(traits, paths))
    turned, alpha = sum(t.turned for t in found), sum(t.alpha for t in found)
    notes = []
    if turned:
        notes.append(f"{turned} turned upright by their EXIF tag (masks are expected upright)")
    if alpha:
        notes.append(f"{alpha} with an alpha channel (transparent pixels become white)")
    return (f"{counted(len(found), 'image')}: {', '.join(notes)}",) if notes else ()


def _is_page(image: Image.Image, index: int) -> bool:
    try:
        image.seek(index)
    except (OSError, SyntaxError, ValueError):  # of a kind that Pillow cannot read
        return True
    kind = image.tag_v2.get(SUBFILE_TYPE, 0)  # type: ignore[attr-defined]
    return not kind & 0b101


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
