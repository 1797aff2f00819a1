"""LabelMe: one JSON file per picture, with polygons, other shapes, and a copy of the picture.

LabelMe turns a photograph upright by its EXIF tag before it is annotated. The copy in `imageData`
is what was drawn on: if the file beside it shows something else, the copy is taken.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, FiniteFloat

from factory_core.annotated.class_list import CLASSES_FILE
from factory_core.annotated.formats import polygons
from factory_core.annotated.formats.embedded import decode_bytes
from factory_core.annotated.formats.pictures import (
    PictureFiles,
    checked_size,
    refuse_nothing,
    refuse_other_size,
    upright_size,
)
from factory_core.annotated.formats.regions import (
    IGNORE_LABEL,
    Drawing,
    Picture,
    Reading,
    Region,
    Source,
    Tally,
    is_background,
    regions_of,
)
from factory_core.annotated.formats.writing import Sample, Writer, encode_values
from factory_core.images import Palette, Size, decode_file, stem_of, to_rgb, wxh
from factory_core.models import read_model
from factory_core.storage import json_bytes

AREAS = ("polygon", "rectangle", "circle", "mask")
LABELS_FILE = "labels.txt"
HINT = "save it again in LabelMe"
VERSION = "5.5.0"  # whose files have all that is written here
# LabelMe stores a copy of a JPEG compressed again; it differs from the file by less than this.
SAME_LEVELS = 8.0  # mean absolute difference, of 0 to 255
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp"}


class Shape(BaseModel):
    """A shape; `mask` is a base64 PNG of the window that the two `points` span, both included."""

    label: str
    points: list[tuple[FiniteFloat, FiniteFloat]] = []
    shape_type: str = "polygon"
    mask: str | None = None


class File(BaseModel):
    """The JSON file of a picture."""

    shapes: list[Shape]
    imagePath: str
    imageData: str | None = None
    imageHeight: int | None = None
    imageWidth: int | None = None


def read(source: Source) -> Reading:
    """Every JSON file at or below the source; labels in the order of labels.txt, if it is there.

    Raises ValueError with one line.
    """
    files = [source.path]
    if source.path.is_dir():
        files = sorted(p for p in source.path.rglob("*.json") if p.name != CLASSES_FILE)
    if not files:
        raise FileNotFoundError(f"{source.path} holds no .json file, expected those of LabelMe")
    pictures = PictureFiles(source)
    labels: dict[str, None] = dict.fromkeys(_listed(source.folder / LABELS_FILE))
    drawings = []
    for path in files:
        file = read_model(path, File, HINT)
        drawing = _drawing(path, file, pictures, source.tally)
        if drawing is not None:
            drawn = {shape.label for shape in file.shapes if shape.shape_type in AREAS}
            labels.update(dict.fromkeys(sorted(drawn)))
            drawings.append(drawing)
    refuse_nothing(drawings, source)
    return Reading(list(labels), drawings)


def _listed(file: Path) -> list[str]:
    """The labels in labels.txt, one a line."""
    if not file.is_file():
        return []
    lines = file.read_bytes().decode("utf-8-sig", "replace").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _drawing(path: Path, file: File, pictures: PictureFiles, tally: Tally) -> Drawing | None:
    data = None if file.imageData is None else _decoded(file.imageData, f"'imageData' of {path}")
    found = pictures.find(file.imagePath) if data is None or pictures.has(file.imagePath) else None
    if data is not None:
        if found is None:
            return _on_copy(path, file, data, stem_of(path), tally)
        if _differs(found, data, path):
            tally.copies += 1
            return _on_copy(path, file, data, found.stem, tally)
    if found is None:
        return None
    size = checked_size(found, file.imageHeight, file.imageWidth, str(path))
    return Drawing(found, size, partial(_regions, path, file.shapes, size, tally))


def _on_copy(path: Path, file: File, data: bytes, stem: str, tally: Tally) -> Drawing:
    """A drawing on the copy in the file."""
    where = f"'imageData' of {path}"
    kind, size = decode_bytes(data, where, lambda image: (image.format, upright_size(image)))
    if kind not in SUFFIXES:
        raise ValueError(f"{where} holds {kind} data, expected a JPEG or PNG")
    refuse_other_size(size, file.imageHeight, file.imageWidth, where, str(path))
    picture = Picture(stem, SUFFIXES[kind], data=data)
    return Drawing(picture, size, partial(_regions, path, file.shapes, size, tally))


def _differs(picture: Picture, data: bytes, path: Path) -> bool:
    """Whether a file shows something else than the copy, beyond the loss of a compression."""
    assert picture.path is not None
    where = f"'imageData' of {path}"
    if decode_file(picture.path, upright_size) != decode_bytes(data, where, upright_size):
        return True
    ours = np.asarray(decode_file(picture.path, to_rgb), np.int16)
    theirs = np.asarray(decode_bytes(data, where, to_rgb), np.int16)
    return bool(np.abs(ours - theirs).mean() > SAME_LEVELS)


def _decoded(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{where} is no base64 text: {HINT}") from None


def _regions(path: Path, shapes: list[Shape], size: Size, tally: Tally) -> Iterator[Region]:
    for shape in shapes:
        try:
            region = _region(shape, size, tally)
        except ValueError as error:
            raise ValueError(f"{path}: {shape.label!r}: {error}") from None
        if region is not None:
            yield region


def _region(shape: Shape, size: Size, tally: Tally) -> Region | None:
    points = np.array(shape.points, np.float64).reshape(-1, 2)
    if shape.shape_type == "mask":
        return _mask(shape, points, size)
    if shape.shape_type in ("rectangle", "circle") and len(points) != 2:
        raise ValueError(f"found a {shape.shape_type} of {len(points)} points, expected 2")
    if shape.shape_type == "rectangle":
        points = polygons.rectangle(*points.ravel().tolist())
    elif shape.shape_type == "circle":
        (x, y), radius = points[0].tolist(), float(np.hypot(*(points[1] - points[0])))
        points = polygons.ellipse((x, y), (radius, radius))
    elif shape.shape_type != "polygon":
        tally.left_out[f"{shape.shape_type}, which has no area"] += 1
        return None
    return polygons.noted(shape.label, points, size, tally)


def _mask(shape: Shape, points: np.ndarray, size: Size) -> Region:
    """The pixels of a base64 PNG, in the window from the first point to the second."""
    if shape.mask is None or len(points) != 2:
        raise ValueError("found a mask shape without its mask or window")
    left, top = (round(v) for v in points[0].tolist())
    data = _decoded(shape.mask, "its mask")
    height, width = decode_bytes(data, "its mask", upright_size)
    if not (top >= 0 and left >= 0 and top + height <= size[0] and left + width <= size[1]):
        raise ValueError(
            f"found a mask of {width}x{height} pixels at ({left}, {top}), expected one inside the "
            f"picture of {wxh(size)}"
        )
    pixels = decode_bytes(data, "its mask", lambda image: np.array(image.convert("L")))
    return Region(shape.label, pixels > 0, top, left)


class LabelMeWriter(Writer):
    """A picture and its JSON side by side; labels.txt, for `labelme --labels`, has the order."""

    def __init__(self, folder: Path, classes: Sequence[str], palette: Palette):
        super().__init__(folder, classes, palette)
        names = ["_background_" if is_background(name) else name for name in classes]
        lines = "".join(f"{name}\n" for name in (IGNORE_LABEL, *names))
        (folder / LABELS_FILE).write_bytes(lines.encode())

    def add(self, sample: Sample) -> None:
        self.save_image(sample)
        height, width = sample.ids.shape
        file = {
            "version": VERSION,
            "flags": {},
            "shapes": [_shape(region) for region in regions_of(sample.ids, self.classes)],
            "imagePath": sample.name,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        (self.folder / f"{sample.stem}.json").write_bytes(json_bytes(file))


def _shape(region: Region) -> dict[str, Any]:
    """A polygon, or a mask if the region has holes, which LabelMe's polygons cannot have."""
    rings = polygons.outlines(region)
    shape: dict[str, Any] = {
        "label": region.label,
        "points": rings[0].tolist(),
        "group_id": None,
        "description": "",
        "shape_type": "polygon",
        "flags": {},
        "mask": None,
    }
    if len(rings) > 1:
        height, width = region.inside.shape
        last = [region.left + width - 1, region.top + height - 1]
        shape["points"] = [[region.left, region.top], last]
        shape["shape_type"] = "mask"
        shape["mask"] = base64.b64encode(encode_values(region.inside)).decode()
    return shape
