"""The folder that the page draws in: pictures, masks, classes, and which images are finished.

    DIR/images/x.jpg, DIR/masks/x.png    or, in a folder of pictures, DIR/x.jpg, DIR/x_mask.png
        classes.json                     names and colours
        .annotate/                       what is finished; features, for the proposals

A mask is an index PNG of class ids, 255 where nothing has been drawn; an image on which nothing was
drawn has none. Its revision is the sha256 of its pixels, so that a page knows after a restart, too,
whether somebody else changed it.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from factory_core.annotated.class_list import CLASSES_FILE, read_classes
from factory_core.annotated.layouts import PAGE_FOLDER, find_pairs
from factory_core.dataset import encode_mask
from factory_core.images import (
    DEFAULT_PICTURES,
    IGNORE,
    Palette,
    load_image,
    load_mask,
    measured,
    wxh,
)
from factory_core.storage import write_bytes, write_json

FINISHED_FILE = "finished.json"
KEPT_MASKS = 64  # in memory
THUMBNAIL_PX = 160
# Paul Tol's "bright" and "light" schemes: distinguishable with every kind of colour vision.
COLOURS: Palette = [
    *([120, 130, 148], [238, 102, 119], [68, 160, 220], [204, 187, 68], [34, 160, 90]),
    *([170, 51, 119], [238, 136, 102], [102, 204, 238], [187, 204, 51], [153, 110, 221]),
]


class Stale(Exception):
    """A change of a version of the mask that is no longer the current one."""


class Box(NamedTuple):
    """A rectangle of pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Drawing:
    """Class ids uint8 `[H, W]`, 255 where nothing has been drawn, and their revision."""

    ids: np.ndarray
    revision: str

    @staticmethod
    def of(ids: np.ndarray) -> Drawing:
        """The drawing of these ids, which must not change any more."""
        about = hashlib.sha256(f"{ids.shape} ".encode())
        about.update(np.ascontiguousarray(ids).data)
        return Drawing(ids, about.hexdigest()[:16])

    @property
    def undrawn(self) -> float:
        """The share of pixels on which nothing has been drawn."""
        return float((self.ids == IGNORE).mean())


class Folder:
    """The pictures of `path` by name, and what has been drawn on them; safe for many threads.

    `classes` are the names for a folder without classes.json, which is then written. Raises
    ValueError or OSError, in one line, for a folder that cannot be drawn in.
    """

    def __init__(self, path: Path, classes: Sequence[str] | None = None):
        self.path = path
        self._root = path.resolve()
        if (path / "images").is_dir():
            (path / "masks").mkdir(exist_ok=True)
        pairs = find_pairs(path)
        found = read_classes(path, classes)
        if found.names is None:
            raise ValueError(
                f"{path} has no {CLASSES_FILE}: name the classes, background first, such as "
                "--classes background,cell"
            )
        if found.new_ids is not None:
            raise ValueError(
                f"{path}: its masks count classes from 1 or in the order of a labelmap.txt, and "
                "the page writes ids from 0: convert them with `factory annotations import`"
            )
        self.classes: list[str] = found.names
        self.palette = found.palette or [COLOURS[i % len(COLOURS)] for i in range(len(found.names))]
        self._given = found.palette
        self.names = sorted(pairs.images)
        self._images = pairs.images
        self._masks = {
            name: pairs.masks.get(name) or self._new_mask(name, pairs.mask_dir)
            for name in self.names
        }
        for file in (*self._images.values(), *self._masks.values()):
            self._inside(file)
        for file in self._masks.values():
            if file.suffix.lower() != ".png":
                raise ValueError(f"mask {file}: the page writes PNG: save it as an index PNG first")
        self._pictures = measured(DEFAULT_PICTURES, list(self._images.values()))
        self.hidden = path / PAGE_FOLDER
        self.hidden.mkdir(exist_ok=True)
        if not (path / CLASSES_FILE).is_file() and found.palette is None:
            self._given = self.palette
            about = {"classes": self.classes, "palette": self.palette}
            write_json(path / CLASSES_FILE, about)
        if not (self.hidden / FINISHED_FILE).exists():
            write_json(self.hidden / FINISHED_FILE, {"finished": []})
        self._finished = self._read_finished()
        self._lock = threading.RLock()
        self._kept: OrderedDict[str, tuple[tuple[int, int] | None, Drawing]] = OrderedDict()
        self._sizes: dict[str, tuple[int, int]] = {}

    @property
    def title(self) -> str:
        """The folder's name."""
        return self._root.name

    @property
    def key(self) -> str:
        """Distinguishes this folder from others that a browser has seen at the same address."""
        return hashlib.sha256(str(self._root).encode()).hexdigest()[:16]

    def picture(self, name: str) -> bytes:
        """The picture as PNG, upright and RGB; raises KeyError, ValueError or OSError."""
        return _png(self.image(name))

    def thumbnail(self, name: str) -> bytes:
        """The picture as PNG of at most THUMBNAIL_PX; raises as `picture`."""
        image = self.image(name)
        image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        return _png(image)

    def image(self, name: str) -> Image.Image:
        """The picture, upright and RGB; raises as `picture`."""
        image = load_image(self._inside(self._images[name]), self._pictures)
        self._sizes[name] = (image.height, image.width)
        return image

    def size(self, name: str) -> tuple[int, int]:
        """(H, W) of a picture; raises as `picture`."""
        if name not in self._sizes:
            self.image(name)
        return self._sizes[name]

    def drawing(self, name: str) -> Drawing:
        """What is drawn on an image; raises KeyError, or ValueError for a mask of another kind."""
        file = self._inside(self._masks[name])
        with self._lock:
            stamp = _stamp(file)
            kept = self._kept.get(name)
            if kept is None or kept[0] != stamp:
                kept = (stamp, Drawing.of(self._read(name, file, stamp)))
                self._keep(name, kept)
            return kept[1]

    def change(self, name: str, base: str, box: Box, ids: np.ndarray) -> Drawing:
        """Write `ids` uint8 `[box.height, box.width]` into revision `base` of a mask, on disk.

        Raises Stale if `base` is not the current revision, ValueError for a box outside the image
        or an unknown class, KeyError for an unknown name, OSError.
        """
        with self._lock:
            current = self.drawing(name)
            if current.revision != base:
                raise Stale(f"{name} was changed elsewhere")
            height, width = current.ids.shape
            x, y, w, h = box
            if not (0 <= x <= x + w <= width and 0 <= y <= y + h <= height and w and h):
                raise ValueError(f"found the box {tuple(box)} in an image of {width}x{height}")
            if ids.shape != (h, w):
                raise ValueError(f"found {ids.size} class ids, expected {w * h}")
            bad = ids[(ids >= len(self.classes)) & (ids != IGNORE)]
            if bad.size:
                raise ValueError(f"found class id {bad[0]}, expected 0 to {len(self.classes) - 1}")
            changed = current.ids.copy()
            changed[y : y + h, x : x + w] = ids
            return self._write(name, Drawing.of(changed))

    def finish(self, name: str, finished: bool) -> None:
        """Note whether the user is done with an image; raises KeyError or OSError."""
        with self._lock:
            self._masks[name]
            self._finished = self._finished | {name} if finished else self._finished - {name}
            names = {"finished": sorted(self._finished)}
            write_json(self._inside(self.hidden / FINISHED_FILE), names)

    def is_finished(self, name: str) -> bool:
        """Whether nothing is left to draw on an image: by the user's word, or because all is."""
        return name in self._finished or not self.drawing(name).undrawn

    def _new_mask(self, name: str, mask_dir: Path) -> Path:
        suffix = "_mask.png" if mask_dir == self.path else ".png"
        return mask_dir / f"{name}{suffix}"

    def _inside(self, file: Path) -> Path:
        """`file`; raises ValueError if a link leads out of the folder."""
        if not file.resolve().is_relative_to(self._root):
            raise ValueError(f"{file} leads out of {self.path}: copy the file into the folder")
        return file

    def _read(self, name: str, file: Path, stamp: tuple[int, int] | None) -> np.ndarray:
        if stamp is None:
            return np.full(self.size(name), IGNORE, np.uint8)
        mask = load_mask(file, self._given)
        if mask.ids.shape != self.size(name):
            raise ValueError(
                f"{file} is {wxh(mask.ids.shape)} pixels, its image {wxh(self.size(name))}: "
                "expected equal sizes"
            )
        greys = [i for i, (r, g, b) in enumerate(self._given or []) if r == g == b and r != i]
        if mask.stored and greys:
            raise ValueError(
                f"{file} is grey, and class {greys[0]} has a grey in {CLASSES_FILE}: its numbers "
                "may be class ids or colours: save it in the colours of the classes"
            )
        above = mask.ids[(mask.ids >= len(self.classes)) & (mask.ids != IGNORE)]
        if above.size:
            raise ValueError(
                f"{file} has class id {above[0]}, but there are {len(self.classes)} classes: add "
                f"its name to {CLASSES_FILE}"
            )
        return mask.ids

    def _write(self, name: str, drawing: Drawing) -> Drawing:
        file = self._inside(self._masks[name])
        if drawing.undrawn == 1:
            file.unlink(missing_ok=True)
        else:
            write_bytes(file, encode_mask(drawing.ids, self.palette))
        self._keep(name, (_stamp(file), drawing))
        return drawing

    def _keep(self, name: str, found: tuple[tuple[int, int] | None, Drawing]) -> None:
        self._kept[name] = found
        self._kept.move_to_end(name)
        while len(self._kept) > KEPT_MASKS:
            self._kept.popitem(last=False)

    def _read_finished(self) -> frozenset[str]:
        file = self._inside(self.hidden / FINISHED_FILE)
        try:
            return frozenset(json.loads(file.read_bytes())["finished"]) & frozenset(self.names)
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{file} is damaged: delete it, and mark images again") from None


def _stamp(file: Path) -> tuple[int, int] | None:
    """What changes when the file does; None if there is none."""
    try:
        about = file.stat()
    except FileNotFoundError:
        return None
    return about.st_mtime_ns, about.st_size


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
