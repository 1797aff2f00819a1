"""What a command says about the files it was given, before it uses them."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console


def print_notes(console: Console, notes: Iterable[str]) -> None:
    """Print a line per note as it is: names of files may look like markup."""
    for note in notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
