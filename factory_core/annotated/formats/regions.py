"""What all formats have in common: pictures, and labelled regions in the order of drawing.

A region that is drawn later covers an earlier one, as in the programs that people draw with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from factory_core.annotated.class_list import CLASSES_FILE
from factory_core.images import IGNORE, Palette, Size

BACKGROUND = "background"
IGNORE_LABEL = "__ignore__"  # LabelMe's name for pixels that have no class


@dataclass(frozen=True)
class Region:
    """Pixels of one label: `inside` bool `[h, w]`, whose first pixel is at (`top`, `left`)."""

    label: str
    inside: np.ndarray
    top: int = 0
    left: int = 0

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the picture that `inside` covers."""
        height, width = self.inside.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


@dataclass(frozen=True)
class Picture:
    """A picture to write as `stem` + `suffix`: the file at `path`, or the bytes `data`."""

    stem: str
    suffix: str
    path: Path | None = None
    data: bytes | None = None


@dataclass(frozen=True)
class Drawing:
    """One annotated picture of `size` (H, W); `regions` yields what was drawn on it, in order."""

    picture: Picture
    size: Size
    regions: Callable[[], Iterable[Region]]


@dataclass
class Tally:
    """What a reader says about the files: what was left out, by reason, and what was decided."""

    left_out: Counter[str] = field(default_factory=Counter)
    crossed: int = 0  # polygons that cross themselves
    copies: int = 0  # pictures replaced by the copy that was drawn on


@dataclass(frozen=True)
class Source:
    """Where to read annotations: a file or folder, and the folder of its pictures.

    `classes`: the names of ids, if known. `keep_empty`: a picture without a region is all
    background, and not one still to be annotated. `split`: train, val or test of a published data
    set.
    """

    path: Path
    images: Path | None = None
    classes: Sequence[str] | None = None
    keep_empty: bool = False
    split: str | None = None
    tally: Tally = field(default_factory=Tally)

    @property
    def folder(self) -> Path:
        """The folder itself, or the one in which the file lies."""
        return self.path if self.path.is_dir() else self.path.parent

    def file(self, *names: str) -> Path:
        """The source itself if it is a file, else the first of the `names` in it.

        A name may be a pattern. Raises FileNotFoundError if there is none, ValueError if a pattern
        matches several.
        """
        if self.path.is_file():
            return self.path
        for name in names:
            found = sorted(p for p in self.path.glob(name) if p.name != CLASSES_FILE)
            if len(found) > 1:
                raise ValueError(
                    f"{self.path} holds {found[0].name} and {found[1].name}: give one of the files"
                )
            if found:
                return found[0]
        raise FileNotFoundError(f"{self.path} holds no {names[0]}, and is no such file")


@dataclass(frozen=True)
class Reading:
    """What a format's reader found: drawings, read on demand, and labels in the order of ids.

    `has_all_ids`: the file numbers its classes from 0, so that no background is put before them.
    `palette` has a colour per label where the file has them; `image_classes` the class of each
    whole picture, by its name.
    """

    labels: Sequence[str]
    drawings: Iterable[Drawing]
    has_all_ids: bool = False
    palette: Palette | None = None
    image_classes: Mapping[str, str] = field(default_factory=dict)


def is_background(label: str) -> bool:
    """Whether a label is one of the names that programs give to the background."""
    return label.strip("_ ").lower() == BACKGROUND


def draw(
    regions: Iterable[Region], size: Size, ids_of: Mapping[str, int], unlabelled: int
) -> tuple[np.ndarray, int]:
    """Draw regions over each other.

    Returns ids uint8 `[H, W]`, `unlabelled` where there is no region, and the number of pixels on
    which regions of different ids lie, so that the order decided.
    """
    ids = np.full(size, unlabelled, np.uint8)
    drawn, overlapped = np.zeros(size, bool), np.zeros(size, bool)
    for region in regions:
        new, window = ids_of[region.label], region.window
        overlapped[window] |= drawn[window] & region.inside & (ids[window] != new)
        drawn[window] |= region.inside
        ids[window][region.inside] = new
    return ids, int(overlapped.sum())


def regions_of(ids: np.ndarray, classes: Sequence[str]) -> Iterator[Region]:
    """The 4-connected regions of ids uint8 `[H, W]`, but for those of the background."""
    from scipy import ndimage

    for i in np.unique(ids).tolist():
        label = IGNORE_LABEL if i == IGNORE else classes[i]
        if is_background(label):
            continue
        numbers, _ = ndimage.label(ids == i)
        for number, (rows, columns) in enumerate(ndimage.find_objects(numbers), 1):
            inside = numbers[rows, columns] == number
            yield Region(label, inside, rows.start, columns.start)


def masks_of(ids: np.ndarray, classes: Sequence[str]) -> Iterator[Region]:
    """One region per class of ids uint8 `[H, W]`, the background's too."""
    for i in np.unique(ids).tolist():
        yield Region(IGNORE_LABEL if i == IGNORE else classes[i], ids == i)
