"""What a layout finds in an annotated folder, and how a pair of image and mask is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from factory_core.images import (
    Mask,
    Palette,
    Pictures,
    counted,
    load_image,
    load_mask,
    traits,
    wxh,
)


@dataclass(frozen=True)
class Item:
    """An annotated image: selections match its `name`, and `mask` holds its ids."""

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Layout:
    """The annotated images of a folder, found but not read.

    `read` returns an image, scaled as asked, and its mask of the same size; `classes` are the
    names in id order, None if unknown; `crop` says whether resizing keeps the aspect ratio; `notes`
    are lines for the user on what was left out.
    """

    items: list[Item]
    read: Callable[[Item, Pictures], tuple[Image.Image, Mask]]
    classes: list[str] | None
    palette: Palette | None = None
    crop: bool = False
    notes: tuple[str, ...] = ()


def read_pair(
    item: Item,
    pictures: Pictures,
    palette: Palette | None = None,
    new_ids: np.ndarray | None = None,
) -> tuple[Image.Image, Mask]:
    """Image and mask of equal size; `new_ids` uint8 `[256]` maps each stored id to a new one."""
    image, mask = load_image(item.image, pictures), load_mask(item.mask, palette)
    if image.size != mask.ids.shape[::-1]:
        raise ValueError(
            f"{item.mask} is {wxh(mask.ids.shape)} pixels but its image {item.image.name} is "
            f"{wxh(image.size[::-1])}: {_size_hint(item, image, mask)}"
        )
    if new_ids is not None and mask.stored:
        mask = Mask(new_ids[mask.ids], stored=False)
    return image, mask


def notes_on_turns(items: Sequence[Item]) -> tuple[str, ...]:
    """A line if masks are turned by their EXIF tag and their images are not. Reads headers."""
    alone = [i.mask for i in items if traits(i.mask).turned and not traits(i.image).turned]
    if not alone:
        return ()
    return (
        f"{counted(len(alone), 'mask')} turned upright by an EXIF tag that the image lacks, such "
        f"as {alone[0].name}: check that they match",
    )


def _size_hint(item: Item, image: Image.Image, mask: Mask) -> str:
    """What to do about different sizes."""
    if image.size == mask.ids.shape:
        of_image, of_mask = traits(item.image).turned, traits(item.mask).turned
        if of_image != of_mask:
            which, other = ("image", "mask") if of_image else ("mask", "image")
            return (
                f"the {which} is turned upright by its EXIF tag, the {other} has no such tag; turn "
                f"the {other} as viewers show the {which}, or remove the tag"
            )
    return "expected equal sizes"
