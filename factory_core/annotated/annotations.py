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

from factory_core.annotated.items import notes_on_turns
from factory_core.annotated.layouts import open_layout, split_selections
from factory_core.annotated.meaning import check_meaning, ids_of_greys, notes_on_masks
from factory_core.annotated.native import mask_file, numbered
from factory_core.images import (
    DEFAULT_PICTURES,
    IGNORE,
    Palette,
    Pictures,
    Size,
    image_notes,
    image_tensor,
    list_images,
    load_image,
    mask_tensor,
    measured,
    read_image,
    wxh,
)


@dataclass(frozen=True)
class Annotations:
    """Annotated images of one size.

    `images` uint8 `[N, 3, H, W]` RGB, `masks` uint8 `[N, H, W]` class ids with 255 = ignore,
    `stems` the N file names without suffix, `classes` the names in id order, `palette` one
    `[r, g, b]` (0-255) per class if `classes.json` gives it. `indices` is set for samples of a
    generator, whose features are recorded during sampling. `notes` are lines for the user: what was
    left out, turned, scaled, or is to be doubted. `pictures` is how the images were scaled, and
    `crop` whether resizing kept their aspect ratio.
    """

    images: torch.Tensor
    masks: torch.Tensor
    stems: list[str]
    classes: list[str]
    palette: Palette | None = None
    indices: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()
    pictures: Pictures = DEFAULT_PICTURES
    crop: bool = False

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

    def __init__(
        self, folder: str | Path, size: Size | None = None, pictures: Pictures = DEFAULT_PICTURES
    ):
        self.paths = list_images(folder)
        self.size = size
        self.pictures = measured(pictures, self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return read_image(self.paths[index], self.size, self.pictures)


def annotated_size(folder: str | Path, pictures: Pictures = DEFAULT_PICTURES) -> Size:
    """(H, W) of the first annotated image of `folder`; the errors of `read_annotations`."""
    first = open_layout(folder).items[0].image
    width, height = load_image(first, measured(pictures, [first])).size
    return height, width


def read_annotations(
    folder: str | Path,
    size: Size | None = None,
    classes: Sequence[str] | None = None,
    pictures: Pictures = DEFAULT_PICTURES,
) -> Annotations:
    """The annotated images of `folder`, resized once to `size` (H, W; None keeps their size).

    `folder` has one of the layouts of `factory_core.annotated.layouts` and may select some of its
    images: `faces[:20]`. Class names come from `classes.json` ({"classes": [...], "palette":
    optional, "reduce_zero_label": true if ids count from 1 and 0 means ignore}) in the folder or
    its parent, else from `classes`, else they are `class_0`... up to the largest id found. A range
    of values that `pictures` lacks is measured over these images. Every mistake in the folder,
    including names that differ from `classes`, raises ValueError or OSError with one line naming
    the file.
    """
    layout = open_layout(folder, classes)
    pictures = measured(pictures, [item.image for item in layout.items])
    images, masks, files = [], [], []
    for item in layout.items:
        image, mask = layout.read(item, pictures)
        images.append(image_tensor(image, size, layout.crop))
        masks.append(mask_tensor(mask.ids, size, layout.crop))
        files.append(mask_file(item, mask, masks[-1].numpy()))
        if images[-1].shape != images[0].shape:
            raise ValueError(
                f"{item.image} is {wxh(mask.ids.shape)} pixels, {layout.items[0].image.name} is "
                f"{wxh(masks[0].shape)}: give one size to resize them to"
            )
    stack = torch.stack(masks)
    new_ids = ids_of_greys(files, layout.palette)
    if new_ids is not None:
        for i, file in enumerate(files):
            if file.stored:
                stack[i] = torch.from_numpy(new_ids)[stack[i].long()]
                files[i] = file.mapped(new_ids)
    check_meaning(split_selections(folder)[0], files, layout.classes)
    names = layout.classes
    if names is None:
        known = stack[stack != IGNORE]
        names = numbered(int(known.max()) if len(known) else 0)
    return Annotations(
        torch.stack(images),
        stack,
        [item.name for item in layout.items],
        names,
        layout.palette,
        notes=(
            *layout.notes,
            *image_notes([item.image for item in layout.items], pictures),
            *notes_on_turns(layout.items),
            *notes_on_masks(files, names, layout.classes is not None, wxh(stack.shape[1:])),
        ),
        pictures=pictures,
        crop=layout.crop,
    )
