"""Colours in a mask that no class has, and the class that each was probably meant to be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from factory_core.images import Palette, decode_file

SHOWN = 5  # colours per file


def colours_off(path: Path, palette: Palette | None, names: Sequence[str] | None) -> list[str]:
    """A line per colour of the file that `palette` lacks, the most frequent ones first.

    Empty without a palette, or if the file cannot be read as colours.
    """
    if palette is None or names is None:
        return []
    try:
        found = decode_file(path, _colours)
    except (ValueError, OSError):
        return []
    known = np.array(palette, np.float64)
    off = [(number, colour) for number, colour in found if list(colour) not in palette]
    lines = []
    for number, colour in sorted(off, reverse=True)[:SHOWN]:
        distances = np.sqrt(((known - colour) ** 2).sum(1))
        i = int(distances.argmin())
        lines.append(
            f"{number} pixels of colour {list(colour)}, which is no class: nearest is {names[i]} "
            f"{palette[i]}, at a distance of {distances[i]:.1f}"
        )
    if len(off) > SHOWN:
        lines.append(f"and {len(off) - SHOWN} more such colours")
    return lines


def _colours(image: Image.Image) -> list[tuple[int, tuple[int, int, int]]]:
    """Number and value of each colour; raises ValueError for a picture that is not in colours."""
    if image.mode not in ("RGB", "RGBA", "P"):
        raise ValueError(f"it is in {image.mode}, not in colours")
    values, numbers = np.unique(
        np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0, return_counts=True
    )
    colours = [(r, g, b) for r, g, b in values.tolist()]
    return list(zip(numbers.tolist(), colours, strict=True))
