"""Pascal VOC and CVAT's segmentation masks: JPEGImages/, SegmentationClass/ and labelmap.txt.

A mask is a picture of colours or of indices with a palette. labelmap.txt says which colour is which
class, in any order: its first line need not be the background. Black is the background even if no
line names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from factory_core.annotated.class_list import LABELMAP_FILE, read_labelmap
from factory_core.annotated.formats.pictures import (
    PictureFiles,
    checked_size,
    refuse_nothing,
    upright_size,
)
from factory_core.annotated.formats.regions import (
    BACKGROUND,
    IGNORE_LABEL,
    Drawing,
    Reading,
    Region,
    Source,
    is_background,
    masks_of,
    regions_of,
)
from factory_core.annotated.formats.writing import Sample, Writer, encode_values
from factory_core.annotated.native import numbered
from factory_core.annotated.pairs import VOC_IMAGES, VOC_MASKS
from factory_core.dataset import encode_rgb
from factory_core.images import IGNORE, MASK_SUFFIXES, Palette, decode_file, load_mask

INSTANCES, SPLITS = "SegmentationObject", "ImageSets/Segmentation"
SUFFIXES = MASK_SUFFIXES - {".npy"}
BLACK = [0, 0, 0]


def voc_colour(number: int) -> list[int]:
    """The colour [r, g, b] of class `number` in Pascal VOC: its bits, dealt to the channels."""
    colour = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            colour[channel] |= (number >> 3 * bit + channel & 1) << 7 - bit
    return colour


VOC_COLOURS = np.array([voc_colour(i) for i in range(IGNORE + 1)], np.uint8)
IGNORE_COLOUR = VOC_COLOURS[IGNORE].tolist()  # of the borders in Pascal VOC


def read(source: Source) -> Reading:
    """The masks of a folder as Pascal VOC and CVAT write them; raises ValueError with one line."""
    folder = source.path
    if not (folder / VOC_MASKS).is_dir():
        raise FileNotFoundError(f"{folder} holds no folder {VOC_MASKS}, expected that of the masks")
    files = sorted(p for p in (folder / VOC_MASKS).rglob("*") if p.suffix.lower() in SUFFIXES)
    has_images = source.images is None and (folder / VOC_IMAGES).is_dir()
    beside = folder / VOC_IMAGES if has_images else None
    pictures = PictureFiles(source, beside, skip=(VOC_MASKS, INSTANCES))
    found = []
    for path in files:
        name = path.relative_to(folder / VOC_MASKS).with_suffix("").as_posix()
        picture = pictures.find(name, only_stem=True)
        if picture is not None:
            size = checked_size(picture, *decode_file(path, upright_size), str(path))
            found.append((path, picture, size))
    labels, palette = _labels(folder, [path for path, _, _ in found], source.classes)
    drawings = [
        Drawing(picture, size, partial(_regions, path, labels, palette))
        for path, picture, size in found
    ]
    refuse_nothing(drawings, source)
    return Reading(labels, drawings, has_all_ids=palette is None, palette=palette)


def _labels(
    folder: Path, files: Sequence[Path], names: Sequence[str] | None
) -> tuple[list[str], Palette | None]:
    """Labels, and their colours if labelmap.txt gives them; else the labels of ids from 0."""
    file = folder / LABELMAP_FILE
    if file.is_file():
        found = read_labelmap(file, None)
        labels, palette = list(found.names or []), [*(found.palette or [])]
        if BLACK not in palette:
            labels, palette = [BACKGROUND, *labels], [BLACK, *palette]
        if IGNORE_COLOUR not in palette:
            labels, palette = [*labels, IGNORE_LABEL], [*palette, IGNORE_COLOUR]
        return labels, palette
    if names is not None:
        return list(names), None
    largest = 0
    for path in files:
        ids = load_mask(path).ids
        largest = max(largest, int(ids[ids != IGNORE].max(initial=0)))
    return numbered(largest), None


def _regions(path: Path, labels: Sequence[str], palette: Palette | None) -> Iterator[Region]:
    ids = load_mask(path, palette).ids
    largest = int(ids[ids != IGNORE].max(initial=0))
    if largest >= len(labels):
        raise ValueError(
            f"{path} has class id {largest}, but there are {len(labels)} classes: name it"
        )
    yield from masks_of(ids, labels)


# --- writing ---------------------------------------------------------------------------------


class VocWriter(Writer):
    """Palette PNGs of ids in the colours of Pascal VOC; 255 is ignored, as there."""

    images = VOC_IMAGES

    def __init__(self, folder: Path, classes: Sequence[str], palette: Palette):
        super().__init__(folder, classes, palette)
        for name in (VOC_MASKS, INSTANCES, SPLITS):
            (folder / name).mkdir(parents=True)
        lines = ["# label:color_rgb:parts:actions"]
        lines += [
            f"{_label(name)}:{','.join(map(str, colour))}::"
            for name, colour in zip(self.classes, VOC_COLOURS.tolist(), strict=False)
        ]
        lines.append(f"{IGNORE_LABEL}:{','.join(map(str, IGNORE_COLOUR))}::")
        (folder / LABELMAP_FILE).write_bytes("".join(f"{line}\n" for line in lines).encode())
        self.names: list[str] = []

    def add(self, sample: Sample) -> None:
        self.save_image(sample)
        self.names.append(sample.stem)
        (self.folder / VOC_MASKS / f"{sample.stem}.png").write_bytes(self.mask(sample.ids))
        instances = encode_values(_instances(sample.ids, self.classes), VOC_COLOURS)
        (self.folder / INSTANCES / f"{sample.stem}.png").write_bytes(instances)

    def close(self) -> None:
        names = "".join(f"{name}\n" for name in self.names)
        (self.folder / SPLITS / "default.txt").write_bytes(names.encode())

    def mask(self, ids: np.ndarray) -> bytes:
        """The file of a mask."""
        return encode_values(ids, VOC_COLOURS)


class CvatMaskWriter(VocWriter):
    """As `VocWriter`, with pictures of colours, as CVAT writes and expects them."""

    def mask(self, ids: np.ndarray) -> bytes:
        return encode_rgb(VOC_COLOURS[ids])


def _label(name: str) -> str:
    """A class name as a line of labelmap.txt can hold it."""
    if ":" in name or "\n" in name or name.startswith("#"):
        raise ValueError(
            f"the class name {name!r} cannot be written to labelmap.txt: rename it without ':' "
            "and '#'"
        )
    return name


def _instances(ids: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """A number from 1 per connected region, uint8 `[H, W]`; the last ones share the largest."""
    numbers = np.zeros_like(ids)
    for number, region in enumerate(regions_of(ids, classes), 1):
        if region.label != IGNORE_LABEL and not is_background(region.label):
            numbers[region.window][region.inside] = min(number, IGNORE - 1)
    return numbers
