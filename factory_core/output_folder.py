"""Checks of output paths, before any work is done."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from factory_core.storage import Store

LEFT_BY_DESKTOPS = ("Thumbs.db", "desktop.ini")  # besides hidden files such as .DS_Store


def refuse_file(folder: Path | Store, flag: str = "--out") -> None:
    """Raise NotADirectoryError, naming `flag`, if `folder` or a folder it would lie in is a file.

    Raises OSError if it would lie in a bucket that cannot be reached.
    """
    from factory_core.storage import open_store  # here: `--help` must be quick

    store = open_store(folder)
    store.check()
    file = store.obstacle()
    if file is not None:
        found = "a file" if file == str(store) else f"the file {file}"
        raise NotADirectoryError(f"{flag} {folder}: found {found}, expected a folder or a new name")


def refuse_folder(file: Path, flag: str) -> None:
    """Raise an OSError, naming `flag`, if `file` is a folder or its folder does not exist."""
    if file.is_dir():
        raise IsADirectoryError(f"{flag} {file}: found a folder, expected the name of a file")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"{flag} {file}: there is no folder {file.parent}: create it first")


def contents(folder: Path | Store) -> list[str]:
    """Names in `folder`, sorted, without hidden files; empty if it does not exist."""
    from factory_core.storage import open_store

    names = open_store(folder).names()
    return [n for n in names if not n.startswith(".") and n not in LEFT_BY_DESKTOPS]


@contextmanager
def new_folder(out: Path, flag: str = "--out") -> Iterator[Path]:
    """A temporary folder beside `out` that becomes `out` when the context ends without an error.

    Raises FileExistsError, naming `flag`, if `out` holds anything, hidden files apart.
    """
    from factory_core.storage import TEMPORARY_PREFIX, naming_full_disk

    refuse_file(out, flag)
    if found := contents(out):
        raise FileExistsError(f"{flag} {out} holds {found[0]}: give a new or empty folder")
    temporary = out.with_name(f"{TEMPORARY_PREFIX}{out.name}-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)  # of an interrupted process of that number
    try:
        with naming_full_disk(out):
            temporary.mkdir(parents=True)
            yield temporary
            if hasattr(os, "sync"):  # all its files at once, so none needs a flush of its own
                os.sync()
            if out.exists():  # empty, but for hidden files
                for path in sorted(temporary.iterdir()):
                    os.replace(path, out / path.name)
                temporary.rmdir()
            else:
                os.replace(temporary, out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
