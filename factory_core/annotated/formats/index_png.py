"""Index PNG: `images/`, `masks/` of class ids and classes.json, this project's own folder.

Any other layout of annotated folders that trainings read can be imported too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from factory_core.annotated.formats.pictures import checked_size
from factory_core.annotated.formats.regions import (
    Drawing,
    Picture,
    Reading,
    Region,
    Source,
    masks_of,
)
from factory_core.annotated.formats.writing import Sample, Writer, encode_values
from factory_core.annotated.items import Item
from factory_core.annotated.native import NativeFolder, open_native
from factory_core.images import Palette

MASKS = "masks"


def read(source: Source) -> Reading:
    """An annotated folder as trainings read it; raises as `open_native`."""
    if source.images is not None:
        raise ValueError("--images: an annotated folder holds its own pictures, leave it out")
    folder = open_native(source.path, source.classes)
    drawings = []
    for item in folder.layout.items:
        stem = item.name.replace("/", "_")  # ADE20K's scenes
        picture = Picture(stem, item.image.suffix.lower(), item.image)
        size = checked_size(picture, None, None, str(item.image))
        drawings.append(Drawing(picture, size, partial(_regions, folder, item)))
    return Reading(folder.classes, drawings, has_all_ids=True, palette=folder.layout.palette)


def _regions(folder: NativeFolder, item: Item) -> Iterator[Region]:
    return masks_of(folder.ids(item), folder.classes)


class IndexPngWriter(Writer):
    """Grey PNGs of ids, without colours."""

    images = "images"

    def __init__(self, folder: Path, classes: Sequence[str], palette: Palette):
        super().__init__(folder, classes, palette)
        (folder / MASKS).mkdir()

    def description(self) -> dict[str, Any]:
        return {"classes": self.classes}  # with colours, grey masks might be taken for grey levels

    def add(self, sample: Sample) -> None:
        self.save_image(sample)
        (self.folder / MASKS / f"{sample.stem}.png").write_bytes(encode_values(sample.ids))
