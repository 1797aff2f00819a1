"""Annotations in the formats of other programs: reading into a folder of ours, and writing.

Each module knows one format. Readers yield labelled regions in the order of drawing, whatever the
file holds; writers take images with ids one at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

from factory_core.annotated.formats.regions import Reading, Source
from factory_core.annotated.formats.writing import Writer


class Format(NamedTuple):
    """Where a format's reader and writer are; `reader` is None if it is written only."""

    module: str
    writer: str | None
    reader: str | None = "read"


FORMATS = {
    "labelme": Format("labelme", "LabelMeWriter"),
    "cvat": Format("cvat_xml", "CvatXmlWriter"),
    "cvat-mask": Format("mask_folders", "CvatMaskWriter"),
    "coco": Format("coco", "CocoWriter"),
    "coco-rle": Format("coco", "CocoRunsWriter"),
    "label-studio": Format("label_studio", "LabelStudioWriter"),
    "voc": Format("mask_folders", "VocWriter"),
    "index-png": Format("index_png", "IndexPngWriter"),
    "yolo-seg": Format("yolo", "YoloWriter", None),
    "nnunet": Format("nnunet", "NnUNetWriter", None),
}
READABLE = [name for name, found in FORMATS.items() if found.reader]
# Published data sets: read only, in splits.
DATA_SETS = {
    "flowers102": Format("data_sets", None, "flowers102"),
    "cub": Format("data_sets", None, "cub"),
    "celebamask-hq": Format("data_sets", None, "celebamask"),
    "pixel-imagenet": Format("data_sets", None, "pixel_imagenet"),
}


def reader(name: str) -> Callable[[Source], Reading]:
    """The reader of a format or data set; raises ValueError for an unknown name."""
    found = {**FORMATS, **DATA_SETS}.get(name)
    if found is None or found.reader is None:
        known = ", ".join([*READABLE, *DATA_SETS])
        raise ValueError(f"found the format {name!r}, expected one of {known}")
    return getattr(_module(found), found.reader)


def writer(name: str) -> type[Writer]:
    """The writer of a format; raises ValueError for a name that is none of `FORMATS`."""
    found = FORMATS.get(name)
    if found is None or found.writer is None:
        raise ValueError(f"found the format {name!r}, expected one of {', '.join(FORMATS)}")
    return getattr(_module(found), found.writer)


def _module(found: Format) -> object:
    return import_module(f"factory_core.annotated.formats.{found.module}")
