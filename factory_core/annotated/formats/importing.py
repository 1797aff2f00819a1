"""Annotations of another program to an annotated folder of ours."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from factory_core.annotated.class_list import CLASSES_FILE, read_classes
from factory_core.annotated.formats import DATA_SETS, reader
from factory_core.annotated.formats.labels import Meaning, meaning_of
from factory_core.annotated.formats.regions import Drawing, Source, Tally, draw
from factory_core.dataset import encode_mask
from factory_core.output_folder import new_folder
from factory_core.storage import json_bytes

IMAGE_CLASSES_FILE = "image_classes.csv"  # a file name and a class per line


@dataclass(frozen=True)
class Imported:
    """What was read: pictures, classes, and pixels that the order of drawing decided."""

    pictures: int
    classes: list[str]
    overlapped: int
    tally: Tally


def import_annotations(
    name: str, source: Source, out: Path, classes: Sequence[str] | None = None
) -> Imported:
    """Read `source` in format `name` and write `images/`, `masks/` and classes.json to `out`.

    `classes` are the names in id order; else classes.json in the source has them, else the labels
    found. Picture files are copied unchanged. The folder appears when it is complete. Raises
    ValueError or OSError with one line, and then writes nothing.
    """
    read, folder = reader(name), source.folder
    if source.split is not None and name not in DATA_SETS:
        raise ValueError(f"found --split with {name}, which has none: leave it out")
    if not source.path.exists():
        raise FileNotFoundError(f"{source.path} does not exist, expected annotations ({name})")
    known = classes
    if known is None and (folder / CLASSES_FILE).is_file():
        known = read_classes(folder, None).names
    if source.path.suffix.lower() == ".zip":
        raise ValueError(f"{source.path} is an archive: unpack it and give the folder")
    reading = read(replace(source, classes=known))
    meaning = meaning_of(reading, classes, folder)
    pictures = overlapped = 0
    with new_folder(out) as temporary:
        for part in ("images", "masks"):
            (temporary / part).mkdir()
        for drawing in reading.drawings:
            overlapped += _write(drawing, meaning, temporary)
            pictures += 1
        (temporary / CLASSES_FILE).write_bytes(json_bytes(meaning.description()))
        if reading.image_classes:
            files = sorted((temporary / "images").iterdir())
            rows = (f"{file.name},{reading.image_classes[file.stem]}\n" for file in files)
            (temporary / IMAGE_CLASSES_FILE).write_text("".join(rows), encoding="utf-8")
    return Imported(pictures, meaning.classes, overlapped, source.tally)


def _write(drawing: Drawing, meaning: Meaning, folder: Path) -> int:
    """Write a picture and its mask; returns the number of overlapped pixels."""
    picture = drawing.picture
    mask = folder / "masks" / f"{picture.stem}.png"
    if mask.exists():
        raise ValueError(f"the picture {picture.stem} is annotated twice: remove one of the files")
    ids, overlapped = draw(drawing.regions(), drawing.size, meaning.ids_of, meaning.unlabelled)
    image = folder / "images" / f"{picture.stem}{picture.suffix}"
    if picture.data is not None:
        image.write_bytes(picture.data)
    else:
        assert picture.path is not None
        shutil.copyfile(picture.path, image)
    mask.write_bytes(encode_mask(ids, meaning.palette))
    return overlapped
