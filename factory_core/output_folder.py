"""What an output folder must be: a folder or a new name, and nobody else's."""

from __future__ import annotations

from pathlib import Path

LEFT_BY_DESKTOPS = ("Thumbs.db", "desktop.ini")  # besides hidden files such as .DS_Store


def refuse_file(folder: Path, flag: str = "--out") -> None:
    """Raise NotADirectoryError, naming `flag`, if `folder` or what it would lie in is a file.

    Raises OSError if it would lie in a bucket that cannot be reached.
    """
    from factory_core.storage import check_reachable, is_remote  # not to show the help

    check_reachable(folder)
    # In a bucket a name may well be both a file and the beginning of others.
    above = [] if is_remote(folder) else folder.parents
    for path in (folder, *above):
        if path.exists() and not path.is_dir():
            found = "a file" if path == folder else f"the file {path}"
            raise NotADirectoryError(
                f"{flag} {folder}: found {found}, expected a folder or a new name"
            )


def refuse_folder(file: Path, flag: str) -> None:
    """Raise an OSError, naming `flag`, if `file` is a folder or lies in none."""
    if file.is_dir():
        raise IsADirectoryError(f"{flag} {file}: found a folder, expected the name of a file")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"{flag} {file}: there is no folder {file.parent}: make it first")


def contents(folder: Path) -> list[str]:
    """Names in `folder`, sorted, without hidden files; none if it does not exist."""
    if not folder.is_dir():
        return []
    names = sorted(path.name for path in folder.iterdir())
    return [n for n in names if not n.startswith(".") and n not in LEFT_BY_DESKTOPS]
