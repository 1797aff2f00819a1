"""Files that were made to do harm, and what the import says about each: one line."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from factory_core.annotated.formats import brush

SIZE = 2000  # pixels a side of the picture
SQUARE = [[1, 1], [5, 1], [5, 5], [1, 5]]
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'


class Hostile(NamedTuple):
    """Files to write, the format to import, and a pattern of the error; None if it is harmless."""

    format: str
    files: Callable[[], dict[str, bytes]]
    error: str | None


def _labelme(*shapes: dict[str, Any], **more: Any) -> dict[str, bytes]:
    square = {"label": "a", "points": SQUARE, "shape_type": "polygon"}
    about = {"shapes": [square | shape for shape in shapes], "imagePath": "a.png"}
    return {"a.json": json.dumps(about | more).encode()}


def _points(points: np.ndarray) -> dict[str, bytes]:
    return _labelme({"points": points.tolist()})


def _coco(segmentation: Any, **more: Any) -> dict[str, bytes]:
    image = {"id": 1, "file_name": "a.png", "height": SIZE, "width": SIZE} | more
    about = {
        "images": [image],
        "annotations": [{"image_id": 1, "category_id": 1, "segmentation": segmentation}],
        "categories": [{"id": 1, "name": "a"}],
    }
    return {"x.json": json.dumps(about).encode()}


def _cvat(shapes: str, head: str = "", name: str = "a.png") -> dict[str, bytes]:
    text = (
        f'<?xml version="1.0"?>{head}<annotations><image id="0" name="{name}" width="{SIZE}" '
        f'height="{SIZE}">{shapes}</image></annotations>'
    )
    return {"annotations.xml": text.encode()}


def _window(rle: str, left: int, top: int, width: int, height: int) -> dict[str, bytes]:
    where = f'left="{left}" top="{top}" width="{width}" height="{height}"'
    return _cvat(f'<mask label="a" rle="{rle}" {where} z_order="0"/>')


def _brush(rle: list[int]) -> dict[str, bytes]:
    result = {
        "original_width": SIZE,
        "original_height": SIZE,
        "value": {"rle": rle, "brushlabels": ["a"]},
    }
    task = {"data": {"image": "a.png"}, "annotations": [{"result": [result]}]}
    return {"x.json": json.dumps([task]).encode()}


def _entities() -> dict[str, bytes]:
    lines = ['<!ENTITY e0 "lol">']
    lines += [f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 12)]
    return _cvat("&e11;", f"<!DOCTYPE annotations [{''.join(lines)}]>")


def _outside() -> dict[str, bytes]:
    return _cvat("&x;", '<!DOCTYPE annotations [<!ENTITY x SYSTEM "file:///etc/passwd">]>')


def _wide_png(side: int = 60_000) -> bytes:
    """A PNG whose header promises side x side pixels."""
    about = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 1000)
    chunks = [
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (about, data)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _spiral(turns: int, points: int) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi * turns, points)
    radius = np.linspace(1, SIZE // 2 - 1, points)
    return SIZE / 2 + np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


def _contour(points: int) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    radius = SIZE / 3 + 50 * np.sin(400 * angle)
    return SIZE / 2 + np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


def _noise(points: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, SIZE, (points, 2))


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def picture() -> bytes:
    """The picture a.png."""
    buffer = io.BytesIO()
    Image.new("L", (SIZE, SIZE)).save(buffer, "PNG")
    return buffer.getvalue()


HUGE = {"size": [SIZE, SIZE], "counts": [0, 2**62]}
MASK = {"shape_type": "mask", "points": [[0, 0], [9, 9]]}
FILES = {
    "coco counts beyond the picture": Hostile("coco", lambda: _coco(HUGE), "do not fill 2000x2000"),
    "coco counts beyond integers": Hostile(
        "coco",
        lambda: _coco({"size": [SIZE, SIZE], "counts": [0, 10**30]}),
        "do not fill",
    ),
    "coco negative counts": Hostile(
        "coco", lambda: _coco({"size": [SIZE, SIZE], "counts": [-5, SIZE**2 + 5]}), "do not fill"
    ),
    "coco a million counts": Hostile(
        "coco", lambda: _coco({"size": [SIZE, SIZE], "counts": [0] * 10**6}), "do not fill"
    ),
    "coco huge size": Hostile(
        "coco",
        lambda: _coco({"size": [10**6, 10**6], "counts": "PPYo1"}),
        "runs for 1000000x1000000 pixels, expected 2000x2000",
    ),
    "coco negative size": Hostile(
        "coco", lambda: _coco({"size": [-1, -1], "counts": "0"}), "runs for -1x-1 pixels"
    ),
    "coco negative picture": Hostile(
        "coco", lambda: _coco([[1, 1, 5, 1, 5, 5]], height=-4), "regions for 2000x-4 pixels"
    ),
    "coco text without an end": Hostile(
        "coco",
        lambda: _coco({"size": [SIZE, SIZE], "counts": "o" * 10**6}),
        "is no run-length encoding",
    ),
    "coco text of too many pixels": Hostile(
        "coco", lambda: _coco({"size": [SIZE, SIZE], "counts": "ooooooo0" * 100}), "Invalid RLE"
    ),
    "coco NaN": Hostile("coco", lambda: _coco([[1, 1, float("nan"), 1, 5, 5]]), "damaged"),
    "coco name that leads out": Hostile(
        "coco",
        lambda: _coco([[1, 1, 5, 1, 5, 5]], file_name="../../../../etc/passwd.png"),
        "no picture '../../../../etc/passwd.png'",
    ),
    "cvat entities": Hostile("cvat", _entities, "declares entities"),
    "cvat a file of the system": Hostile("cvat", _outside, "declares entities"),
    "cvat huge window": Hostile(
        "cvat", lambda: _window("1,2", 0, 0, 10**6, 10**6), "window of 1000000x1000000 pixels"
    ),
    "cvat negative window": Hostile(
        "cvat", lambda: _window("4", -2, -2, -1, -4), "window of -1x-4 pixels"
    ),
    "cvat runs that do not fit": Hostile(
        "cvat", lambda: _window("999999999999999999999,1", 0, 0, 4, 4), "do not fill 4x4"
    ),
    "cvat name that leads out": Hostile(
        "cvat",
        lambda: _cvat('<box label="a" xtl="0" ytl="0" xbr="5" ybr="5"/>', name="/etc/../etc/a.gif"),
        "no picture '/etc/../etc/a.gif'",
    ),
    "cvat infinite box": Hostile(
        "cvat",
        lambda: _cvat('<box label="a" xtl="-inf" ytl="0" xbr="inf" ybr="nan"/>'),
        "with the coordinate",
    ),
    "labelme NaN": Hostile("labelme", lambda: _labelme({"points": [[1, float("nan")]]}), "damaged"),
    "labelme far away": Hostile(
        "labelme",
        lambda: _points(np.array([[0, 0], [1e300, 0], [0, 1e300]])),
        "coordinate 1e\\+300",
    ),
    "labelme crossing itself": Hostile(
        "labelme", lambda: _points(np.array([[0, 0], [900, 900], [900, 0], [0, 900]])), None
    ),
    "labelme 100 000 points": Hostile("labelme", lambda: _points(_contour(100_000)), None),
    "labelme a spiral": Hostile("labelme", lambda: _points(_spiral(400, 100_000)), None),
    "labelme 100 000 points of noise": Hostile(
        "labelme", lambda: _points(_noise(100_000)), "crosses .* rows of pixels.*: simplify it"
    ),
    "labelme name that leads out": Hostile(
        "labelme", lambda: _labelme({}, imagePath="../../b.png"), "no picture '../../b.png'"
    ),
    "labelme mask that promises a lot": Hostile(
        "labelme",
        lambda: _labelme(MASK | {"mask": _encoded(_wide_png())}),
        "cannot read its mask: Image size",
    ),
    "labelme SVG as mask": Hostile(
        "labelme", lambda: _labelme(MASK | {"mask": _encoded(SVG)}), "text, such as an SVG"
    ),
    "labelme SVG as picture": Hostile(
        "labelme", lambda: _labelme({}, imageData=_encoded(SVG)), "text, such as an SVG"
    ),
    "labelme SVG in a file": Hostile(
        "labelme",
        lambda: _labelme({}, imagePath="b.png") | {"b.png": SVG},
        "b.png: not an image",
    ),
    "labelme deep JSON": Hostile(
        "labelme", lambda: {"a.json": b'{"shapes":' + b"[" * 100_000}, "damaged"
    ),
    "voc mask that promises a lot": Hostile(
        "voc", lambda: {"SegmentationClass/a.png": _wide_png()}, "larger than 179 megapixels"
    ),
    "voc mask of another size": Hostile(
        "voc", lambda: {"SegmentationClass/a.png": _wide_png(9_000)}, "regions for 9000x9000 pixels"
    ),
    "label studio brush of another size": Hostile(
        "label-studio",
        lambda: _brush([255, 255, 255, 255, 56, 0, 0]),
        "brush for 1073741823 pixels",
    ),
    "label studio brush that ends": Hostile(
        "label-studio",
        lambda: _brush(brush.encode(np.zeros((SIZE, SIZE), bool))[:40]),
        "ends too early",
    ),
    "label studio numbers beyond bytes": Hostile(
        "label-studio", lambda: _brush([1000] * 100), "outside 0 to 255"
    ),
}
