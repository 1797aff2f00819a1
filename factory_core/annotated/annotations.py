"""Reading folders of images and of images with masks into memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from factory_core.annotated.layouts import open_layout
from factory_core.images import (
    IGNORE,
    Palette,
    Size,
    image_tensor,
    list_images,
    load_image,
    mask_tensor,
    read_image,
    wxh,
)


@dataclass(frozen=True)
class Annotations:
    """Annotated images of one size.

    `images` uint8 `[N, 3, H, W]` RGB, `masks` uint8 `[N, H, W]` class ids with 255 = ignore,
    `stems` the N file names without suffix, `classes` the names in id order, `palette` one
    `[r, g, b]` (0-255) per class if `classes.json` gives it. `indices` is set for samples of a
    generator, whose features are recorded during sampling.
    """

    images: torch.Tensor
    masks: torch.Tensor
    stems: list[str]
    classes: list[str]
    palette: Palette | None = None
    indices: tuple[int, ...] | None = None

    @property
    def digest(self) -> str:
        """sha256 of class names, images, masks and indices, which identifies the training data."""
        about: list[Any] = [self.classes, list(self.images.shape)]
        if self.indices is not None:
            about.append(self.indices)
        h = hashlib.sha256(json.dumps(about).encode())
        h.update(self.images.numpy().tobytes())
        h.update(self.masks.numpy().tobytes())
        return h.hexdigest()


class ImageFolder(Dataset[torch.Tensor]):
    """The images of a folder as uint8 `[3, H, W]`, read on demand and resized to `size`."""

    def __init__(self, folder: str | Path, size: Size | None = None):
        self.paths = list_images(folder)
        self.size = size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return read_image(self.paths[index], self.size)


def annotated_size(folder: str | Path) -> Size:
    """(H, W) of the first annotated image of `folder`; the errors of `read_annotations`."""
    width, height = load_image(open_layout(folder).items[0].image).size
    return height, width


def read_annotations(
    folder: str | Path, size: Size | None = None, classes: Sequence[str] | None = None
) -> Annotations:
    """The annotated images of `folder`, resized once to `size` (H, W; None keeps their size).

    `folder` has one of the layouts of `factory_core.annotated.layouts` and may select some of its
    images: `faces[:20]`. Class names come from `classes.json` ({"classes": [...], "palette":
    optional, "reduce_zero_label": true if ids count from 1 and 0 means ignore}) in the folder or
    its parent, else from `classes`, else they are `class_0`... up to the largest id found. Every
    mistake in the folder, including names that differ from `classes`, raises ValueError or OSError
    with one line naming the file.
    """
    layout = open_layout(folder, classes)
    names = layout.classes
    images, masks = [], []
    for item in layout.items:
        image, ids = layout.read(item)
        found = ids[ids != IGNORE].max(initial=0)
        if names is not None and found >= len(names):
            raise ValueError(
                f"{item.mask} has class id {found}, but there are {len(names)} classes "
                f"(0 to {len(names) - 1}): add its name to classes.json or correct the mask; if 0 "
                'means ignore and ids count from 1, write "reduce_zero_label": true there'
            )
        images.append(image_tensor(image, size, layout.crop))
        masks.append(mask_tensor(ids, size, layout.crop))
        if images[-1].shape != images[0].shape:
            raise ValueError(
                f"{item.image} is {wxh(ids.shape)} pixels, {layout.items[0].image.name} is "
                f"{wxh(masks[0].shape)}: give one size to resize them to"
            )
    stack = torch.stack(masks)
    if names is None:
        known = stack[stack != IGNORE]
        names = [f"class_{i}" for i in range(int(known.max()) + 1 if len(known) else 1)]
    stems = [item.name for item in layout.items]
    return Annotations(torch.stack(images), stack, stems, names, layout.palette)
