"""What the writers of all formats share: samples come one at a time and are not kept."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from factory_core.images import Palette


@dataclass(frozen=True)
class Sample:
    """An image file as bytes, upright, and its ids uint8 `[H, W]` (255 = ignore)."""

    stem: str
    suffix: str
    image: bytes
    ids: np.ndarray

    @property
    def name(self) -> str:
        """The name of the image file."""
        return self.stem + self.suffix


class Writer:
    """Writes samples in a format into `folder`, one at a time, then what belongs to all of them.

    `classes` are the names in id order, `palette` has a colour for each.
    """

    images = ""  # the folder of images in it

    def __init__(self, folder: Path, classes: Sequence[str], palette: Palette):
        self.folder, self.classes, self.palette = folder, list(classes), palette
        (folder / self.images).mkdir(parents=True, exist_ok=True)

    def add(self, sample: Sample) -> None:
        """Write a sample."""
        raise NotImplementedError

    def close(self) -> None:
        """Write what is known only now."""

    def description(self) -> dict[str, Any]:
        """Content of classes.json, by which the ids come back when the folder is imported."""
        return {"classes": self.classes, "palette": self.palette}

    def save_image(self, sample: Sample) -> None:
        """Write the image as it is into the folder of images."""
        (self.folder / self.images / sample.name).write_bytes(sample.image)


def encode_values(values: np.ndarray, colours: np.ndarray | None = None) -> bytes:
    """PNG of uint8 `[H, W]`, with a palette if there are `colours` uint8 `[256, 3]`; or of bool."""
    buffer, picture = io.BytesIO(), Image.fromarray(values)
    if colours is not None:
        picture.putpalette(colours.tobytes())
    picture.save(buffer, "PNG")
    return buffer.getvalue()
