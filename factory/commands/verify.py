"""`factory verify`: report every fault of a finished dataset."""

from __future__ import annotations

from rich.console import Console

from factory.pipeline.verify import HINTS, verify
from factory.terminal.text import listing
from factory_core.dataset import read_manifest
from factory_core.storage import Store


def report(folder: Store, console: Console) -> None:
    """Print the faults of the dataset in `folder`, or that there are none.

    Raises ValueError, saying what to do, if there are any; otherwise as `verify`.
    """
    problems = verify(folder)
    if not problems:
        totals = read_manifest(folder).totals
        console.print(f"{folder} is intact: {totals.candidates} rows, {totals.kept} samples")
        return
    console.print("\n".join(listing(problems)))
    hints = []
    for remedy, hint in HINTS.items():
        files = list(dict.fromkeys(p.file for p in problems if p.remedy == remedy))
        if files:
            hints.append(hint.format(", ".join(listing(files))))
    raise ValueError(f"{folder} is damaged: {'; '.join(hints)}")
