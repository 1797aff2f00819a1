"""nnU-Net's raw format, written only: `imagesTr/CASE_0000.png`, `labelsTr/CASE.png`, dataset.json.

Its ids are consecutive, 0 is the background, and ignored pixels have the id after the last class.
The ending `_0000` is the number of the channel file; one RGB file holds all three channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from factory_core.annotated.formats.embedded import decode_bytes
from factory_core.annotated.formats.regions import BACKGROUND, is_background
from factory_core.annotated.formats.writing import Sample, Writer, encode_values
from factory_core.dataset import encode_rgb
from factory_core.images import IGNORE, Palette, to_rgb
from factory_core.storage import json_bytes

LABELS, ENDING = "labelsTr", ".png"


class NnUNetWriter(Writer):
    """A folder to put under nnUNet_raw as `Dataset001_NAME`."""

    images = "imagesTr"

    def __init__(self, folder: Path, classes: Sequence[str], palette: Palette):
        super().__init__(folder, classes, palette)
        (folder / LABELS).mkdir()
        names = [name for name in classes if not is_background(name)]
        if len(names) + 1 > IGNORE:
            raise ValueError(f"found {len(names)} classes, expected fewer than {IGNORE}")
        self.labels = {BACKGROUND: 0, **{name: i for i, name in enumerate(names, 1)}}
        self.new_ids = np.zeros(IGNORE + 1, np.uint8)
        for i, name in enumerate(classes):
            self.new_ids[i] = 0 if is_background(name) else self.labels[name]
        self.new_ids[IGNORE] = len(self.labels)
        self.number, self.ignores = 0, False

    def add(self, sample: Sample) -> None:
        image = np.asarray(decode_bytes(sample.image, sample.name, to_rgb))
        (self.folder / self.images / f"{sample.stem}_0000{ENDING}").write_bytes(encode_rgb(image))
        ids = self.new_ids[sample.ids]
        (self.folder / LABELS / f"{sample.stem}{ENDING}").write_bytes(encode_values(ids))
        self.number += 1
        self.ignores |= bool((sample.ids == IGNORE).any())

    def close(self) -> None:
        labels = self.labels | ({"ignore": len(self.labels)} if self.ignores else {})
        about = {
            "channel_names": {"0": "R", "1": "G", "2": "B"},
            "labels": labels,
            "numTraining": self.number,
            "file_ending": ENDING,
            "overwrite_image_reader_writer": "NaturalImage2DIO",
        }
        (self.folder / "dataset.json").write_bytes(json_bytes(about))
