"""Layouts of annotated folders: which images they hold, and what the ids of their masks mean.

Plain: image and mask have equal stems, in `images/` and `masks/` or side by side. In a folder of
`factory sample`, `factory choose` or `factory annotate`, images without a mask are left out: they
are not annotated yet. Pascal VOC, as labelling programs export it: `JPEGImages/`,
`SegmentationClass/` and labelmap.txt. Two published datasets are read unchanged: CelebAMask-HQ (Lee
et al., CVPR 2020), whose parts are drawn over each other, and ADE20K's scene parsing release (Zhou
et al., CVPR 2017).

Only names are read here, so `folder[:20]`, the first 20 images, is quick in a large folder too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from factory_core.annotated.items import Item, Layout
from factory_core.annotated.pairs import (
    PAGE_FOLDER,
    SAMPLES_FILE,
    VOC_MASKS,
    Pairs,
    find_pairs,
    plain,
    voc,
)
from factory_core.annotated.published import (
    ADE_CATEGORIES,
    CELEBA_MASKS,
    CELEBA_PARTS,
    ade20k,
    celebamask_hq,
)

__all__ = [
    "CELEBA_PARTS",
    "PAGE_FOLDER",
    "SAMPLES_FILE",
    "Item",
    "Layout",
    "Pairs",
    "find_pairs",
    "open_layout",
    "split_selections",
]


def open_layout(folder: str | Path, classes: Sequence[str] | None = None) -> Layout:
    """Find the annotated images of `folder`, whatever its layout, and the meaning of their ids.

    `folder` may end in selections, each narrowing the last: `faces[:20]` (a slice in order of
    names), `ADEChallengeData2016[bedroom/*][50:]` (names that match a pattern). `classes` are the
    names expected, in id order. Raises ValueError or OSError with one line.
    """
    path, selections = split_selections(folder)
    if (path / CELEBA_MASKS).is_dir():
        layout = celebamask_hq(path, classes)
    elif (path / ADE_CATEGORIES).is_file():
        layout = ade20k(path, classes)
    elif (path / VOC_MASKS).is_dir():
        layout = voc(path, classes)
    else:
        layout = plain(path, classes)
    items = layout.items
    for selection in selections:
        items = _select(items, selection)
    if not items:
        first, last = layout.items[0].name, layout.items[-1].name
        raise ValueError(
            f"{folder} selects none of the {len(layout.items)} annotated images in {path}: "
            f"expected a slice such as [:20] or a pattern matching a name from {first} to {last}"
        )
    return replace(layout, items=items)


def split_selections(folder: str | Path) -> tuple[Path, list[str]]:
    """The path and the selections of `folder`: `faces[a*][:20]` -> faces, ["a*", ":20"].

    An existing folder of exactly that name takes precedence.
    """
    match = re.fullmatch(r"(.+?)((?:\[[^][]+\])+)", str(folder))
    if match is None or Path(folder).exists():
        return Path(folder), []
    return Path(match[1]), re.findall(r"\[([^][]+)\]", match[2])


def _select(items: list[Item], selection: str) -> list[Item]:
    if match := re.fullmatch(r"(-?\d+)?:(-?\d+)?", selection):
        start, stop = (None if end is None else int(end) for end in match.groups())
        return items[start:stop]
    pattern = unicodedata.normalize("NFC", selection)  # as the names are
    return [item for item in items if fnmatchcase(item.name, pattern)]
