"""What the headers of image files say, without decoding them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from factory_core.images.channels import has_wide_channels
from factory_core.images.opening import FORMATS, ORIENTATION, TIFF_STARTS, raw_mode

THREADS = 8  # they wait for the disk


class Traits(NamedTuple):
    """What the header of an image file says."""

    turned: bool = False  # EXIF asks for a turn or a reflection
    alpha: bool = False
    spare: bool = False  # a TIFF with a channel beside grey or RGB that is not alpha
    wide: bool = False  # more than 8 bits per channel


def traits(path: Path) -> Traits:
    """The header of an image file; nothing unusual if it cannot be read (reading reports that)."""
    try:
        with path.open("rb") as file:
            try:
                image = Image.open(file, formats=FORMATS)
            except UnidentifiedImageError:
                file.seek(0)
                return Traits(wide=file.read(4) in TIFF_STARTS)
            with image:
                # PNG's own getexif decodes the whole image first.
                turned = Image.Image.getexif(image).get(ORIENTATION, 1) in range(2, 9)
                spare = image.format == "TIFF" and "X" in raw_mode(image)
                wide = has_wide_channels(image)
                return Traits(turned, image.has_transparency_data, spare, wide)
    except Exception:  # as in `decode_file`
        return Traits()


def traits_of(paths: Sequence[Path]) -> list[Traits]:
    """The headers of many files, in order."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(traits, paths))
