"""The photographs for `factory label`, checked before hours are spent on them."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SHOWN = 5  # names of unreadable images, at most


def list_photographs(folder: Path) -> tuple[str, ...]:
    """Absolute paths of the images in `folder`, sorted by name.

    Raises ValueError, with their number and the first names, if some cannot be read; other errors
    as `list_images`. Every image is decoded: a truncated one would fail its shard later.
    """
    from factory_core.images import list_images
    from factory_core.machine import available_cpus

    paths = list_images(folder)
    with ThreadPoolExecutor(available_cpus()) as pool:
        faults = pool.map(_fault, paths)
    bad = {path.name: fault for path, fault in zip(paths, faults, strict=True) if fault}
    if bad:
        raise ValueError(_complaint(folder, bad, len(paths)))
    return tuple(str(path.resolve()) for path in paths)


def _fault(path: Path) -> str:
    """Why an image cannot be read, in one line; empty if it can."""
    from factory_core.images import check_image, decode_file

    try:
        decode_file(path, check_image)
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def _complaint(folder: Path, bad: Mapping[str, str], total: int) -> str:
    names = ", ".join(list(bad)[:SHOWN]) + (", ..." if len(bad) > SHOWN else "")
    return (
        f"{len(bad)} of the {total} images in {folder} cannot be used ({names}): fix them or"
        f" move them elsewhere; the first: {next(iter(bad.values()))}"
    )
