"""Finding image files, and what is said about the files that were found or left out."""

from __future__ import annotations

import glob
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

IMAGE_SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".gif"),
}
MASK_SUFFIXES = {".npy", ".png", ".bmp", ".tif", ".tiff"}
# Files that belong to a folder of images without being images.
COMPANIONS = {"classes.json", "samples.json", "labelmap.txt", "thumbs.db", "desktop.ini"}


def list_files(folder: Path) -> list[Path]:
    """Files of `folder` by name, without hidden ones (such as macOS's `._*`).

    Raises FileNotFoundError or NotADirectoryError for the folder.
    """
    if not folder.exists():
        raise FileNotFoundError(f"folder {folder} does not exist")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file, expected a folder of images")
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def list_images(folder: str | Path) -> list[Path]:
    """The image files directly in `folder`, sorted by name.

    Raises FileNotFoundError or NotADirectoryError for the folder, ValueError if it holds none.
    """
    folder = Path(folder)
    paths = [p for p in list_files(folder) if p.suffix.lower() in IMAGE_SUFFIXES]
    if not paths:
        found = left_out([folder])
        raise ValueError(
            f"no images in {folder}: expected files ending in {' '.join(sorted(IMAGE_SUFFIXES))}"
            + (f"; found: {'; '.join(found)}" if found else "")
        )
    return paths


def find_images(given: Sequence[str], flag: str = "--images") -> dict[str, Path]:
    """Image files by result name, from files, folders and patterns (`day*/*.jpg`).

    The result name is the file name without its suffix; from a pattern it keeps the folders below
    the pattern's fixed part. `flag` names the option in errors.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: a folder or pattern without images, or two images with the same name.
    """
    found: dict[str, Path] = {}
    for text in given:
        for name, path in _expand(text, flag):
            other = found.setdefault(name, path)
            if other.resolve() != path.resolve():
                raise ValueError(
                    f"{other} and {path} would both be written as {name}.png: rename one, or use "
                    "two --out"
                )
    return found


def stem_of(path: Path) -> str:
    """The name without its suffix, composed (NFC): macOS decomposes umlauts and accents."""
    return unicodedata.normalize("NFC", path.stem)


def left_out(
    folders: Iterable[str | Path], suffixes: Iterable[str] = IMAGE_SUFFIXES
) -> tuple[str, ...]:
    """A line about the files of each folder that are not read, and one about its subfolders.

    `suffixes` are those that are read. Of a pattern (`day*/*`), the files that it matches count;
    other paths are skipped. Hidden files and companions of images do not count. Links to nothing
    do.
    """
    lines = []
    for folder in (Path(folder) for folder in folders):
        paths = list(folder.iterdir()) if folder.is_dir() else _matches(str(folder))
        others = Counter(
            path.suffix.lower() or "no suffix"
            for path in paths
            if path.is_file()
            and not path.name.startswith(".")
            and path.suffix.lower() not in suffixes
            and path.name.lower() not in COMPANIONS
        )
        others["broken link"] = sum(p.is_symlink() and not p.exists() for p in paths)
        others += Counter()  # without zeros
        if others:
            kinds = ", ".join(f"{number} {kind}" for kind, number in others.most_common(5))
            files = counted(others.total(), "file")
            lines.append(f"{files} of other kinds left out in {folder} ({kinds})")
        below, first = _images_below(folder) if folder.is_dir() else (0, None)
        if below:
            lines.append(
                f"the subfolders of {folder} hold {counted(below, 'image')}, left out, such as "
                f"{first}: move them into one folder (`predict` takes patterns such as "
                f"'{folder}/**/*')"
            )
    return tuple(lines)


def counted(number: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _images_below(folder: Path) -> tuple[int, Path | None]:
    """The number of images in the subfolders of `folder`, and the first."""
    number, first = 0, None
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if Path(place) == folder:
            continue
        for name in sorted(names):
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                number, first = number + 1, first or Path(place, name)
    return number, first


def _matches(pattern: str) -> list[Path]:
    """Paths that a pattern matches, in order; none for a text that is no pattern."""
    if not glob.has_magic(pattern):
        return []
    return [Path(p) for p in sorted(glob.glob(pattern, recursive=True))]


def _expand(text: str, flag: str) -> list[tuple[str, Path]]:
    """Name and path of every image that `text` stands for."""
    path = Path(text)
    if path.is_dir():
        return [(p.stem, p) for p in list_images(path)]
    if path.is_file():
        return [(path.stem, path)]
    if not glob.has_magic(text):
        raise FileNotFoundError(f"{flag} {text}: no such file or folder")
    parts = path.parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    base = Path(*parts[:fixed])
    images = [p for p in _matches(text) if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise ValueError(f"{flag} {text}: no image matches this pattern")
    return [(str(p.relative_to(base).with_suffix("")), p) for p in images]
