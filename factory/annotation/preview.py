"""Sheets of images to annotate: a grid of images with lines below each."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from factory.annotation.samples import IMAGES_DIR
from factory_core.dataset import PREVIEW_NAME
from factory_core.storage import write_bytes

SHOWN = 96  # images at most
TILE, GAP, LINE = 128, 8, 16  # pixels
INK = (28, 30, 34)


def write_preview(out: Path, keys: Sequence[str]) -> None:
    """Draw the first images of the folder, each with its index, to `out`/preview.png."""
    files = {key: out / IMAGES_DIR / f"{key}.png" for key in keys}
    shown = [key for key in keys if files[key].is_file()][:SHOWN]
    images = []
    for key in shown:
        with Image.open(files[key]) as file:
            images.append(file.convert("RGB"))
    write_bytes(out / PREVIEW_NAME, sheet(images, [(str(int(key)),) for key in shown]))


def sheet(images: Sequence[Image.Image], captions: Sequence[Sequence[str]]) -> bytes:
    """A PNG of the images in rows, each with its lines below."""
    return draw_grid([as_tile(image) for image in images], captions)


def draw_grid(tiles: Sequence[Image.Image], captions: Sequence[Sequence[str]]) -> bytes:
    """PNG of a square grid of RGB pictures, each above its lines, cut to the width of the tiles."""
    width, height = (max(t.size[side] for t in tiles) for side in (0, 1))
    caption = LINE * max(len(lines) for lines in captions) + 4
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    page = Image.new(
        "RGB", (columns * (width + GAP) + GAP, rows * (height + caption + GAP) + GAP), "white"
    )
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=14)
    for place, (tile, lines) in enumerate(zip(tiles, captions, strict=True)):
        left = GAP + place % columns * (width + GAP)
        top = GAP + place // columns * (height + caption + GAP)
        page.paste(tile, (left, top))
        for number, line in enumerate(lines):
            while draw.textlength(line, font) > width + GAP - 2:
                line = line.rstrip("…")[:-1] + "…"
            below = top + height + 3 + LINE * number
            draw.text((left + width / 2, below), line, INK, font, anchor="ma")
    buffer = io.BytesIO()
    page.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def as_tile(image: Image.Image) -> Image.Image:
    """An image in the size to show: small ones enlarged by an integer factor, large ones shrunk."""
    factor = TILE // max(image.size)
    if factor > 1:
        return Image.fromarray(np.asarray(image).repeat(factor, 0).repeat(factor, 1))
    image.thumbnail((2 * TILE, 2 * TILE))
    return image
