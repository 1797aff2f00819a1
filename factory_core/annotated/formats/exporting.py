"""Annotated folders and datasets to the formats of other programs, one sample at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from factory_core.annotated.class_list import CLASSES_FILE
from factory_core.annotated.formats import writer
from factory_core.annotated.formats.writing import Sample
from factory_core.annotated.native import open_native
from factory_core.dataset import (
    decode_sample,
    default_palette,
    encode_rgb,
    open_dataset,
    read_members,
)
from factory_core.images import Palette, Pictures, Traits, decode_file, load_image, traits
from factory_core.output_folder import new_folder
from factory_core.storage import Place, json_bytes

ENDINGS = {("PNG", "RGB"): ".png", ("PNG", "L"): ".png", ("JPEG", "RGB"): ".jpg"}


class Labelled(NamedTuple):
    """Samples to export, and what their ids mean."""

    samples: Iterable[Sample]
    classes: list[str]
    palette: Palette


def of_folder(folder: Path) -> Labelled:
    """The items of an annotated folder, at their own sizes; raises as `open_native`."""
    found = open_native(folder)

    def samples() -> Iterator[Sample]:
        for item in found.layout.items:
            suffix, image = _upright(item.image, found.pictures)
            yield Sample(item.name.replace("/", "_"), suffix, image, found.ids(item))

    palette = found.layout.palette or default_palette(len(found.classes))
    return Labelled(samples(), found.classes, palette)


def of_dataset(place: Place) -> Labelled:
    """The kept samples of a finished dataset, shard by shard; raises as `open_dataset`."""
    dataset = open_dataset(place)
    manifest = dataset.manifest

    def samples() -> Iterator[Sample]:
        for key, members in read_members(dataset):
            found = {name.split(".", 1)[1]: data for name, data in members}
            suffix = "png" if "png" in found else "jpg"
            ids = decode_sample(key, members, len(manifest.classes)).mask
            yield Sample(key, f".{suffix}", found[suffix], ids)

    return Labelled(samples(), manifest.classes, manifest.palette)


def export_annotations(name: str, labelled: Labelled, out: Path) -> int:
    """Write samples in format `name` to the new folder `out`; returns their number.

    classes.json is written too: it brings the class ids back when the folder is imported. The
    folder appears when it is complete. Raises ValueError or OSError with one line.
    """
    make, number = writer(name), 0
    with new_folder(out) as temporary:
        writing = make(temporary, labelled.classes, labelled.palette)
        for sample in labelled.samples:
            writing.add(sample)
            number += 1
        writing.close()
        (temporary / CLASSES_FILE).write_bytes(json_bytes(writing.description()))
    return number


def _upright(path: Path, pictures: Pictures) -> tuple[str, bytes]:
    """Suffix and bytes of an image that every program shows alike: the file's own, or a PNG."""
    if traits(path) == Traits():  # neither turned, nor transparent, nor of more than 8 bits
        suffix = decode_file(path, lambda image: ENDINGS.get((str(image.format), image.mode)))
        if suffix is not None:
            return suffix, path.read_bytes()
    return ".png", encode_rgb(np.asarray(load_image(path, pictures)))
