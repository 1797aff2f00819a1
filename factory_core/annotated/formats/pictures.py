"""The pictures that annotations name: found by name in one folder, never by a path to elsewhere."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from PIL import Image

from factory_core.annotated.formats.regions import Drawing, Picture, Source
from factory_core.images import IMAGE_SUFFIXES, Size, decode_file, wxh
from factory_core.images.channels import tiff_channels
from factory_core.images.opening import ORIENTATION

SIDEWAYS = range(5, 9)  # EXIF orientations that exchange width and height


class PictureFiles:
    """The pictures in a folder and its subfolders, by name.

    Names in annotation files are compared with names that exist; they are never opened as paths. So
    a name such as `../../x.png` leads nowhere. Subfolders named in `skip` hold no pictures. Raises
    FileNotFoundError if there is no folder.
    """

    def __init__(self, source: Source, folder: Path | None = None, skip: Sequence[str] = ()):
        self.folder = source.images or folder or source.folder
        self.left_out = source.tally.left_out
        if not self.folder.is_dir():
            raise FileNotFoundError(f"folder {self.folder} of the pictures does not exist")
        self.by_name: dict[str, list[PurePosixPath]] = defaultdict(list)
        self.by_stem: dict[str, list[PurePosixPath]] = defaultdict(list)
        for place, folders, names in os.walk(self.folder):
            kept = {name for name in folders if not name.startswith(".")}.difference(skip)
            folders[:] = sorted(kept)
            for name in sorted(names):
                path = PurePosixPath(Path(place, name).relative_to(self.folder).as_posix())
                if path.suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                    self.by_name[_composed(path.name)].append(path)
                    self.by_stem[_composed(path.stem)].append(path)

    def has(self, name: str) -> bool:
        """Whether there is a picture of that name in any folder."""
        return _parts(name)[-1:] != [] and _parts(name)[-1] in self.by_name

    def find(self, name: str, only_stem: bool = False) -> Picture | None:
        """The picture of that name; None, and counted as left out, if there is none.

        Of several, the one whose folders agree best is taken. `only_stem`: the name has no suffix.
        Raises ValueError if several agree equally well.
        """
        parts = _parts(name)
        found = (self.by_stem if only_stem else self.by_name).get(parts[-1] if parts else "", [])
        if not found:
            self.left_out[f"no picture {name!r} in {self.folder}"] += 1
            return None
        ranked = sorted(found, key=lambda path: _agreement(path, parts), reverse=True)
        if len(ranked) > 1 and _agreement(ranked[0], parts) == _agreement(ranked[1], parts):
            raise ValueError(
                f"{name!r} may be {ranked[0]} or {ranked[1]} in {self.folder}: rename one, or give "
                "the folder of the right one as --images"
            )
        return self._picture(ranked[0])

    def _picture(self, path: PurePosixPath) -> Picture:
        """A file with its name in the result, which has the folders if stems occur twice."""
        stem = _composed(path.stem)
        if len(self.by_stem[stem]) > 1:
            stem = "_".join([*map(_composed, path.parts[:-1]), stem])
        return Picture(stem, path.suffix.lower(), self.folder / path)


def upright_size(image: Image.Image) -> Size:
    """(H, W) of an opened image as it is shown; nothing is decoded."""
    # PNG's own getexif decodes the whole image first.
    sideways = Image.Image.getexif(image).get(ORIENTATION) in SIDEWAYS
    return image.size if sideways else image.size[::-1]


def picture_size(picture: Picture) -> Size:
    """(H, W) of a picture's file as it is shown; raises ValueError as `decode_file`."""
    assert picture.path is not None
    return decode_file(picture.path, upright_size, decode_tiff=_size_of_rare_tiff)


def _size_of_rare_tiff(file: BinaryIO) -> Size:
    height, width = tiff_channels(file).colour.shape[:2]
    return height, width


def checked_size(picture: Picture, height: int | None, width: int | None, where: str) -> Size:
    """(H, W) of a picture; raises ValueError if the annotations were made for a different one."""
    size = picture_size(picture)
    refuse_other_size(size, height, width, str(picture.path), where)
    return size


def refuse_other_size(
    size: Size, height: int | None, width: int | None, picture: str, where: str
) -> None:
    """Raise ValueError if the annotations `where` state a size other than that of the picture."""
    if height is None or width is None or size == (height, width):
        return
    hint = "give the folder of the pictures that were annotated as --images"
    if size == (width, height):
        hint = "the picture has to be annotated as viewers show it, upright"
    raise ValueError(
        f"{where}: found regions for {width}x{height} pixels, but {picture} is {wxh(size)}: {hint}"
    )


def refuse_nothing(drawings: list[Drawing], source: Source) -> None:
    """Raise ValueError, with what was left out, if no drawing was found."""
    if not drawings:
        reasons = "; ".join(source.tally.left_out) or "the file is empty"
        raise ValueError(f"{source.path} has no annotated picture to read: {reasons}")


def _agreement(path: PurePosixPath, parts: list[str]) -> int:
    """How many names agree, from the file upwards."""
    pairs = zip(reversed(path.parts[:-1]), reversed(parts[:-1]), strict=False)
    number = 0
    for ours, theirs in pairs:
        if _composed(ours) != theirs:
            break
        number += 1
    return number


def _parts(name: str) -> list[str]:
    """Folders and file of a path in a file, which may come from Windows."""
    return list(PurePosixPath(_composed(name).replace("\\", "/")).parts)


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
