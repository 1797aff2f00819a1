"""Annotated folders image by image, at the images' own sizes, for programs of any memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from factory_core.annotated.items import Item, Layout
from factory_core.annotated.layouts import open_layout, split_selections
from factory_core.annotated.meaning import MaskFile, check_meaning, ids_of_greys
from factory_core.images import DEFAULT_PICTURES, IGNORE, Mask, Pictures, measured


@dataclass(frozen=True)
class NativeFolder:
    """The items of a folder that was checked, and its classes in id order.

    `pictures` scales the images; `new_ids` uint8 `[256]` maps stored numbers to ids if they are
    grey levels, else None.
    """

    layout: Layout
    classes: list[str]
    pictures: Pictures
    new_ids: np.ndarray | None

    def ids(self, item: Item) -> np.ndarray:
        """The mask of an item, uint8 `[H, W]` class ids; raises as `Layout.read`."""
        _, mask = self.layout.read(item, self.pictures)
        return mask.ids if self.new_ids is None or not mask.stored else self.new_ids[mask.ids]


def open_native(folder: str | Path, classes: Sequence[str] | None = None) -> NativeFolder:
    """Read every item once to check what the masks mean; raises as `read_annotations`."""
    layout = open_layout(folder, classes)
    pictures = measured(DEFAULT_PICTURES, [item.image for item in layout.items])
    files = [mask_file(item, layout.read(item, pictures)[1]) for item in layout.items]
    new_ids = ids_of_greys(files, layout.palette)
    if new_ids is not None:
        files = [file.mapped(new_ids) if file.stored else file for file in files]
    check_meaning(split_selections(folder)[0], files, layout.classes)
    used = np.flatnonzero(np.sum([file.pixels[:IGNORE] for file in files], axis=0))
    names = layout.classes or numbered(int(used.max()))
    return NativeFolder(layout, names, pictures, new_ids)


def mask_file(item: Item, mask: Mask, resized: np.ndarray | None = None) -> MaskFile:
    """What `check_meaning` needs to know of a mask, which was `resized` to ids uint8 `[h, w]`."""
    pixels = _count(mask.ids)
    after = pixels if resized is None else _count(resized)
    return MaskFile(item.mask, mask.stored, mask.colours, pixels, after)


def numbered(largest: int) -> list[str]:
    """Names for classes that nobody has named."""
    return [f"class_{i}" for i in range(largest + 1)]


def _count(ids: np.ndarray) -> np.ndarray:
    """Pixels per value, int64 `[256]`."""
    return np.bincount(ids.ravel(), minlength=IGNORE + 1)
