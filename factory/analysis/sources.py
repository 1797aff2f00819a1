"""What some analyses compare the annotated images and the generator with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

NAMED = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)=(?P<place>.+)")
KEY_LENGTH = 8  # hexadecimal digits of a digest in the name of a cell


@dataclass(frozen=True)
class Sources:
    """Options of an analysis, by the name that the user gave each.

    `synthetic` are folders of annotated samples, `encoders` are weights (files, folders, hub ids),
    `models` are folders of segmenters, and `data` is a dataset of labelled samples.
    """

    synthetic: Mapping[str, str] = field(default_factory=dict)
    encoders: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    data: Path | None = None


NOTHING = Sources()


def named(flag: str, values: Sequence[str], taken: Sequence[str] = ()) -> dict[str, str]:
    """Values `NAME=PLACE` or `PLACE` by name; without a name, it is that of the file or folder.

    Raises ValueError for a name that occurs twice or is one of `taken`.
    """
    found: dict[str, str] = {}
    for value in values:
        match = NAMED.fullmatch(value)
        name, place = (match["name"], match["place"]) if match else (_name_of(value), value)
        if name in found or name in taken:
            raise ValueError(
                f"{flag} {value}: the name {name} is taken; give another one: {flag} NAME={place}"
            )
        found[name] = place
    return found


def cell_name(name: str, digest: str) -> str:
    """The name of a cell that depends on content with this digest.

    So a cell is never reused for other content under the same name.
    """
    return f"{name}-{digest[:KEY_LENGTH]}"


def _name_of(place: str) -> str:
    """The last part of a path or hub id, without suffix and selection (`faces[:20]`)."""
    last = Path(place.partition("[")[0]).name
    stem = last.rpartition(".")[0] if "." in last.strip(".") else last
    return re.sub(r"[^\w.-]+", "_", stem, flags=re.ASCII).strip("._-") or "given"
