"""Label Studio's JSON export: a list of tasks, brush strokes as runs, other shapes in percent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import quoteattr

import numpy as np
from pydantic import BaseModel, FiniteFloat, RootModel

from factory_core.annotated.formats import brush, polygons
from factory_core.annotated.formats.pictures import PictureFiles, checked_size, refuse_nothing
from factory_core.annotated.formats.regions import (
    IGNORE_LABEL,
    Drawing,
    Picture,
    Reading,
    Region,
    Source,
    Tally,
    is_background,
    masks_of,
)
from factory_core.annotated.formats.writing import Sample, Writer
from factory_core.images import Palette, Size
from factory_core.models import read_model

TASKS_FILE, CONFIG_FILE = "tasks.json", "label_config.xml"
UPLOAD = re.compile(r"[0-9a-f]{8}-(.+)")  # how Label Studio renames uploaded files
KINDS = ("brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels", "labels")


class Value(BaseModel):
    """Where a region is; apart from `rle`, in percent of the picture."""

    brushlabels: list[str] = []
    polygonlabels: list[str] = []
    rectanglelabels: list[str] = []
    ellipselabels: list[str] = []
    labels: list[str] = []
    rle: list[int] | None = None
    points: list[tuple[FiniteFloat, FiniteFloat]] | None = None
    x: FiniteFloat = 0
    y: FiniteFloat = 0
    width: FiniteFloat | None = None
    height: FiniteFloat | None = None
    radiusX: FiniteFloat | None = None
    radiusY: FiniteFloat | None = None
    rotation: FiniteFloat = 0

    @property
    def label(self) -> str | None:
        """Its only label, or the first of several."""
        return next((name for kind in KINDS for name in getattr(self, kind)), None)


class Result(BaseModel):
    """A region, or its label if the two are kept apart under one `id`."""

    id: str | None = None
    type: str = ""
    value: Value
    original_width: int | None = None
    original_height: int | None = None
    image_rotation: FiniteFloat = 0

    @property
    def is_region(self) -> bool:
        """Whether it has an area."""
        v = self.value
        return not (v.rle is None and v.points is None and v.width is None and v.radiusX is None)


class Annotation(BaseModel):
    """What one person drew on a picture."""

    result: list[Result] = []
    was_cancelled: bool = False


class Task(BaseModel):
    """A picture; `data` has its address under a name that the project chose."""

    data: dict[str, Any]
    annotations: list[Annotation] = []


class File(RootModel[list[Task]]):
    """The JSON export."""


def read(source: Source) -> Reading:
    """The JSON file, or the one in a folder; raises ValueError with one line."""
    path = source.file(TASKS_FILE, "*.json")
    tasks = read_model(path, File, "export it from Label Studio as JSON, not JSON-MIN").root
    pictures = PictureFiles(source)
    drawings, labels = [], set[str]()
    for number, task in enumerate(tasks, 1):
        done = [a for a in task.annotations if not a.was_cancelled]
        if not done:
            source.tally.left_out["task that nobody has annotated"] += 1
            continue
        source.tally.left_out["further annotation of the same picture"] += len(done) - 1
        results = done[-1].result
        picture = _find(task, pictures)
        if picture is None:
            continue
        where = f"{path}: task {number} ({picture.stem})"
        drawing = _drawing(picture, results, where, source.tally)
        labels.update(label for _, label in drawing[0])
        regions = partial(_regions, where, drawing[0], drawing[1], source.tally)
        drawings.append(Drawing(picture, drawing[1], regions))
    refuse_nothing(drawings, source)
    return Reading(sorted(labels), drawings)


def _find(task: Task, pictures: PictureFiles) -> Picture | None:
    """The picture of a task: the first of its data that looks like the address of one."""
    addresses = [v for v in task.data.values() if isinstance(v, str) and "." in v]
    for address in addresses:
        parts = urlsplit(address)
        name = unquote(parse_qs(parts.query).get("d", [parts.path])[0])
        uploaded = UPLOAD.fullmatch(name.rsplit("/", 1)[-1])
        if not pictures.has(name) and uploaded is not None and pictures.has(uploaded[1]):
            name = uploaded[1]
        return pictures.find(name)
    pictures.left_out["task without a picture"] += 1
    return None


def _drawing(
    picture: Picture, results: list[Result], where: str, tally: Tally
) -> tuple[list[tuple[Result, str]], Size]:
    """The regions of a picture with their labels, and its size (H, W)."""
    label_of = {r.id: r.value.label for r in results if r.value.label is not None}
    size, found = checked_size(picture, None, None, where), []
    for result in results:
        label = result.value.label or label_of.get(result.id)
        if not result.is_region:
            if result.type != "labels":
                tally.left_out[f"{result.type or 'result'}, which has no area"] += 1
            continue
        if label is None:
            tally.left_out["region without a label"] += 1
            continue
        if result.image_rotation % 360:
            raise ValueError(
                f"{where}: it was turned by {result.image_rotation:g} degrees in Label Studio: "
                "turn it back there, or turn the picture itself"
            )
        checked_size(picture, result.original_height, result.original_width, where)
        found.append((result, label))
    return found, size


def _regions(
    where: str, results: list[tuple[Result, str]], size: Size, tally: Tally
) -> Iterator[Region]:
    for result, label in results:
        try:
            if result.value.rle is not None:
                yield Region(label, brush.decode(result.value.rle, size))
                continue
            points = _percent(result.value) * (size[1] / 100, size[0] / 100)
            if result.value.rotation:
                points = _turned(points, result.value, size)
            region = polygons.noted(label, points, size, tally)
        except ValueError as error:
            raise ValueError(f"{where}: {label!r}: {error}") from None
        if region is not None:
            yield region


def _percent(value: Value) -> np.ndarray:
    """The polygon of a shape before it is turned, float64 `[N, 2]` in percent."""
    if value.points is not None:
        return np.array(value.points, np.float64).reshape(-1, 2)
    if value.radiusX is not None:
        return polygons.ellipse((value.x, value.y), (value.radiusX, value.radiusY or 0))
    width, height = value.width or 0, value.height or 0
    return polygons.rectangle(value.x, value.y, value.x + width, value.y + height)


def _turned(points: np.ndarray, value: Value, size: Size) -> np.ndarray:
    """A rectangle turned about its first corner, an ellipse about its centre."""
    about = (value.x * size[1] / 100, value.y * size[0] / 100)
    return polygons.turned(points, about, value.rotation)


# --- writing ---------------------------------------------------------------------------------


class LabelStudioWriter(Writer):
    """`images/`, tasks.json to import and label_config.xml for the project's settings.

    PictureFiles are served by Label Studio's local storage, whose root is the folder written.
    """

    images = "images"

    def __init__(self, folder: Path, classes: Sequence[str], palette: Palette):
        super().__init__(folder, classes, palette)
        self.file = (folder / TASKS_FILE).open("w", encoding="utf-8")
        self.number = 0
        named = zip((*classes, IGNORE_LABEL), (*palette, [255, 255, 255]), strict=True)
        labels = "".join(
            f'    <Label value={quoteattr(name)} background="#{bytes(colour).hex()}"/>\n'
            for name, colour in named
            if not is_background(name)
        )
        config = (
            '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
            f'  <BrushLabels name="tag" toName="image">\n{labels}  </BrushLabels>\n</View>\n'
        )
        (folder / CONFIG_FILE).write_bytes(config.encode())

    def add(self, sample: Sample) -> None:
        self.save_image(sample)
        self.number += 1
        results = [
            _result(region, i)
            for i, region in enumerate(masks_of(sample.ids, self.classes))
            if not is_background(region.label)
        ]
        task = {
            "id": self.number,
            "data": {"image": f"/data/local-files/?d=images/{sample.name}"},
            "annotations": [{"result": results, "was_cancelled": False}],
        }
        self.file.write("[,"[self.number > 1] + "\n" + json.dumps(task))

    def close(self) -> None:
        self.file.write("\n]\n")
        self.file.close()


def _result(region: Region, number: int) -> dict[str, Any]:
    height, width = region.inside.shape
    value = {"format": "rle", "rle": brush.encode(region.inside), "brushlabels": [region.label]}
    return {
        "id": f"region{number}",
        "type": "brushlabels",
        "from_name": "tag",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": value,
    }
