"""The progress line of a running command, with rate and time left.

On a terminal it is a moving bar; in a log file it is printed every half minute.
"""

from __future__ import annotations

import logging
import time
import warnings

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

LOG_EVERY_SEC = 30.0
SHOW_EVERY_SEC = 0.5


class ProgressLine:
    """`description 12/100 unit ━━━ elapsed < left  status`, used as a context manager."""

    def __init__(self, description: str, unit: str, total: int, console: Console):
        self.console = console
        self.printed = time.monotonic()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TextColumn("< {task.fields[left]}"),
            TextColumn("{task.fields[status]}"),
            console=console,
            refresh_per_second=1 / SHOW_EVERY_SEC,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task(description, total=total, status="", left="-:--")
        self.started = time.monotonic()
        self.first: int | None = None  # completed at the first update
        self.left_sec: float | None = None

    def __enter__(self) -> ProgressLine:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def describe(self, description: str, left_sec: float | None) -> None:
        """Change the description; `left_sec` replaces the line's own estimate of the time left."""
        self.bar.update(self.task, description=description)
        self.left_sec = left_sec

    def update(self, completed: int, status: str = "", total: int | None = None) -> None:
        """Show `completed` of the total, and `status` after it; `total` corrects the total."""
        task = self.bar.tasks[0]
        total = int(task.total or 0) if total is None else total
        if self.first is None:
            self.first = completed
        left = self.left_sec if self.left_sec is not None else self._left(completed, total)
        shown = "-:--" if left is None else f"{int(left) // 60}:{int(left) % 60:02d}"
        self.bar.update(self.task, completed=completed, status=status, total=total, left=shown)
        if self.console.is_terminal or time.monotonic() - self.printed < LOG_EVERY_SEC:
            return
        self.printed = time.monotonic()
        self.console.print(f"{task.description} {completed}/{total}  {shown} left  {status}")

    def _left(self, completed: int, total: int) -> float | None:
        assert self.first is not None
        done = completed - self.first
        elapsed = time.monotonic() - self.started
        return elapsed * (total - completed) / done if done else None


def quiet_libraries() -> None:
    """Silence the advice that training libraries print; their errors are still shown."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "diffusers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(lightning|diffusers|torch|webdataset)(\.|$)")
