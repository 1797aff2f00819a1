"""How often classes occur in sets of masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage


@dataclass(frozen=True)
class Counts:
    """Of every class: the images in which it occurs, and its connected components in all images.

    Two pixels are connected if they share an edge or a corner.
    """

    masks: int
    images: list[int]
    components: list[int]

    @property
    def per_image(self) -> list[float]:
        """Components of every class, divided by the number of masks."""
        return [count / self.masks for count in self.components]

    @property
    def shares(self) -> list[float]:
        """Share of the masks in which every class occurs, in per cent."""
        return [100 * count / self.masks for count in self.images]


def count_classes(masks: np.ndarray, classes: int) -> Counts:
    """Counts of classes 0 to `classes` - 1 in masks uint8 `[N, H, W]`, N >= 1."""
    images, components = [0] * classes, [0] * classes
    corners = np.ones((3, 3), int)
    for mask in masks:
        for class_id in np.unique(mask):
            if class_id < classes:
                images[class_id] += 1
                components[class_id] += ndimage.label(mask == class_id, corners)[1]
    return Counts(len(masks), images, components)
