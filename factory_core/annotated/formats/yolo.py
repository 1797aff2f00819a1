"""YOLO-seg, written only: a text file per picture, one polygon a line, in shares of the picture.

It has no background and no ignored pixels, and no holes: a hole is joined to the outline by a
bridge without width. A region in several parts has several lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from factory_core.annotated.formats import polygons
from factory_core.annotated.formats.regions import IGNORE_LABEL, is_background, regions_of
from factory_core.annotated.formats.writing import Sample, Writer
from factory_core.images import Palette

LABELS, DATA_FILE = "labels/train", "data.yaml"


class YoloWriter(Writer):
    """`images/train`, `labels/train` and data.yaml, as Ultralytics reads them."""

    images = "images/train"

    def __init__(self, folder: Path, classes: Sequence[str], palette: Palette):
        super().__init__(folder, classes, palette)
        (folder / LABELS).mkdir(parents=True)
        names = [name for name in classes if not is_background(name)]
        self.number_of = {name: i for i, name in enumerate(names)}
        about = {"path": ".", "train": self.images, "val": self.images, "names": names}
        text = yaml.safe_dump(about, sort_keys=False, allow_unicode=True)
        (folder / DATA_FILE).write_bytes(text.encode())

    def add(self, sample: Sample) -> None:
        self.save_image(sample)
        height, width = sample.ids.shape
        lines = []
        for region in regions_of(sample.ids, self.classes):
            if region.label != IGNORE_LABEL:
                points = polygons.joined(polygons.outlines(region)) / np.array([width, height])
                numbers = " ".join(f"{value:.8g}" for value in points.ravel().tolist())
                lines.append(f"{self.number_of[region.label]} {numbers}\n")
        (self.folder / LABELS / f"{sample.stem}.txt").write_bytes("".join(lines).encode())
