"""A sheet of all masks over their images."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from factory.annotation.checking.findings import Checked
from factory.annotation.preview import SHOWN, as_tile, draw_grid
from factory_core.dataset import IGNORE, default_palette, overlay
from factory_core.images import load_image
from factory_core.storage import write_bytes

HATCH = 4  # pixels: the distance of the lines over pixels to ignore


def write_sheet(checked: Checked, file: Path) -> int:
    """Write a PNG of the first images, each with its mask; returns their number.

    Pixels to ignore are hatched. Writes nothing if no mask can be read.
    """
    palette = default_palette(max(len(checked.classes), 1))
    if checked.layout is not None and checked.layout.palette is not None:
        palette = checked.layout.palette
    tiles: list[Image.Image] = []
    captions: list[str] = []
    for item, ids in islice(checked.readable(), SHOWN):
        tile = as_tile(load_image(item.image, checked.pictures))
        shown = np.asarray(Image.fromarray(ids).resize(tile.size, Image.Resampling.NEAREST))
        tiles.append(Image.fromarray(_hatched(overlay(np.asarray(tile), shown, palette), shown)))
        captions.append(item.name if item.name.isascii() else str(len(captions) + 1))
    if tiles:
        write_bytes(file, draw_grid(tiles, [(caption,) for caption in captions]))
    return len(tiles)


def _hatched(image: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The image uint8 `[H, W, 3]` with white diagonals over pixels to ignore."""
    rows, columns = np.indices(ids.shape)
    lines = (ids == IGNORE) & ((rows + columns) % HATCH == 0)
    return np.where(lines[..., None], np.uint8(255), image)
