"""All cases, and the table of them in the documentation.

`python -m tests.cases.checkpoints.table` writes it into `docs/checkpoints.md`.
"""

from __future__ import annotations

from pathlib import Path

from generators.files.marks import GIVE
from tests.cases.checkpoints import (
    diffusers_folders,
    guided_diffusion,
    rosinality,
    stylegan2,
    unsupported,
)

SUPPORTED = (*stylegan2.CASES, *rosinality.CASES, *guided_diffusion.CASES, *diffusers_folders.CASES)
CASES = (*SUPPORTED, *unsupported.CASES)
DOCUMENT = Path(__file__).parents[3] / "docs" / "checkpoints.md"
COMMAND = "python -m tests.cases.checkpoints.table"
START, END = f"<!-- written by `{COMMAND}` -->\n", "<!-- end of the table -->\n"


def table() -> str:
    """The table of all cases, as Markdown."""
    rows = ["| checkpoint of | file | loads | weights taken, or what to do instead |"]
    rows.append("| --- | --- | --- | --- |")
    for case in CASES:
        loads, note = ("yes", case.says) if case.loads else ("no", case.instead)
        note = "" if note == GIVE else note  # the sentence above the table says it
        rows.append(f"| {case.project} | {case.file} | {loads} | {note} |")
    return "\n".join(rows) + "\n"


def documented(text: str) -> str:
    """The documentation `text` with the table between its marks."""
    before, rest = text.split(START)
    return f"{before}{START}\n{table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    DOCUMENT.write_text(documented(DOCUMENT.read_text()))
