"""COCO: one JSON file for all pictures, regions as polygons or run-length encodings.

Polygons of COCO have no holes: several of one annotation are parts, which add up. So a region with
holes is written as COCO writes crowds, with uncompressed runs and `iscrowd`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, FiniteFloat

from factory_core.annotated.formats import polygons, runs
from factory_core.annotated.formats.pictures import PictureFiles, checked_size, refuse_nothing
from factory_core.annotated.formats.regions import (
    IGNORE_LABEL,
    Drawing,
    Reading,
    Region,
    Source,
    Tally,
    is_background,
    regions_of,
)
from factory_core.annotated.formats.writing import Sample, Writer
from factory_core.images import Palette, Size, wxh
from factory_core.models import read_model

JSON_FILE = "annotations/instances_default.json"  # as CVAT and Datumaro name it
PATTERNS = (JSON_FILE, "annotations/*.json", "*.json")


class Runs(BaseModel):
    """A run-length encoding: counts as a list, or packed into a text."""

    size: tuple[int, int]
    counts: list[int] | str


class ImageEntry(BaseModel):
    """A picture."""

    id: int
    file_name: str
    height: int | None = None
    width: int | None = None


class Annotation(BaseModel):
    """A region of a picture."""

    image_id: int
    category_id: int
    segmentation: list[list[FiniteFloat]] | Runs | None = None


class Category(BaseModel):
    """A class."""

    id: int
    name: str


class File(BaseModel):
    """The JSON file."""

    images: list[ImageEntry]
    annotations: list[Annotation]
    categories: list[Category]


def read(source: Source) -> Reading:
    """The JSON file, or the one in a folder; labels in the order of the categories' ids.

    Raises ValueError with one line.
    """
    path = source.file(*PATTERNS)
    file = read_model(path, File, "expected the JSON of COCO instances")
    names = {category.id: category.name for category in sorted(file.categories, key=_id)}
    of_image: dict[int, list[Annotation]] = defaultdict(list)
    for i, annotation in enumerate(file.annotations):
        if annotation.category_id not in names:
            raise ValueError(
                f"{path}: annotation {i} is of category {annotation.category_id}, expected one of "
                f"{list(names)}"
            )
        if annotation.segmentation:
            of_image[annotation.image_id].append(annotation)
        else:
            source.tally.left_out["annotation without a region (a box or keypoints)"] += 1
    pictures = PictureFiles(
        source, path.parent.parent if path.parent.name == "annotations" else None
    )
    drawings = []
    for image in file.images:
        if image.id not in of_image and not source.keep_empty:
            source.tally.left_out["picture without a region (--keep-empty takes it)"] += 1
            continue
        picture = pictures.find(image.file_name)
        if picture is None:
            continue
        where = f"{path}: image {image.file_name!r}"
        size = checked_size(picture, image.height, image.width, where)
        regions = partial(_regions, where, of_image[image.id], names, size, source.tally)
        drawings.append(Drawing(picture, size, regions))
    refuse_nothing(drawings, source)
    return Reading(list(dict.fromkeys(names.values())), drawings)


def _id(category: Category) -> int:
    return category.id


def _regions(
    where: str, annotations: list[Annotation], names: dict[int, str], size: Size, tally: Tally
) -> Iterator[Region]:
    for annotation in annotations:
        label, found = names[annotation.category_id], annotation.segmentation
        try:
            if isinstance(found, Runs):
                yield _of_runs(label, found, size)
                continue
            for flat in found or []:
                points = np.array(flat[: len(flat) // 2 * 2], np.float64).reshape(-1, 2)
                region = polygons.noted(label, points, size, tally)
                if region is not None:
                    yield region
        except ValueError as error:
            raise ValueError(f"{where}: {label!r}: {error}") from None


def _of_runs(label: str, found: Runs, size: Size) -> Region:
    if found.size != size:
        raise ValueError(f"found runs for {wxh(found.size)} pixels, expected {wxh(size)}")
    decode = runs.from_text if isinstance(found.counts, str) else runs.from_columns
    return Region(label, decode(found.counts, size))  # type: ignore[arg-type]


# --- writing ---------------------------------------------------------------------------------


class CocoWriter(Writer):
    """`images/` and one JSON file, written as samples come; its images and categories follow."""

    images = "images"

    def __init__(self, folder: Path, classes: Sequence[str], palette: Palette):
        super().__init__(folder, classes, palette)
        (folder / JSON_FILE).parent.mkdir()
        self.file = (folder / JSON_FILE).open("w", encoding="utf-8")
        self.file.write('{"info": {}, "licenses": [], "annotations": [')
        self.entries: list[dict[str, Any]] = []
        # From 1, as tools expect; equal to the class ids where the background has id 0.
        first = 0 if is_background(classes[0]) else 1
        self.category_of = {name: i + first for i, name in enumerate([*classes, IGNORE_LABEL])}
        self.used: set[str] = set()
        self.number = 0

    def add(self, sample: Sample) -> None:
        self.save_image(sample)
        (height, width), image_id = sample.ids.shape, len(self.entries) + 1
        about = {"id": image_id, "file_name": sample.name, "height": height, "width": width}
        self.entries.append(about)
        for region in regions_of(sample.ids, self.classes):
            self.number += 1
            self.used.add(region.label)
            rows, columns = region.inside.shape
            annotation = {
                "id": self.number,
                "image_id": image_id,
                "category_id": self.category_of[region.label],
                **self.shape(region, sample.ids.shape),
                "area": int(region.inside.sum()),
                "bbox": [region.left, region.top, columns, rows],
            }
            self.file.write(",\n"[self.number == 1 :] + json.dumps(annotation))

    def close(self) -> None:
        names = [n for n in self.category_of if not is_background(n)]
        categories = [
            {"id": self.category_of[name], "name": name, "supercategory": ""}
            for name in names
            if name != IGNORE_LABEL or name in self.used
        ]
        rest = {"categories": categories, "images": self.entries}
        self.file.write("\n], " + json.dumps(rest, ensure_ascii=False)[1:] + "\n")
        self.file.close()

    def shape(self, region: Region, size: Size) -> dict[str, Any]:
        """Polygons, or runs for a region with holes."""
        rings = polygons.outlines(region)
        if len(rings) == 1:
            return {"segmentation": [rings[0].ravel().tolist()], "iscrowd": 0}
        counts = runs.to_columns(_whole(region, size))
        return {"segmentation": {"size": list(size), "counts": counts}, "iscrowd": 1}


class CocoRunsWriter(CocoWriter):
    """As `CocoWriter`, with every region as packed runs."""

    def shape(self, region: Region, size: Size) -> dict[str, Any]:
        counts = runs.to_text(_whole(region, size))
        return {"segmentation": {"size": list(size), "counts": counts}, "iscrowd": 0}


def _whole(region: Region, size: Size) -> np.ndarray:
    """The region as bool `[H, W]` of its picture."""
    inside = np.zeros(size, bool)
    inside[region.window] = region.inside
    return inside
