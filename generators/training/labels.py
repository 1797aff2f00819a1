"""The classes of training images, for class-conditional generators.

`classes.json` in the folder of a generator holds their names in the order of their numbers.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from factory_core.annotated.class_list import CLASSES_FILE, read_classes
from factory_core.images import list_images
from factory_core.images.files import IMAGE_SUFFIXES
from factory_core.storage import write_json

FOLDERS = "folders"


@dataclass(frozen=True)
class LabelledFiles:
    """Image files in order, the name of each, and the class number of each if there are classes."""

    paths: list[Path]
    names: list[str]
    labels: list[int] | None = None
    classes: tuple[str, ...] = ()


def find_labelled(folder: Path, labels: str | None) -> LabelledFiles:
    """The images of `folder` with their classes, which are in the order of their names.

    `labels` is None for images without classes; `folders` if each class is a subfolder; else a CSV
    file with a file name and a class per line. Raises ValueError or OSError, in one line, if an
    image has no class or there is only one.
    """
    if labels is None:
        paths = list_images(folder)
        return LabelledFiles(paths, [path.name for path in paths])
    if labels == FOLDERS:
        paths = _in_subfolders(folder)
        class_of = {path: path.parent.name for path in paths}
        names = [f"{path.parent.name}/{path.name}" for path in paths]
    else:
        paths = list_images(folder)
        listed = read_classes_csv(Path(labels), f"labels={labels}: expected `{FOLDERS}`")
        if missing := [path.name for path in paths if path.name not in listed]:
            raise ValueError(
                f"{labels} gives {len(missing)} images of {folder} no class, such as {missing[0]}: "
                "add them, or move them elsewhere"
            )
        class_of = {path: listed[path.name] for path in paths}
        names = [path.name for path in paths]
    classes = tuple(sorted(set(class_of.values())))
    if len(classes) < 2:
        raise ValueError(f"labels={labels}: found one class, {classes[0]}, expected two or more")
    return LabelledFiles(paths, names, [classes.index(class_of[path]) for path in paths], classes)


def _in_subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"folder {folder} does not exist")
    below = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not below:
        raise ValueError(f"labels={FOLDERS}: {folder} has no subfolders, expected one per class")
    return [path for one in below for path in list_images(one)]


def read_classes_csv(file: Path, expected: str) -> dict[str, str]:
    """The class of each file name in a CSV of two columns, with or without a heading.

    Raises FileNotFoundError, beginning with what was `expected`, or ValueError for a line that is
    not a file name and a class.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{expected}, or an existing CSV file")
    found: dict[str, str] = {}
    with open(file, newline="", encoding="utf-8-sig") as lines:
        for number, row in enumerate(csv.reader(lines), 1):
            if not row or (number == 1 and not _is_image_name(row[0])):
                continue
            if len(row) != 2 or not all(cell.strip() for cell in row):
                raise ValueError(f"{file}, line {number}: expected a file name and a class")
            name, label = (cell.strip() for cell in row)
            if found.setdefault(name, label) != label:
                raise ValueError(f"{file}, line {number}: {name} has two classes: keep one")
    return found


def _is_image_name(text: str) -> bool:
    return Path(text.strip()).suffix.lower() in IMAGE_SUFFIXES


def save_classes(folder: Path, classes: Sequence[str]) -> None:
    """Record the names of the classes, if there are any, in the folder of a generator."""
    if classes:
        write_json(folder / CLASSES_FILE, {"classes": list(classes)})
    else:
        (folder / CLASSES_FILE).unlink(missing_ok=True)


def known_classes(folder: Path) -> list[str]:
    """What `save_classes` recorded; raises ValueError for an unconditional generator."""
    if not (folder / CLASSES_FILE).is_file():
        raise ValueError(f"{folder} has no {CLASSES_FILE}, expected a class-conditional generator")
    return list(read_classes(folder, None).names or [])


def class_numbers(
    names: Sequence[str], class_of: Mapping[str, str], classes: Sequence[str]
) -> list[int]:
    """The class number of each image `names`; raises ValueError if one has none."""
    for name in names:
        if class_of.get(name) not in classes:
            raise ValueError(
                f"found {class_of.get(name, 'no class')} for {name}, expected one of "
                f"{', '.join(classes)}"
            )
    return [classes.index(class_of[name]) for name in names]
