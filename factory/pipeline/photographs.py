"""The photographs for `factory label`, checked before hours are spent on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from factory_core.pictures import DEFAULT_PICTURES, Pictures

SHOWN = 5  # names of unreadable images, at most


def list_photographs(folder: Path, pictures: Pictures = DEFAULT_PICTURES) -> tuple[str, ...]:
    """Absolute paths of the images in `folder`, sorted by name.

    Raises ValueError, with their number and the first names, if some cannot be read; other errors
    as `list_images`. Every image is decoded: a truncated one would fail its shard later. `pictures`
    is measured (see `factory_core.images.measured`).
    """
    from factory_core.images import list_images

    paths = list_images(folder)
    check_photographs(folder, paths, pictures)
    return tuple(str(path.absolute()) for path in paths)  # links keep their names


def check_photographs(folder: Path, paths: Sequence[Path], pictures: Pictures) -> None:
    """Decode images of `folder`; raises ValueError as `list_photographs`."""
    from factory_core.machine import available_cpus

    with ThreadPoolExecutor(available_cpus()) as pool:
        faults = pool.map(partial(_fault, pictures=pictures), paths)
    bad = {path.name: fault for path, fault in zip(paths, faults, strict=True) if fault}
    if bad:
        raise ValueError(_complaint(folder, bad, len(paths)))


def _fault(path: Path, pictures: Pictures) -> str:
    """Why an image cannot be read, in one line; empty if it can."""
    from factory_core.images import check_image

    try:
        check_image(path, pictures)
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def _complaint(folder: Path, bad: Mapping[str, str], total: int) -> str:
    names = ", ".join(list(bad)[:SHOWN]) + (", ..." if len(bad) > SHOWN else "")
    return (
        f"{len(bad)} of the {total} images in {folder} cannot be used ({names}): fix them or"
        f" move them elsewhere; the first: {next(iter(bad.values()))}"
    )
