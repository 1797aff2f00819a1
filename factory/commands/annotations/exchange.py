"""`factory annotations import` and `export`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from factory.terminal.notes import print_notes
from factory_core.annotated.class_list import names_in_file
from factory_core.annotated.formats.exporting import export_annotations, of_dataset, of_folder
from factory_core.annotated.formats.importing import Imported, import_annotations
from factory_core.annotated.formats.regions import Source
from factory_core.images import counted

if TYPE_CHECKING:
    from factory_core.storage import Store

LOST = {
    "yolo-seg": "YOLO has no ignored pixels: any there were became background",
}


def class_names(text: str | None) -> list[str] | None:
    """Names from the option `--classes`: a list with commas, or a file such as classes.json.

    Raises ValueError for empty or repeated names, or as `names_in_file`.
    """
    if text is None:
        return None
    if Path(text).is_file():
        return names_in_file(Path(text))
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(f"--classes {text}: expected distinct names in id order, or a JSON file")
    return names


def import_folder(
    name: str, source: Source, out: Path, classes: Sequence[str] | None, console: Console
) -> None:
    """Import annotations and say in one line what was read; raises as `import_annotations`."""
    found = import_annotations(name, source, out, classes)
    console.print(summary(found, out))


def summary(found: Imported, out: Path) -> str:
    """What was read, decided and left out, in one line."""
    parts = [
        f"{counted(found.pictures, 'picture')}, {len(found.classes)} classes "
        f"({', '.join(found.classes)}) in {out}"
    ]
    if found.overlapped:
        parts.append(f"{counted(found.overlapped, 'overlapped pixel')} decided by drawing order")
    tally = found.tally
    if tally.copies:
        parts.append(
            f"{counted(tally.copies, 'picture')} replaced by the copy that was drawn on, which the "
            "file does not show"
        )
    if tally.crossed:
        verb = "crosses itself" if tally.crossed == 1 else "cross themselves"
        parts.append(f"{counted(tally.crossed, 'polygon')} {verb}, filled by the even-odd rule")
    reasons = [f"{number} {reason}" for reason, number in tally.left_out.items() if number]
    if reasons:
        parts.append(f"left out: {', '.join(reasons)}")
    return "; ".join(parts)


def export_folder(
    name: str, labeled: Path | None, data: Store | None, out: Path, console: Console
) -> None:
    """Export an annotated folder, or the dataset `data`; raises as `export_annotations`."""
    if labeled is not None:
        labelled = of_folder(labeled)
    else:
        assert data is not None
        labelled = of_dataset(data)
    number = export_annotations(name, labelled, out)
    console.print(f"{counted(number, 'picture')} in {out} ({name})")
    print_notes(console, [LOST[name]] if name in LOST else [])
