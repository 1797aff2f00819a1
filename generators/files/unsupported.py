"""Files that are not supported: what they are, and the way out. Nothing in them is run."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from generators.files.marks import GIVE, MARKS, PARTS, SIGNATURES, ZIPS, Mark
from generators.files.survey import ZIP_HEAD, Survey, survey

HEAD_BYTES = 4096
EMPTY = "the file is empty: download or copy it again"


def describe(path: Path) -> str | None:
    """What an unsupported file is and the way out, in one line; None if it is not known."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        return EMPTY
    found = survey(path)
    named = _by_content(found, PARTS + MARKS) or _by_head(path, head, found)
    return f"this is {named[0]}: {named[1]}" if named else None


def describe_download(path: Path) -> str | None:
    """What came instead of the file, such as a web page or a Git LFS pointer; None: nothing."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    named = _by_signature(head)
    return EMPTY if not head else f"this is {named[0]}: {named[1]}" if named else None


def describe_parts(path: Path) -> str | None:
    """`describe` of a file in which there is a U-Net that is of no use without other parts."""
    named = _by_content(survey(path), PARTS)
    return f"this is {named[0]}: {named[1]}" if named else None


def _by_content(found: Survey, marks: tuple[Mark, ...]) -> tuple[str, str] | None:
    names, words = "\n".join(sorted(found.names)), "\n".join(sorted(found.words))
    for mark in marks:
        patterns = (word.replace("@", r"(?:^|[./])") for word in mark.words)
        if _found(mark.names, names) and all(_found(p, words) for p in patterns):
            return mark.what, mark.way_out
    return None


def _found(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.MULTILINE) is not None


def _by_head(path: Path, head: bytes, found: Survey) -> tuple[str, str] | None:
    if head.startswith(ZIP_HEAD):
        named = _of_zip(path)
        return named if found.form == "other" or named == ZIPS[0][1:] else None
    if found.form != "other":
        return None
    if named := _by_signature(head):
        return named
    text = head.decode("latin1")
    if head.isascii() and all(c.isprintable() or c.isspace() for c in text):
        return "a text file", GIVE
    return None


def _by_signature(head: bytes) -> tuple[str, str] | None:
    text = head.decode("latin1")
    matching = (s for s in SIGNATURES if re.match(s.pattern, text, re.IGNORECASE))
    return next(((s.what, s.way_out) for s in matching), None)


def _of_zip(path: Path) -> tuple[str, str] | None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = "\n".join(archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
        return None  # cut short
    return next((what, way) for pattern, what, way in ZIPS if _found(pattern, members))
