"""What `factory choose` and `factory sample --select` leave beside the images they chose.

    DIR/images/     the chosen images, for the annotator
        chosen.csv  a row per image, the most useful first: why it was chosen
        chosen.png  the images of the last run with the reasons below

Images without a mask are left out of trainings, so drawing may stop anywhere.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from factory.annotation.choosing import Candidates, Choice, Selection, reasons
from factory.annotation.preview import SHOWN, sheet
from factory_core.annotated.pairs import CHOSEN_FILE
from factory_core.storage import write_bytes

SHEET_NAME = "chosen.png"
COLUMNS = ("file", "selection", "uncertainty_nats", "distance")

Row = dict[str, str]


def read_chosen(out: Path) -> list[Row]:
    """The rows of `out`/chosen.csv, none if there is no such file; ValueError if it is damaged."""
    file = out / CHOSEN_FILE
    if not file.is_file():
        return []
    rows = list(csv.DictReader(io.StringIO(file.read_text("utf-8"))))
    if any(row.keys() != set(COLUMNS) for row in rows):
        raise ValueError(f"{file} is damaged: expected the columns {', '.join(COLUMNS)}")
    return rows


def write_chosen(
    out: Path,
    files: Sequence[str],
    images: torch.Tensor,
    how: Selection,
    candidates: Candidates,
    chosen: Sequence[Choice],
) -> None:
    """Write the sheet, and add the rows to chosen.csv.

    `files` are the names of the chosen files and `images` uint8 `[K, 3, H, W]` what they show.
    """
    why = reasons(how, candidates, chosen)
    before = read_chosen(out)
    captions = [
        (f"{i}. {Path(file).stem}", *lines)
        for i, (file, lines) in enumerate(zip(files, why, strict=True), len(before) + 1)
    ]
    shown = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images[:SHOWN]]
    write_bytes(out / SHEET_NAME, sheet(shown, captions[:SHOWN]))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(before)
    for file, (row, distance) in zip(files, chosen, strict=True):
        doubt = None if candidates.uncertainty is None else float(candidates.uncertainty[row])
        numbers = ["" if number is None else f"{number:.6g}" for number in (doubt, distance)]
        writer.writerow(dict(zip(COLUMNS, (file, how, *numbers), strict=True)))
    write_bytes(out / CHOSEN_FILE, text.getvalue().encode())
