"""CVAT for images 1.1: one XML file for all pictures.

Shapes are drawn by their z-order, then in the order of the file. A mask has runs along the rows of
its window, which are not COCO's. CVAT shows photographs upright.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import XMLGenerator
from xml.sax.xmlreader import AttributesImpl

import numpy as np

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
from factory_core.images import Palette, Size

XML_FILE = "annotations.xml"
AREAS = ("polygon", "mask", "box", "ellipse")
NONE = AttributesImpl({})
NO_AREAS = ("polyline", "points", "cuboid", "skeleton", "tag")


def read(source: Source) -> Reading:
    """The XML file, or annotations.xml in a folder; raises ValueError with one line."""
    path = source.file(XML_FILE, "*.xml")
    pictures = PictureFiles(source)
    labels: dict[str, Sequence[int] | None] = {}
    drawings = []
    for element in _elements(path):
        if element.tag == "label":
            labels[_text(element, "name")] = _colour(element.findtext("color") or "")
            continue
        drawing = _drawing(path, element, pictures, source)
        if drawing is not None:
            drawings.append(drawing)
            drawn = {shape.get("label", "") for shape in element if shape.tag in AREAS}
            labels.update({label: None for label in sorted(drawn) if label not in labels})
    refuse_nothing(drawings, source)
    colours = [list(colour) for colour in labels.values() if colour is not None]
    return Reading(list(labels), drawings, palette=colours if len(colours) == len(labels) else None)


def _elements(path: Path) -> Iterator[Element]:
    """The labels and images of the file; raises ValueError if it is no such file, or hostile."""
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import iterparse

    try:
        for _, element in iterparse(path, forbid_dtd=True):
            if element.tag in ("image", "label"):
                yield element
            if element.tag == "track":
                raise ValueError("it holds tracks of a video: export it as CVAT for images")
    except DefusedXmlException:
        raise ValueError(
            f"cannot read {path}: it declares entities, which CVAT never does"
        ) from None
    except (ParseError, ValueError) as error:
        raise ValueError(f"cannot read {path}: {error}") from None


def _drawing(path: Path, image: Element, pictures: PictureFiles, source: Source) -> Drawing | None:
    name = image.get("name", "")
    where = f"{path}: image {name!r}"
    for shape in image:
        if shape.tag in NO_AREAS:
            source.tally.left_out[f"{shape.tag}, which has no area"] += 1
    shapes = [shape for shape in image if shape.tag in AREAS]
    if not shapes and not source.keep_empty:
        source.tally.left_out["picture without a region (--keep-empty takes it)"] += 1
        return None
    picture = pictures.find(name)
    if picture is None:
        return None
    size = checked_size(
        picture, _whole(image, "height", where), _whole(image, "width", where), where
    )
    shapes.sort(key=lambda shape: _whole(shape, "z_order", where) if shape.get("z_order") else 0)
    return Drawing(picture, size, partial(_regions, where, shapes, size, source.tally))


def _regions(where: str, shapes: list[Element], size: Size, tally: Tally) -> Iterator[Region]:
    for shape in shapes:
        label = shape.get("label", "")
        about = f"{where}: {shape.tag} {label!r}"
        if shape.tag == "mask":
            yield _mask(shape, label, size, about)
            continue
        try:
            region = polygons.noted(label, _points(shape, about), size, tally)
        except ValueError as error:
            raise ValueError(f"{about}: {error}") from None
        if region is not None:
            yield region


def _points(shape: Element, where: str) -> np.ndarray:
    """The polygon of a shape, float64 `[N, 2]`."""

    def of(name: str) -> float:
        return _number(shape.get(name, ""), where)

    turn = _number(shape.get("rotation", "0"), where)
    if shape.tag == "box":
        return polygons.rectangle(of("xtl"), of("ytl"), of("xbr"), of("ybr"), turn)
    if shape.tag == "ellipse":
        return polygons.ellipse((of("cx"), of("cy")), (of("rx"), of("ry")), turn)
    pairs = [point.split(",") for point in shape.get("points", "").split(";")]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("found points that are no pairs, expected 'x,y;x,y;...'")
    return np.array([[_number(v, where) for v in pair] for pair in pairs], np.float64)


def _mask(shape: Element, label: str, size: Size, where: str) -> Region:
    left, top = _whole(shape, "left", where), _whole(shape, "top", where)
    width, height = _whole(shape, "width", where), _whole(shape, "height", where)
    if min(left, top, width, height) < 0 or left + width > size[1] or top + height > size[0]:
        raise ValueError(
            f"{where}: found a window of {width}x{height} pixels at ({left}, {top}), expected one "
            f"inside the picture of {size[1]}x{size[0]}"
        )
    try:
        counts = [int(count) for count in shape.get("rle", "").split(",")]
        return Region(label, runs.from_rows(counts, (height, width)), top, left)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{where}: {error}") from None


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{where}: found {text[:20]!r}, expected a number") from None


def _whole(element: Element, name: str, where: str) -> int:
    try:
        return int(element.get(name, ""))
    except ValueError:
        found = element.get(name, "")[:20]
        raise ValueError(f"{where}: found {name}={found!r}, expected a whole number") from None


def _text(element: Element, name: str) -> str:
    return (element.findtext(name) or "").strip()


def _colour(text: str) -> Sequence[int] | None:
    """`#fa3253` as [r, g, b]."""
    try:
        return list(bytes.fromhex(text.removeprefix("#"))) if len(text) == 7 else None
    except ValueError:
        return None


# --- writing ---------------------------------------------------------------------------------


class CvatXmlWriter(Writer):
    """`images/` and annotations.xml: polygons, and masks for regions with holes."""

    images = "images"

    def __init__(self, folder: Path, classes: Sequence[str], palette: Palette):
        super().__init__(folder, classes, palette)
        self.file = (folder / XML_FILE).open("wb")
        self.xml = XMLGenerator(self.file, "utf-8", short_empty_elements=True)
        self.number = 0
        self.xml.startDocument()
        self.xml.startElement("annotations", NONE)
        self._leaf("version", "1.1")
        self._labels()

    def add(self, sample: Sample) -> None:
        self.save_image(sample)
        height, width = sample.ids.shape
        about = {"id": self.number, "name": sample.name, "width": width, "height": height}
        self._start("image", about)
        for region in regions_of(sample.ids, self.classes):
            self._shape(region)
        self.xml.endElement("image")
        self.number += 1

    def close(self) -> None:
        self.xml.endElement("annotations")
        self.xml.endDocument()
        self.file.close()

    def _labels(self) -> None:
        for name in ("meta", "task", "labels"):
            self.xml.startElement(name, NONE)
        colours = [*self.palette, [255, 255, 255]]
        for name, colour in zip((*self.classes, IGNORE_LABEL), colours, strict=True):
            if not is_background(name):
                self.xml.startElement("label", NONE)
                self._leaf("name", name)
                self._leaf("color", "#" + bytes(colour).hex())
                self.xml.endElement("label")
        for name in ("labels", "task", "meta"):
            self.xml.endElement(name)

    def _shape(self, region: Region) -> None:
        rings = polygons.outlines(region)
        shape: dict[str, Any] = {"label": region.label, "source": "manual", "occluded": 0}
        if len(rings) == 1:
            shape["points"] = ";".join(f"{x},{y}" for x, y in rings[0].tolist())
        else:
            height, width = region.inside.shape
            shape["rle"] = ", ".join(map(str, runs.to_rows(region.inside)))
            shape |= {"left": region.left, "top": region.top, "width": width, "height": height}
        name = "polygon" if len(rings) == 1 else "mask"
        self._start(name, shape | {"z_order": 0})
        self.xml.endElement(name)

    def _start(self, name: str, attributes: dict[str, Any]) -> None:
        texts = {key: str(value) for key, value in attributes.items()}
        self.xml.startElement(name, AttributesImpl(texts))

    def _leaf(self, name: str, text: str) -> None:
        self.xml.startElement(name, NONE)
        self.xml.characters(text)
        self.xml.endElement(name)
