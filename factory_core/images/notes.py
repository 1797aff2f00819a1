"""Lines for the user on images that are not read pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from factory_core.images.decoding import wide_samples
from factory_core.images.files import counted, left_out, list_images
from factory_core.images.scaling import EIGHT_BITS, clipped_share
from factory_core.images.traits import traits_of
from factory_core.pictures import DEFAULT_PICTURES, Pictures


def image_notes(paths: Sequence[Path], pictures: Pictures = DEFAULT_PICTURES) -> tuple[str, ...]:
    """Lines on images that are turned, put on white or scaled, if there are any.

    Of images of 8 bits per channel only headers are read.
    """
    found = traits_of(paths)
    turned, alpha, spare, wide = (sum(column) for column in zip(*found, strict=True))
    notes = []
    if turned:
        notes.append(f"{turned} turned upright by their EXIF tag (masks are expected upright)")
    if alpha:
        notes.append(f"{alpha} with an alpha channel (transparent pixels become white)")
    if spare:
        notes.append(f"{spare} with a channel beside grey or RGB, which is left out")
    lines = [f"{counted(len(found), 'image')}: {', '.join(notes)}"] if notes else []
    if wide:
        lines += _note_on_scaling(paths, pictures, wide)
    return tuple(lines)


def folder_notes(folder: str | Path, pictures: Pictures = DEFAULT_PICTURES) -> tuple[str, ...]:
    """What is left out of a folder, and the `image_notes` on it; raises as `list_images`."""
    return left_out([folder]) + image_notes(list_images(folder), pictures)


def _note_on_scaling(paths: Sequence[Path], pictures: Pictures, wide: int) -> list[str]:
    levels = pictures.levels
    clipped, missing = clipped_share(wide_samples(paths, pictures), levels)
    if levels == EIGHT_BITS and not clipped and not missing:
        return []
    what = "the range of their type becomes"
    if levels is not None:
        what = f"values from {levels[0]:g} to {levels[1]:g} become"
    outside = f"{_share(clipped)} of the values lie outside and are clipped"
    line = f"{counted(wide, 'image')} with more than 8 bits per channel: {what} 0 to 255; {outside}"
    if missing:
        line += f", {_share(missing)} are NaN and become black"
    return [f"{line} (pictures.range)"]


def _share(share: float) -> str:
    return "none" if not share else f"{100 * share:.2g} %"
