"""What is found in an annotated folder: counts per class, and everything worth a second look.

Trainings stop at the first mistake; here every file is looked at. Whether a training would refuse
the folder is decided by the training's own reading, so the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from factory.annotation.checking.colours import colours_off
from factory.annotation.checking.verdict import refusal
from factory_core.annotated.formats.regions import is_background
from factory_core.annotated.items import Item, Layout
from factory_core.annotated.layouts import open_layout, split_selections
from factory_core.annotated.meaning import MaskFile, ids_of_greys
from factory_core.annotated.native import mask_file, numbered
from factory_core.annotated.pairs import Pairs, find_pairs, layout_of
from factory_core.images import DEFAULT_PICTURES, IGNORE, Mask, Pictures, counted, measured

EMPTY_SHARE = 0.001  # of the pixels: an image with less than that drawn on it is near-empty
UNLABELLED_SHARE = 0.5  # of the pixels of an image: more is worth a line
EIGHT = np.ones((3, 3), bool)  # neighbours across corners too


@dataclass(frozen=True)
class Finding:
    """Something about a file; `kind` is one word for it."""

    kind: str
    file: str
    text: str


@dataclass
class ClassCount:
    """A class: images that show it, its pixels, and regions of it that are one pixel alone."""

    name: str
    images: int = 0
    pixels: int = 0
    specks: int = 0


@dataclass
class Checked:
    """All that was found; `refused` is the line with which `train-labeler` would end, if it would.

    `unlabelled` counts pixels to ignore.
    """

    folder: Path
    images: int = 0
    pixels: int = 0
    unlabelled: int = 0
    classes: list[ClassCount] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    refused: str | None = None
    layout: Layout | None = None
    pictures: Pictures = DEFAULT_PICTURES
    new_ids: np.ndarray | None = None

    def note(self, kind: str, file: Path, text: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(kind, file.name, text))

    def readable(self) -> Iterator[tuple[Item, np.ndarray]]:
        """The items that can be read, with their ids uint8 `[H, W]`."""
        layout = self.layout
        for item in layout.items if layout is not None else []:
            try:
                assert layout is not None
                _, mask = layout.read(item, self.pictures)
            except (ValueError, OSError):
                continue  # a finding says why
            yield item, _with(self.new_ids, mask)


def check_folder(folder: Path) -> Checked:
    """Look at every file of an annotated folder, which may end in selections such as `[:20]`.

    Mistakes are findings, not errors. Raises FileNotFoundError if there is no such folder.
    """
    path, _ = split_selections(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"folder {path} does not exist, expected annotated images")
    checked = Checked(folder)
    checked.layout = _layout(folder, path, checked)
    if checked.layout is not None:
        checked.pictures = _measured(checked.layout)
        _look_at_masks(checked.layout, checked)
    checked.refused, checked.notes = refusal(folder)
    return checked


def _layout(folder: Path, path: Path, checked: Checked) -> Layout | None:
    """What trainings find in the folder, or, if they refuse it, the pairs that there are."""
    try:
        return open_layout(folder)
    except (ValueError, OSError):
        pass  # `refusal` meets it again
    try:
        pairs = find_pairs(path)
        _unpaired(pairs, checked)
        return layout_of(pairs, path, None)
    except (ValueError, OSError):
        return None


def _measured(layout: Layout) -> Pictures:
    """How the images are scaled; as by default if one cannot be read, which is a finding."""
    try:
        return measured(DEFAULT_PICTURES, [item.image for item in layout.items])
    except (ValueError, OSError):
        return DEFAULT_PICTURES


def _unpaired(pairs: Pairs, checked: Checked) -> None:
    for stem, path in pairs.images.items():
        if stem not in pairs.masks:
            checked.note("no-mask", path, f"image without a mask in {pairs.mask_dir}")
    for stem, path in pairs.masks.items():
        if stem not in pairs.images:
            checked.note("no-image", path, "mask without an image of its name")


def _look_at_masks(layout: Layout, checked: Checked) -> None:
    files: list[MaskFile] = []
    for item in layout.items:
        try:
            _, mask = layout.read(item, checked.pictures)
        except (ValueError, OSError) as error:
            checked.note("unreadable", item.mask, str(error))
            for text in colours_off(item.mask, layout.palette, layout.classes):
                checked.note("colour", item.mask, text)
            continue
        files.append(mask_file(item, mask))
    checked.new_ids = ids_of_greys(files, layout.palette)
    if checked.new_ids is not None:
        files = [f.mapped(checked.new_ids) if f.stored else f for f in files]
    found = np.sum([f.pixels[:IGNORE] for f in files], axis=0) if files else np.zeros(1)
    names = layout.classes or numbered(int(np.flatnonzero(found).max(initial=0)))
    checked.classes = [ClassCount(name) for name in names]
    for file in files:
        _look_at_values(file, names, checked)
    background = next((i for i, name in enumerate(names) if is_background(name)), 0)
    for item, ids in checked.readable():
        _count(item, ids, background, checked)


def _look_at_values(file: MaskFile, names: list[str], checked: Checked) -> None:
    """Findings on the numbers in a mask."""
    used = np.flatnonzero(file.pixels).tolist()
    if file.stored and used == [0, IGNORE]:
        text = f"holds 0 and 255 only: taken for {names[0]} and for pixels to ignore"
        checked.note("black-and-white", file.path, text)
    beyond = [i for i in used if len(names) <= i < IGNORE]
    if beyond:
        pixels = int(file.pixels[beyond].sum())
        text = f"class ids {beyond[:5]} on {pixels} pixels, there are {len(names)} classes"
        checked.note("id", file.path, text)


def _count(item: Item, ids: np.ndarray, background: int, checked: Checked) -> None:
    """Add an image to the counts, and findings on what is drawn on it."""
    pixels = np.bincount(ids.ravel(), minlength=IGNORE + 1)
    checked.images += 1
    checked.pixels += ids.size
    checked.unlabelled += int(pixels[IGNORE])
    specks = 0
    for i, of_class in enumerate(checked.classes):
        if pixels[i]:
            of_class.images += 1
            of_class.pixels += int(pixels[i])
            number = _specks(ids == i)
            of_class.specks += number
            specks += number
    if specks:
        checked.note("specks", item.mask, f"{counted(specks, 'region')} of one pixel")
    drawn = ids.size - int(pixels[IGNORE]) - int(pixels[background])
    if drawn < EMPTY_SHARE * ids.size:
        checked.note("near-empty", item.mask, f"{drawn} of {ids.size} pixels are drawn on")
    if pixels[IGNORE] > UNLABELLED_SHARE * ids.size:
        share = 100 * pixels[IGNORE] / ids.size
        checked.note("unlabelled", item.mask, f"{share:.0f} % of the pixels are ignored")


def _specks(inside: np.ndarray) -> int:
    """The number of 8-connected regions of one pixel."""
    from scipy import ndimage

    numbers, _ = ndimage.label(inside, EIGHT)
    return int((np.bincount(numbers.ravel())[1:] == 1).sum())


def _with(new_ids: np.ndarray | None, mask: Mask) -> np.ndarray:
    return mask.ids if new_ids is None or not mask.stored else new_ids[mask.ids]
