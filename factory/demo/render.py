"""Stained blood smears drawn from an index: the images of the demo, with exact masks.

Shapes are signed distances on a grid finer than the image; the mask is the topmost structure at
each pixel's centre. Scalars are Python floats, so that arrays stay float32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from factory.demo.classes import CLASSES, PALETTE
from factory.demo.slide import OVERSAMPLING, Slide, Stain, expose
from factory.demo.small_cells import paint_platelets, paint_red_cell, place_red_cells
from factory.demo.white_cells import draw_white_cells, paint_white_cell
from factory_core.output_folder import contents, refuse_file
from factory_core.storage import atomic_path, json_bytes, write_bytes

__all__ = ["CLASSES", "PALETTE", "render", "render_folder"]


def render(index: int, size: int = 64) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw smear number `index`.

    Returns the image, uint8 `[size, size, 3]` RGB, and its mask, uint8 `[size, size]` of ids into
    `CLASSES`. Both depend on the arguments only; a different `size` shows the same smear with
    different sensor noise. Raises ValueError for a negative index or a size below 16.
    """
    if index < 0:
        raise ValueError(f"index is {index}, expected 0 or more: smears are numbered from 0")
    if size < 16:
        raise ValueError(f"size is {size}, expected at least 16 px: smaller frames show no cells")
    rng = np.random.default_rng(np.random.SeedSequence(index))
    slide, stain = Slide(size), Stain.draw(rng)
    whites = draw_white_cells(rng)
    pallor = rng.uniform(0.6, 1.05)  # how biconcave the red cells of this smear are
    for cell in place_red_cells(rng, whites):
        paint_red_cell(rng, slide, stain, whites, cell, pallor)
    paint_platelets(rng, slide, stain, whites)
    for white in whites:
        paint_white_cell(rng, slide, stain, white)
    mask = slide.labels[OVERSAMPLING // 2 :: OVERSAMPLING, OVERSAMPLING // 2 :: OVERSAMPLING]
    return expose(rng, slide, stain, size), np.ascontiguousarray(mask)


def render_folder(out: Path, indices: range, size: int = 64) -> None:
    """Write `classes.json`, `images/%06d.png` and `masks/%06d.png` (palette PNGs of ids).

    Replaces files of an earlier rendering, each atomically. Raises FileExistsError if `out` holds
    anything else, NotADirectoryError if it is a file.
    """
    out = Path(out)
    refuse_file(out)
    description = {"classes": list(CLASSES), "palette": [list(colour) for colour in PALETTE]}
    text, file = json_bytes(description), out / "classes.json"
    if found := contents(out):
        if not (file.is_file() and file.read_bytes() == text):
            raise FileExistsError(
                f"{out} holds {found[0]}, no rendering: give a new or empty folder"
            )
    else:  # written first, so that an interrupted rendering is recognised
        out.mkdir(parents=True, exist_ok=True)
        write_bytes(file, text)
    for name in ("images", "masks"):
        (out / name).mkdir(parents=True, exist_ok=True)
    for index in indices:
        pixels, ids = render(index, size)
        mask = Image.fromarray(ids)
        mask.putpalette([value for colour in PALETTE for value in colour])
        _save_png(Image.fromarray(pixels), out / "images" / f"{index:06d}.png")
        _save_png(mask, out / "masks" / f"{index:06d}.png")


def _save_png(image: Image.Image, path: Path) -> None:
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")
