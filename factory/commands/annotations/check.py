"""`factory annotations check`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from factory.annotation.checking.findings import Checked, check_folder
from factory.annotation.checking.sheet import write_sheet
from factory.terminal.notes import print_notes
from factory.terminal.text import listing
from factory_core.annotated.layouts import split_selections
from factory_core.images import counted
from factory_core.storage import write_json

SHEET_NAME = "check.png"


def check(folder: Path, sheet: Path | None, json_file: Path | None, console: Console) -> None:
    """Print what was found, write the sheet and the JSON.

    Raises ValueError, with the training's own words, if `train-labeler` would refuse the folder;
    else as `check_folder`.
    """
    checked = check_folder(folder)
    _print(checked, console)
    target = sheet or _default_sheet(folder)
    if target is not None and (number := write_sheet(checked, target)):
        console.print(f"{counted(number, 'mask')} over their images in {target}")
    if json_file is not None:
        write_json(json_file, as_json(checked))
    if checked.refused is not None:
        raise ValueError(f"a training would refuse it: {checked.refused}")
    console.print(f"{folder} can be trained on")


def as_json(checked: Checked) -> dict[str, Any]:
    """All counts and findings as plain values."""
    return {
        "folder": str(checked.folder),
        "accepted": checked.refused is None,
        "refused": checked.refused,
        "images": checked.images,
        "pixels": checked.pixels,
        "unlabelled_pixels": checked.unlabelled,
        "classes": [asdict(of_class) for of_class in checked.classes],
        "findings": [asdict(finding) for finding in checked.findings],
        "notes": list(checked.notes),
    }


def _default_sheet(folder: Path) -> Path | None:
    """In the folder, unless it holds images itself: one more would be an image without a mask."""
    path, _ = split_selections(folder)
    has_folders = any(p.is_dir() and not p.name.startswith(".") for p in path.iterdir())
    return path / SHEET_NAME if has_folders else None


def _print(checked: Checked, console: Console) -> None:
    table = Table(title=f"{checked.folder}: {counted(checked.images, 'annotated image')}")
    table.add_column("class")
    for name in ("id", "images", "pixels", "share", "specks"):
        table.add_column(name, justify="right")
    total = max(checked.pixels, 1)
    for i, row in enumerate(checked.classes):
        share = f"{100 * row.pixels / total:.2f} %"
        table.add_row(row.name, str(i), str(row.images), f"{row.pixels:,}", share, str(row.specks))
    share = f"{100 * checked.unlabelled / total:.2f} %"
    table.add_row("(unlabelled)", "255", "", f"{checked.unlabelled:,}", share, "")
    console.print(table)
    kinds = Counter(finding.kind for finding in checked.findings)
    for kind in kinds:
        lines = [f"{f.file}: {f.text}" for f in checked.findings if f.kind == kind]
        console.print("\n".join(listing(lines)))
    print_notes(console, checked.notes)
