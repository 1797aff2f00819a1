"""From labels to class ids, and what the ids of an exported folder mean when it comes back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from factory_core.annotated.class_list import CLASSES_FILE, read_classes
from factory_core.annotated.formats.regions import (
    BACKGROUND,
    IGNORE_LABEL,
    Reading,
    is_background,
)
from factory_core.dataset import default_palette
from factory_core.images import IGNORE, Palette


class Meaning(NamedTuple):
    """Class names in id order, a colour for each, and the id of every label."""

    classes: list[str]
    palette: Palette
    ids_of: dict[str, int]

    @property
    def unlabelled(self) -> int:
        """The id of pixels outside all regions: the background, or ignored if there is none."""
        return next((i for i, name in enumerate(self.classes) if is_background(name)), IGNORE)

    def description(self) -> dict[str, Any]:
        """Content of classes.json; without colours if two are equal, which would be ambiguous."""
        content: dict[str, Any] = {"classes": self.classes}
        if len({tuple(colour) for colour in self.palette}) == len(self.palette):
            content["palette"] = self.palette
        return content


def meaning_of(reading: Reading, given: Sequence[str] | None, folder: Path) -> Meaning:
    """The classes `given`, else those of classes.json in `folder`, else the labels in their order.

    Raises ValueError for a label that is not among the classes given. Labels that classes.json
    lacks are new ones: they come last.
    """
    labels = [label for label in reading.labels if label != IGNORE_LABEL]
    palette = reading.palette
    if given is not None:
        names = list(given)
        unknown = [label for label in labels if _id_in(names, label) is None]
        if unknown:
            raise ValueError(f"found the label {unknown[0]!r}, expected one of --classes: {names}")
        palette = None
    elif (folder / CLASSES_FILE).is_file():
        found = read_classes(folder, None)
        names, palette = list(found.names or []), found.palette
        names += [label for label in labels if _id_in(names, label) is None]
    elif reading.has_all_ids:
        names = labels
    else:
        names = [BACKGROUND, *(label for label in labels if not is_background(label))]
        if palette is not None:
            colours = dict(zip(reading.labels, palette, strict=True))
            by_name = {BACKGROUND if is_background(k) else k: v for k, v in colours.items()}
            palette = [by_name.get(name, [0, 0, 0]) for name in names]
    if not 0 < len(names) <= IGNORE:
        raise ValueError(f"found {len(names)} labels, expected 1 to {IGNORE}")
    ids_of = {IGNORE_LABEL: IGNORE}
    for label in labels:
        i = _id_in(names, label)
        assert i is not None, label
        ids_of[label] = i
    if palette is None or len(palette) != len(names):
        palette = default_palette(len(names))
    return Meaning(names, palette, ids_of)


def _id_in(names: Sequence[str], label: str) -> int | None:
    """The id of a label; any name of the background stands for any other."""
    if label in names:
        return names.index(label)
    if is_background(label):
        return next((i for i, name in enumerate(names) if is_background(name)), None)
    return None
