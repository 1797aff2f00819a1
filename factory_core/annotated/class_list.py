"""What the ids of masks mean: classes.json beside them, or labelmap.txt of a labelling program."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from factory_core.images import IGNORE, Palette

CLASSES_FILE, LABELMAP_FILE = "classes.json", "labelmap.txt"
KEYS = ("classes", "palette", "reduce_zero_label")


class ClassList(NamedTuple):
    """Names in id order and one colour per class, None if unknown.

    `new_ids` uint8 `[256]` maps each stored id to the one meant; None keeps them.
    """

    names: list[str] | None
    palette: Palette | None = None
    new_ids: np.ndarray | None = None


def read_classes(folder: Path, expected: Sequence[str] | None) -> ClassList:
    """The classes in `classes.json` of the folder or its parent, in labelmap.txt, else `expected`.

    Raises ValueError for names that differ from `expected` or are in a different order, because the
    masks' ids would mean something else.
    """
    for path in (folder / CLASSES_FILE, folder.resolve().parent / CLASSES_FILE):
        if path.is_file():
            return read_class_file(path, expected)
    if (folder / LABELMAP_FILE).is_file():
        return read_labelmap(folder / LABELMAP_FILE, expected)
    return ClassList(None if expected is None else list(expected))


def read_class_file(path: Path, expected: Sequence[str] | None) -> ClassList:
    """The classes in a classes.json; errors as `read_classes`, or FileNotFoundError."""
    content = _read_json(path)
    _check_keys(path, content)
    names = _check_names(path, content, expected)
    new_ids = None
    reduce = content.get("reduce_zero_label", False)  # MMSegmentation's name for it
    if not isinstance(reduce, bool):
        raise ValueError(f'{path}: expected "reduce_zero_label" as true or false')
    if reduce:
        new_ids = np.array([IGNORE, *range(IGNORE - 1), IGNORE], np.uint8)
    return ClassList(names, _check_palette(path, content.get("palette"), len(names)), new_ids)


def names_in_file(path: Path) -> list[str]:
    """The names in a file like classes.json, in id order; raises ValueError."""
    return _check_names(path, _read_json(path), None)


def read_labelmap(path: Path, expected: Sequence[str] | None) -> ClassList:
    """The classes in a labelmap.txt: a line `name:r,g,b:parts:actions` each, in id order.

    The program chose that order, so `expected` may have a different one. Raises ValueError for
    other lines and for names that differ from `expected`.
    """
    names: list[str] = []
    palette: Palette = []
    for line in path.read_bytes().decode("utf-8-sig", "replace").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        try:
            colour = [int(v) for v in rest.partition(":")[0].split(",")]
        except ValueError:
            colour = []
        if not (name and len(colour) == 3 and all(0 <= v <= 255 for v in colour)):
            raise ValueError(f"{path}: found {line!r}, expected 'name:r,g,b::'")
        names.append(name.strip())
        palette.append(colour)
    if not names:
        raise ValueError(f"{path} names no class: expected lines 'name:r,g,b::'")
    if expected is None or sorted(names) != sorted(expected):
        return ClassList(_check_names(path, {"classes": names}, expected), palette)
    new_ids = np.arange(IGNORE + 1, dtype=np.uint8)
    new_ids[: len(names)] = [expected.index(name) for name in names]
    by_name = dict(zip(names, palette, strict=True))
    return ClassList(list(expected), [by_name[name] for name in expected], new_ids)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        # UTF-8 or UTF-16, with or without a BOM
        content = json.loads(path.read_bytes(), object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    return content if isinstance(content, dict) else {}


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs; raises ValueError for a key that occurs twice."""
    content = dict(pairs)
    if len(content) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"found {next(k for k in keys if keys.count(k) > 1)!r} twice")
    return content


def _check_keys(path: Path, content: dict[str, Any]) -> None:
    """Raise ValueError for a misspelt key; keys of other programs may stand there too."""
    for key in content:
        near = difflib.get_close_matches(key.lower(), KEYS, n=1)
        if key not in KEYS and near:
            raise ValueError(f"{path}: unknown key {key!r}: did you mean {near[0]!r}?")


def _check_names(path: Path, content: dict[str, Any], expected: Sequence[str] | None) -> list[str]:
    names = content.get("classes")
    if names is None and expected is not None and "reduce_zero_label" in content:
        return list(expected)
    if not (isinstance(names, list) and names and all(isinstance(n, str) for n in names)):
        raise ValueError(f'{path}: expected {{"classes": ["name", ...]}}, names in id order')
    for name in names:
        if any("\ud800" <= letter <= "\udfff" for letter in name):
            raise ValueError(f"{path}: the name {name!a} holds half a character")
    if len(names) > IGNORE:
        raise ValueError(f"{path} has {len(names)} classes, expected at most {IGNORE}")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{path} lists the class {twice!r} more than once: give distinct names")
    if expected is not None and names != list(expected):
        raise ValueError(
            f"{path} has the classes {names}, expected {list(expected)}: class ids must have "
            "the same meaning, so use images annotated with those classes in that order"
        )
    return names


def _check_palette(path: Path, palette: Any, classes: int) -> Palette | None:
    if palette is None:
        return None
    ok = isinstance(palette, list) and len(palette) == classes
    if not ok or any(
        not isinstance(colour, list)
        or len(colour) != 3
        or any(not isinstance(v, int) or not 0 <= v <= 255 for v in colour)
        for colour in palette
    ):
        raise ValueError(f'{path}: expected "palette" as {classes} colours [r, g, b] of 0 to 255')
    return palette
