"""Whether the numbers in a folder's masks can be the class ids they are taken for.

One mask does not show it, all of them together do: 0 and 255 may be a drawing in black and white,
ids with gaps grey levels, and palette files may contradict each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from factory_core.images import IGNORE, Colour, Palette

MANY = 32  # different values in a mask that look like shades, not ids
SHOWN = 6  # names or ids in a note
GAPS = 8  # if the largest id is this many times their number, they may be grey levels
SHRUNK = 0.8  # of its share of pixels: a class that resizing leaves less of is named


@dataclass(frozen=True)
class MaskFile:
    """The values in one mask: pixels per value int64 `[256]` at its own size and `resized`.

    `stored` and `colours` are those of `factory_core.images.Mask`.
    """

    path: Path
    stored: bool
    colours: Mapping[int, Colour]
    pixels: np.ndarray
    resized: np.ndarray

    def mapped(self, new_ids: np.ndarray) -> MaskFile:
        """The same mask with new ids, uint8 `[256]`."""
        pixels, resized = np.zeros_like(self.pixels), np.zeros_like(self.resized)
        np.add.at(pixels, new_ids, self.pixels)
        np.add.at(resized, new_ids, self.resized)
        return replace(self, stored=False, pixels=pixels, resized=resized)


def ids_of_greys(files: Sequence[MaskFile], palette: Palette | None) -> np.ndarray | None:
    """New ids uint8 `[256]` if the stored numbers are grey levels of `palette`, else None.

    They are if every number in every mask is the grey of a class.
    """
    greys = {r: i for i, (r, g, b) in enumerate(palette or []) if r == g == b}
    used = _values(file for file in files if file.stored)
    if not used or not set(used) <= greys.keys() or all(greys[v] == v for v in used):
        return None
    new_ids = np.arange(IGNORE + 1, dtype=np.uint8)
    new_ids[list(greys)] = list(greys.values())
    return new_ids


def check_meaning(folder: Path, files: Sequence[MaskFile], names: Sequence[str] | None) -> None:
    """Raise ValueError if the numbers in the masks cannot be ids of the classes `names`."""
    stored = [file for file in files if file.stored]
    used = _values(stored)
    if used == [0, IGNORE] and len(stored) == len(files) and (names is None or len(names) > 1):
        name = "the object" if names is None else names[1]
        raise ValueError(
            f"{folder}: the masks hold only 0 and 255, and 255 means ignore: for black-and-white "
            f'masks write 1 instead of 255 for {name}, or give "palette": [[0, 0, 0], [255, 255, '
            "255]] in classes.json"
        )
    if _values(files) in ([], [IGNORE]):
        raise ValueError(
            f"{folder}: every pixel of the masks is 255, which means ignore: expected class ids"
        )
    _check_palettes(stored)
    if names is None:
        _check_unnamed(folder, used)
    for file in files:
        found = max((v for v in _values([file]) if v != IGNORE), default=0)
        if names is not None and found >= len(names):
            values = _values([file])
            if len(values) > max(MANY, 2 * len(names)):
                raise ValueError(
                    f"{file.path} holds {len(values)} different values up to {found}, but there "
                    f"are {len(names)} classes: was it smoothed, compressed with loss, or is it a "
                    "photograph? Save class ids losslessly"
                )
            if (of_all := _values(stored)) and found > MANY and len(of_all) <= len(names):
                raise ValueError(
                    f"{file.path} has the value {found}, but there are {len(names)} classes (0 to "
                    f"{len(names) - 1}): if {_listed(of_all)} are grey levels, give those of the "
                    f'classes as "palette", such as [[{found}, {found}, {found}], ...], in '
                    "classes.json, or write class ids"
                )
            raise ValueError(
                f"{file.path} has class id {found}, but there are {len(names)} classes "
                f"(0 to {len(names) - 1}): add its name to classes.json or correct the mask; if 0 "
                'means ignore and ids count from 1, write "reduce_zero_label": true there'
            )


def _check_unnamed(folder: Path, used: Sequence[int]) -> None:
    """Raise ValueError if the stored numbers of unnamed classes look like grey levels."""
    ids = [value for value in used if value != IGNORE]
    if not ids or max(ids) <= MANY or GAPS * len(ids) > max(ids):
        return
    greys = ", ".join(f"[{value}, {value}, {value}]" for value in used[:SHOWN])
    more = ", ..." if len(used) > SHOWN else ""
    raise ValueError(
        f"{folder}: the masks hold only the values {_listed(used)}: if they are grey levels, name "
        f'the classes in classes.json and give their greys as "palette": [{greys}{more}]; if they '
        f"are class ids, name all {max(ids) + 1} classes there"
    )


def notes_on_masks(
    files: Sequence[MaskFile], names: Sequence[str], named: bool, size: str
) -> tuple[str, ...]:
    """Lines on classes without pixels, doubtful ids, and what resizing to `size` (WxH) lost.

    `named` says whether someone chose the `names`.
    """
    pixels = np.sum([file.pixels for file in files], axis=0)
    absent = [i for i in range(len(names)) if not pixels[i]]
    notes = []
    if absent and named:
        notes.append(f"no mask has a pixel of {_listed([names[i] for i in absent])}")
    elif absent or len(names) > MANY:
        found = [v for v in _values(files) if v != IGNORE]
        notes.append(
            f"the masks hold {len(found)} different ids ({_listed(found)}): are they class ids, or "
            "grey levels? Name the classes in classes.json"
        )
    notes += _contradictions([file for file in files if file.stored])
    binary = [file for file in files if file.stored and _values([file]) == [0, IGNORE]]
    if binary:
        notes.append(
            f"{len(binary)} of {len(files)} masks, such as {binary[0].path.name}, hold only 0 and "
            "255 (ignore): if they are black-and-white drawings, write class ids instead of 255"
        )
    if lost := _lost(files, names):
        notes.append(f"resizing to {size} removes {_listed(lost)}")
    return tuple(notes)


def _lost(files: Sequence[MaskFile], names: Sequence[str]) -> list[str]:
    """What resizing removes of each class, where that is much or all of it in a mask."""
    pixels, resized = (
        np.sum([file.pixels for file in files], axis=0),
        np.sum([file.resized for file in files], axis=0),
    )
    lines = []
    for i, name in enumerate(names):
        lost = sum(bool(file.pixels[i] and not file.resized[i]) for file in files)
        before, after = pixels[i] / pixels.sum(), resized[i] / resized.sum()
        if lost or after < SHRUNK * before:
            lines.append(
                f"{name} from {lost} of {len(files)} masks ({100 * before:.2g} % of the pixels "
                f"before, {100 * after:.2g} % after)"
            )
    return lines


def _values(files: Iterable[MaskFile]) -> list[int]:
    """The values that occur, in order."""
    found = np.zeros(IGNORE + 1, np.int64)
    for file in files:
        found += file.pixels
    return np.flatnonzero(found).tolist()


def _check_palettes(files: Sequence[MaskFile]) -> None:
    """Raise ValueError if palette files give one colour to different indices."""
    index_of: dict[Colour, tuple[int, Path]] = {}
    for file in files:
        for index, colour in file.colours.items():
            other, path = index_of.setdefault(colour, (index, file.path))
            if other != index and path != file.path:
                raise ValueError(
                    f"the colour {list(colour)} is index {other} in {path} and index {index} in "
                    f"{file.path.name}: a program has reordered the indices, so they are no class "
                    'ids; give the colours of the classes as "palette" in classes.json'
                )


def _contradictions(files: Sequence[MaskFile]) -> list[str]:
    """A line if palette files give one index different colours."""
    colour_of: dict[int, tuple[Colour, Path]] = {}
    for file in files:
        for index, colour in file.colours.items():
            other, path = colour_of.setdefault(index, (colour, file.path))
            if other != colour and index != IGNORE:
                return [
                    f"index {index} is {list(other)} in {path.name} and {list(colour)} in "
                    f"{file.path.name}: indices are read as class ids; if colours mean the classes,"
                    ' give them as "palette" in classes.json'
                ]
    return []


def _listed(items: Sequence[object]) -> str:
    shown = ", ".join(str(item) for item in items[:SHOWN])
    return shown if len(items) <= SHOWN else f"{shown} and {len(items) - SHOWN} more"
