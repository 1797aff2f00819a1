"""The photographs for `factory label`, checked before hours are spent on them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

SHOWN = 5  # names of unreadable images, at most
THREADS = 8  # they wait for the disk


def list_photographs(folder: Path) -> tuple[str, ...]:
    """Absolute paths of the images in `folder`, sorted by name.

    Raises ValueError, with their number and the first names, if some are not images; other errors
    as `list_images`. Only headers (and for PNG the checksums) are read: any other truncated image
    fails its shard later.
    """
    from factory_core.images import list_images

    paths = list_images(folder)
    with ThreadPoolExecutor(THREADS) as pool:
        readable = pool.map(_is_image, paths)
    bad = [path.name for path, good in zip(paths, readable, strict=True) if not good]
    if bad:
        raise ValueError(_complaint(folder, bad, len(paths)))
    return tuple(str(path.resolve()) for path in paths)


def _is_image(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.verify()
    # Pillow raises any of them; SyntaxError for a truncated PNG.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return True


def _complaint(folder: Path, bad: Sequence[str], total: int) -> str:
    names = ", ".join(bad[:SHOWN]) + (", ..." if len(bad) > SHOWN else "")
    return (
        f"{len(bad)} of the {total} images in {folder} cannot be read ({names}): repair them or"
        " move them elsewhere"
    )
